"""A real worker and a real beat: they deliver, survive kill -9, and bring an emptied Redis back by themselves."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from acl.services.deployments import deploy, rollback
from acl.services.drafts import save_draft
from cloudsignal.health import alive
from cloudsignal.redis import client
from cloudsignal.wire import keys
from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential
from tests.support.worker import celery, kill, soon
from tests.support.world import organization

pytestmark = pytest.mark.django_db(transaction=True)


def revision(redis: Redis, access: Access) -> int:
    return int(redis.hget(keys.bundle(access.org_id), "rev") or -1)  # type: ignore[arg-type]


def test_a_deploy_reaches_redis_a_kill_loses_nothing_and_a_wiped_redis_fills_itself() -> None:
    redis = client()
    access = organization()
    issue_credential(access, username="pump", static=True)
    started = time.time()
    worker = ("worker", "--concurrency", "1", "--loglevel", "warning")
    with celery(*worker) as process:
        # Queued while no worker ran.
        soon(lambda: revision(redis, access) == 1)
        save_draft(access, text='version: "3"\nrules: [{id: a, topic: a}]\n')
        deploy(access)
        soon(lambda: revision(redis, access) == 2)
        soon(lambda: alive.path("worker").exists() and alive.path("worker").stat().st_mtime >= started)
        kill(process)
    rollback(access, number=1)
    redis.delete("cs1:celery:cloudsignal")  # the message died with the worker that had taken it
    assert revision(redis, access) == 2
    with celery(*worker), celery("beat", "--loglevel", "warning"):
        soon(lambda: revision(redis, access) == 3)
        redis.flushall()
        soon(lambda: revision(redis, access) == 3)
        soon(lambda: redis.exists(keys.credential(access.org_id, "pump")))
        assert (alive.age("beat") or 99) < alive.STALE_SECONDS

"""A real worker and a real beat: they deliver, survive kill -9, and bring an emptied Redis back by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from redis import Redis

from acl.services.deployments import deploy, rollback
from acl.services.drafts import save_draft
from cloudsignal.health import alive
from cloudsignal.redis import client
from cloudsignal.wire import keys
from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential
from tests.support.world import organization

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]


@contextmanager
def celery(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery process of its own group, gone afterwards."""
    command = [sys.executable, "-m", "celery", "-A", "cloudsignal", *arguments]
    log = (settings.DATA_DIR / f"{arguments[0]}.log").open("ab")
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)
        log.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of the whole group: a worker and its children at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def soon(question: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


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

"""The queue of tasks against somebody who writes to Redis: with a real worker, a real Valkey, and a second client."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import timezone
from redis import Redis

from cloudsignal import queue
from cloudsignal.celery import app
from cloudsignal.models import DoneTask
from cloudsignal.outbox import forget_done
from cloudsignal.queue import PREFIX, QUEUE, UnsealedError, open_envelope, seal_envelope
from cloudsignal.redis import client
from cloudsignal.wire import keys
from orgs.people.invitations import invite
from orgs.permissions import Role
from orgs.tasks import send_invitation
from tests.support.worker import celery, soon
from tests.support.world import organization

pytestmark = pytest.mark.django_db(transaction=True)

LIST = f"{PREFIX}{QUEUE}"
GONE = "org_bbbbbbbbbbbb"
"""An organization that does not exist, so that a worker would forget what Redis has of it."""


def genuine(task: str = "orgs.tasks.forget_organization", **arguments: str) -> bytes:
    """A message as the outbox sends it, taken from the queue's newer end again."""
    app.send_task(task, kwargs=arguments, retry=False)
    raw = client().lpop(LIST)
    assert isinstance(raw, bytes)
    return raw


def without_seal(raw: bytes) -> dict[str, object]:
    envelope = json.loads(raw)
    del envelope[queue.SEAL]
    return dict(envelope)


def sealed(envelope: dict[str, object], **options: float) -> bytes:
    return json.dumps(seal_envelope(QUEUE, envelope, **options)).encode()


@contextmanager
def another_key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_key", lambda: b"somebody else's key")
        yield


def forged(org: str) -> dict[str, bytes]:
    """What a writer of Redis might put into the queue so that the organization's bundle is deleted, or workers die."""
    raw = genuine(org=org)
    plain = without_seal(raw)
    body = base64.b64encode(pickle.dumps(([], {"org": org}, {}))).decode()
    pickled = {**plain, "body": body, "content-type": "application/x-python-serialize", "content-encoding": "binary"}
    other = json.loads(genuine("acl.tasks.push_bundle", org=org))
    renamed = {**other, "headers": {**other["headers"], "task": "orgs.tasks.forget_organization"}}
    chain = [{"task": "orgs.tasks.forget_organization", "args": [], "kwargs": {"org": org}, "options": {}}]
    embedded = base64.b64encode(json.dumps([[], {"org": org}, {"chain": chain, "callbacks": chain}]).encode()).decode()
    with another_key():
        foreign = sealed(plain)
    old = {"task": "orgs.tasks.forget_organization", "args": [], "kwargs": {"org": org}, "retries": 0, "eta": None}
    first = base64.b64encode(json.dumps(old).encode()).decode()
    return {
        "bytes": b"\x00\xff\xfe garbage",
        "nothing": b"",
        "a list": b"[]",
        "a map": b"{}",
        "null": b"null",
        "deep": b"[" * 100_000,
        "long": b'"' + b"x" * (queue.MESSAGE_MAX + 1) + b'"',
        "a half": raw[: len(raw) // 2],
        "a seal alone": json.dumps({queue.SEAL: [int(time.time()), ""]}).encode(),
        "a seal of the wrong shape": json.dumps({**plain, queue.SEAL: {"at": 1}}).encode(),
        "no properties": json.dumps({"body": "", "headers": {}, queue.SEAL: [int(time.time()), "x"]}).encode(),
        "a pickle": json.dumps(pickled).encode(),
        "no seal": json.dumps(plain).encode(),
        "the first protocol": json.dumps({**plain, "headers": {}, "body": first}).encode(),
        "an unknown task": json.dumps({**plain, "headers": {"task": "nobody.knows"}}).encode(),
        "another key": foreign,
        "another task under a genuine seal": json.dumps(renamed).encode(),
        "callbacks under a genuine seal": json.dumps({**other, "body": embedded}).encode(),
        "too old": sealed(plain, now=time.time() - queue.AGE_MAX - 60),
        "from the future": sealed(plain, now=time.time() + queue.AHEAD_MAX + 60),
        "from another queue": json.dumps(seal_envelope("elsewhere", plain)).encode(),
    }


def test_what_our_processes_did_not_seal_is_refused() -> None:
    access = organization()
    for name, raw in forged(access.org_id).items():
        assert refused(raw), name
    assert open_envelope(QUEUE, genuine(org=access.org_id))["headers"]["task"] == "orgs.tasks.forget_organization"


def refused(raw: bytes) -> bool:
    try:
        open_envelope(QUEUE, raw)
    except UnsealedError:
        return True
    return False


def test_a_message_given_out_again_after_its_worker_died_is_still_ours() -> None:
    envelope = json.loads(genuine(org="org_aaaaaaaaaaaa"))
    envelope["headers"]["redelivered"] = True
    envelope["properties"]["delivery_info"]["redelivered"] = True
    assert open_envelope(QUEUE, json.dumps(envelope).encode())


def test_forged_and_broken_messages_change_nothing_and_the_same_worker_goes_on() -> None:
    redis, access = client(), organization()
    attacker = Redis.from_url(settings.REDIS_URL)
    redis.set(keys.credential(GONE, "kept"), "left over")
    messages = forged(GONE)
    name = keys.bundle(access.org_id)
    with celery("worker", "--concurrency", "1", "--loglevel", "warning", *ALONE) as worker:
        soon(lambda: redis.exists(name))
        settled(redis)
        for raw in messages.values():
            attacker.lpush(LIST, raw)
        attacker.hset(
            f"{PREFIX}unacked", mapping={"a": b"garbage", "b": b"[]", "c": b"[1, 2, 3]", "d": b"[{}, {}, []]"}
        )
        attacker.zadd(f"{PREFIX}unacked_index", dict.fromkeys(("a", "b", "c", "d", "not there"), 1.0))
        attacker.sadd(f"{PREFIX}_kombu.binding.{QUEUE}", b"astray", b"a\x06\x16b\x06\x16c")
        app.control.broadcast("shutdown")
        settled(redis)
        works(redis, worker)


def works(redis: Redis, worker: subprocess.Popen[bytes]) -> None:
    """What forged messages ask for was never done, and the worker that was started does what it is asked."""
    first, last = keys.credential(GONE, "kept"), keys.credential("org_aaaaaaaaaaaa", "left")
    redis.set(last, "left over")
    app.send_task("orgs.tasks.forget_organization", kwargs={"org": "org_aaaaaaaaaaaa"})
    soon(lambda: not redis.exists(last))
    assert redis.exists(first)
    assert worker.poll() is None


def settled(redis: Redis) -> None:
    """Nothing waits, and nothing is in hand."""
    soon(lambda: not redis.exists(LIST, f"{PREFIX}unacked", f"{PREFIX}unacked_index"))


ALONE = ("--without-gossip", "--without-mingle")


def test_keys_of_another_type_and_a_lock_without_an_end_stop_no_worker() -> None:
    redis, access = client(), organization()
    redis.delete(LIST)
    redis.set(keys.credential(GONE, "kept"), "left over")
    for name in (f"{PREFIX}unacked", f"{PREFIX}unacked_index", f"{PREFIX}_kombu.binding.{QUEUE}"):
        redis.set(name, "spoilt")
    redis.set(f"{PREFIX}unacked_mutex", "held for ever")
    with celery("worker", "--concurrency", "1", "--loglevel", "warning", *ALONE) as worker:
        soon(lambda: redis.exists(keys.bundle(access.org_id)))
        settled(redis)
        redis.set(LIST, "spoilt")
        soon(lambda: not redis.exists(LIST))
        works(redis, worker)
    assert redis.ttl(f"{PREFIX}unacked_mutex") != -1


def test_an_email_whose_message_is_replayed_is_sent_once(mailoutbox: list[EmailMessage]) -> None:
    access = organization()
    invitation = invite(access, email="new@example.com", role=Role.AUDITOR)
    arguments = {"org": access.org_id, "invitation": invitation.pk}
    message = open_envelope(QUEUE, genuine("orgs.tasks.send_invitation", **arguments))
    for _ in range(3):
        send_invitation.apply(kwargs=arguments, task_id=message["headers"]["id"], throw=True)
    assert [mail.to for mail in mailoutbox] == [["new@example.com"]]
    forget_done()
    assert DoneTask.objects.count() == 1
    DoneTask.objects.update(at=timezone.now() - timedelta(days=3))
    forget_done()
    assert not DoneTask.objects.exists()

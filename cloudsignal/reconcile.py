"""Bringing back what Redis lost: compare revisions with the database and push what is missing or old.

Bundles are compared every time, and so are the credentials that changed lately. All credentials are compared when Redis
has been restarted or emptied (its run id is not the one noted at the last full comparison), and every ten minutes
besides. So a wiped Redis begins to fill itself within seconds, at some 4,000 credentials a second (200,000 took 51 s on
two busy cores; edges go on with what they have), and no push that failed stays missing for longer than the ten minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import cast

from django.db.models import Q
from django.utils import timezone
from redis import Redis

from acl.services.push import catch_up as bundles_catch_up
from acl.services.push import push_bundle
from cloudsignal.redis import client, revision_of
from cloudsignal.wire import keys
from orgs.models import Credential, MqttIdentity, Organization
from orgs.services.push import KEPT_AFTER_EXPIRY, push_many
from orgs.services.push import catch_up as credentials_catch_up
from orgs.tenancy import platform_scope

logger = logging.getLogger(__name__)

MARK = f"{keys.PREFIX}reconciled"
"""Hash ``{run_id, at}``: which Redis process was last compared in full, and when (seconds since the epoch)."""
LOCK = f"{keys.PREFIX}reconciling"
"""Held while credentials are compared, so that one worker does it and the others stay free for pushes."""
LOCK_SECONDS = 150
FULL_SECONDS = 600
RECENT = timedelta(seconds=2 * FULL_SECONDS)
CHUNK = 1_000

Name = tuple[int, str, str, int]
"""Primary key, organization, username and revision of an identity."""


def reconcile() -> int:
    """Compare and push; returns how many records were pushed. Raises ``RedisError`` when Redis is away."""
    redis = client()
    pushed = _bundles(redis)
    if redis.set(LOCK, "1", nx=True, ex=LOCK_SECONDS):
        try:
            pushed += _credentials(redis)
        finally:
            redis.delete(LOCK)
    if pushed:
        logger.info("reconcile: records were missing or old on Redis", extra={"count": pushed})
    return pushed


def _bundles(redis: Redis) -> int:
    with platform_scope():
        wanted = list(Organization.objects.filter(revision__gt=0).order_by("pk").values_list("pk", "revision"))
    pushed = 0
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        found = _revisions(redis, [keys.bundle(org) for org, _ in chunk])
        for (org, revision), there in zip(chunk, found, strict=True):
            if there < revision:
                pushed += push_bundle(redis, org) is not None
            elif there > revision:
                pushed += bundles_catch_up(redis, org)
    return pushed


def _credentials(redis: Redis) -> int:
    run_id = str(redis.info("server")["run_id"])
    marked, at = cast("list[bytes | None]", redis.hmget(MARK, ["run_id", "at"]))
    if marked == run_id.encode() and 0 <= time.time() - revision_of(at) < FULL_SECONDS:
        return sum(_compare(redis, chunk) for chunk in _recent())
    pushed = sum(_compare(redis, chunk) for chunk in _identities())
    redis.hset(MARK, mapping={"run_id": run_id, "at": int(time.time())})
    return pushed


def _compare(redis: Redis, chunk: list[Name]) -> int:
    found = _revisions(redis, [keys.credential(org, username) for _, org, username, _ in chunk])
    rows = list(zip(chunk, found, strict=True))
    behind = [pk for (pk, _, _, revision), there in rows if there < revision]
    pushed = push_many(redis, behind) if behind else 0
    ahead = [(org, username) for (_, org, username, revision), there in rows if there > revision]
    return pushed + sum(credentials_catch_up(redis, org, username) for org, username in ahead)


def _recent() -> Iterator[list[Name]]:
    """Identities that changed since a while before the last full comparison: what an unlucky push may have missed."""
    with platform_scope():
        changed = MqttIdentity.objects.filter(revised_at__gt=timezone.now() - RECENT).order_by("pk")
        names = list(changed.values_list("pk", "org_id", "username", "revision"))
    for start in range(0, len(names), CHUNK):
        yield names[start : start + CHUNK]


def _identities() -> Iterator[list[Name]]:
    """Identities that somebody may still try to sign in as, in chunks: ``(pk, org, username, revision)``."""
    kept = Q(expires_at=None) | Q(expires_at__gt=timezone.now() - KEPT_AFTER_EXPIRY)
    last = 0
    while True:
        with platform_scope():
            found = MqttIdentity.objects.filter(pk__gt=last).order_by("pk")
            chunk = list(found.values_list("pk", "org_id", "username", "revision")[:CHUNK])
            # Asked for by (org, identity): a join would be planned as a scan of all credentials, once a chunk.
            secrets = Credential.objects.filter(
                kept, org__in={org for _, org, _, _ in chunk}, identity__in=[pk for pk, _, _, _ in chunk]
            )
            usable = set(secrets.values_list("identity", flat=True))
        if not chunk:
            return
        yield [name for name in chunk if name[0] in usable]
        last = chunk[-1][0]


def _revisions(redis: Redis, names: list[str]) -> list[int]:
    """The revision under each key; -1 where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.hget(name, "rev")
    return [revision_of(value) for value in pipeline.execute()]

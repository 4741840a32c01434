"""Reconciliation of credentials: compare Redis with the database and push what is missing or old.

What a record claims beside its seal proves nothing, so credentials are compared by the revision under it. Those that
changed lately are compared every time, all of them when Redis has been restarted or emptied (its run id is not the one
noted at the last full comparison), and every ten minutes besides. So a wiped Redis begins to fill itself within
seconds, at some 4,000 credentials a second (200,000 took 51 s on two busy cores; edges go on with what they have), and
nothing that a failed push left behind, or that somebody has put there, stays longer than ten minutes.
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

from cloudsignal.queue import repair as repair_queue
from cloudsignal.redis import records, revision_of
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from orgs.credentials.push import KEPT_AFTER_EXPIRY, catch_up, push_many, sealed_revision
from orgs.models import Credential, MqttIdentity

logger = logging.getLogger(__name__)

MARK = f"{keys.PREFIX}reconciled"
"""Hash ``{run_id, at}``: which Redis process was last compared in full, and when (seconds since the epoch)."""
LOCK = f"{keys.PREFIX}reconciling"
"""Lock of the comparison, so that one worker runs it and the others stay free for pushes."""
LOCK_SECONDS = 150
FULL_SECONDS = 600
RECENT = timedelta(seconds=2 * FULL_SECONDS)
CHUNK = 1_000
KINDS = {keys.CHANGES: b"stream", keys.AUDIT: b"stream", keys.REPORTS: b"stream", MARK: b"hash", LOCK: b"string"}

Name = tuple[int, str, str, int]
"""Primary key, organization, username and revision of an identity."""


def reconcile_credentials(redis: Redis) -> int:
    """Compare credentials on Redis with the database and push differences; returns the number pushed."""
    if not 0 <= redis.ttl(LOCK) <= LOCK_SECONDS:
        redis.delete(LOCK)  # nobody of ours holds it for ever
    if not redis.set(LOCK, "1", nx=True, ex=LOCK_SECONDS):
        return 0
    try:
        return _credentials(redis)
    finally:
        redis.delete(LOCK)


def mend(redis: Redis) -> None:
    """Delete keys of a wrong Redis type, which would make every command on them fail."""
    repair_queue(redis)
    spoilt = [name for name, kind in KINDS.items() if redis.type(name) not in {kind, b"none"}]
    if spoilt:
        logger.warning("reconcile: deleted a foreign value at %s", ", ".join(spoilt))
        redis.delete(*spoilt)


def _credentials(redis: Redis) -> int:
    run_id = str(redis.info("server")["run_id"])
    marked, at = cast("list[bytes | None]", redis.hmget(MARK, ["run_id", "at"]))
    if marked == run_id.encode() and 0 <= time.time() - revision_of(at) < FULL_SECONDS:
        return sum(_compare(redis, chunk) for chunk in _recent())
    pushed = sum(_compare(redis, chunk) for chunk in _identities())
    redis.hset(MARK, mapping={"run_id": run_id, "at": int(time.time())})
    return pushed


def _compare(redis: Redis, chunk: list[Name]) -> int:
    found = records(redis, [keys.credential(org, username) for _, org, username, _ in chunk])
    rows = [
        (pk, org, username, max(there, sealed) - revision, sealed - revision)
        for (pk, org, username, revision), (there, blob) in zip(chunk, found, strict=True)
        for sealed in [sealed_revision(blob, org, username)]
    ]
    ahead = [(org, username) for _, org, username, claimed, _ in rows if claimed > 0]
    behind = [pk for pk, _, _, claimed, sealed in rows if claimed <= 0 and sealed < 0]
    pushed = push_many(redis, behind) if behind else 0
    return pushed + sum(catch_up(redis, org, username) for org, username in ahead)


def _recent() -> Iterator[list[Name]]:
    """Identities changed since shortly before the last full comparison, which a failed push may have missed."""
    with platform_scope():
        changed = MqttIdentity.objects.filter(revised_at__gt=timezone.now() - RECENT).order_by("pk")
        names = list(changed.values_list("pk", "org_id", "username", "revision"))
    for start in range(0, len(names), CHUNK):
        yield names[start : start + CHUNK]


def _identities() -> Iterator[list[Name]]:
    """Iterate over identities that clients may still sign in as, in chunks: ``(pk, org, username, revision)``."""
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

"""Bringing back what Redis lost: compare revisions with the database and push what is missing or old.

Bundles are compared every time. Credentials are compared when Redis has been restarted or emptied (its run id is not
the one noted at the last full comparison), and every ten minutes besides. So a wiped Redis fills itself within seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from django.db.models import Q
from django.utils import timezone
from redis import Redis

from acl.services.push import catch_up as bundles_catch_up
from acl.services.push import push_bundle
from cloudsignal.redis import client, revision_of
from cloudsignal.wire import keys
from orgs.models import Credential, MqttIdentity, Organization
from orgs.services.push import KEPT_AFTER_EXPIRY, push_credential
from orgs.services.push import catch_up as credentials_catch_up
from orgs.tenancy import platform_scope

logger = logging.getLogger(__name__)

MARK = f"{keys.PREFIX}reconciled"
"""Hash ``{run_id, at}``: which Redis process was last compared in full, and when."""
FULL_SECONDS = 600.0
CHUNK = 1_000


def reconcile() -> int:
    """Compare and push; returns how many records were pushed. Raises ``RedisError`` when Redis is away."""
    redis = client()
    pushed = _bundles(redis)
    run_id = str(redis.info("server")["run_id"])
    mark = redis.hgetall(MARK)
    at = float(mark.get(b"at", b"0"))
    if mark.get(b"run_id") != run_id.encode() or not 0 <= time.time() - at < FULL_SECONDS:
        pushed += _credentials(redis)
        redis.hset(MARK, mapping={"run_id": run_id, "at": time.time()})
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
    pushed = 0
    for chunk in _identities():
        found = _revisions(redis, [keys.credential(org, username) for _, org, username, _ in chunk])
        for (_, org, username, revision), there in zip(chunk, found, strict=True):
            if there < revision:
                pushed += push_credential(redis, org, username)
            elif there > revision:
                pushed += credentials_catch_up(redis, org, username)
    return pushed


def _identities() -> Iterator[list[tuple[int, str, str, int]]]:
    """Identities that somebody may still try to sign in as, in chunks: ``(pk, org, username, revision)``."""
    kept = Q(expires_at=None) | Q(expires_at__gt=timezone.now() - KEPT_AFTER_EXPIRY)
    last = 0
    while True:
        with platform_scope():
            owners = Credential.objects.filter(kept, identity_id__gt=last).order_by("identity_id")
            ids = list(owners.values_list("identity_id", flat=True).distinct()[:CHUNK])
            found = MqttIdentity.objects.filter(pk__in=ids).order_by("pk")
            chunk = list(found.values_list("pk", "org_id", "username", "revision"))
        if not chunk:
            return
        yield chunk
        last = ids[-1]


def _revisions(redis: Redis, names: list[str]) -> list[int]:
    """The revision under each key; -1 where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.hget(name, "rev")
    return [revision_of(value) for value in pipeline.execute()]

"""Reconcile the bundles on Redis with the database: push those that are missing, old or altered.

The revisions of bundles are compared every time, and the bytes of up to 200 of them, in turn.
"""

from __future__ import annotations

import math
import time

from redis import Redis

from acl.services.push import catch_up, push_bundle, write_heads
from cloudsignal.redis import revisions_of
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import heads, keys
from orgs.models import Organization

CHUNK = 1_000
CONTENTS = 200
"""Bundles built and compared byte by byte in one run: 10,000 organizations take some eight minutes."""


def reconcile_bundles(redis: Redis) -> int:
    """Compare the bundles with the database and push those that differ; returns how many were pushed."""
    with platform_scope():
        wanted = list(Organization.objects.filter(revision__gt=0).order_by("pk").values_list("pk", "revision"))
    pushed = 0
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        found = revisions_of(redis, [keys.bundle(org) for org, _ in chunk])
        for (org, revision), there in zip(chunk, found, strict=True):
            if there < revision:
                pushed += push_bundle(redis, org) is not None
            elif there > revision:
                pushed += catch_up(redis, org)
    pushed += sum(catch_up(redis, org) for org in _turn([org for org, _ in wanted]))
    # Last, so that nobody is told of a bundle that is not there yet.
    write_heads(redis)
    return pushed


def _turn(orgs: list[str]) -> list[str]:
    """The organizations whose bundles are compared byte by byte this time, chosen by the clock.

    A position stored on Redis could be manipulated there.
    """
    parts = math.ceil(len(orgs) / CONTENTS) or 1
    return orgs[int(time.time() / heads.EVERY) % parts :: parts]

"""Limits on Redis against somebody who writes to it: nobody is shut out for good, and no limit is gone for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings
from redis import Redis

from cloudsignal.errors import Limit
from cloudsignal.limits import Rate, take
from cloudsignal.redis import client

pytestmark = pytest.mark.django_db

SPOILT: dict[str, Callable[[Redis, bytes], object]] = {
    "far ahead": lambda redis, key: redis.set(key, "1e300"),
    "infinite": lambda redis, key: redis.set(key, "inf"),
    "a year ahead": lambda redis, key: redis.set(key, "4102444800"),
    "no number": lambda redis, key: redis.set(key, "x"),
    "nan": lambda redis, key: redis.set(key, "nan"),
    "below zero": lambda redis, key: redis.set(key, "-1e300"),
    "another type": lambda redis, key: redis.hset(key, "a", "b"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_limit_that_somebody_has_spoilt_counts_anew(spoil: Callable[[Redis, bytes], object]) -> None:
    take("organizations", "somebody")
    [key] = client().keys("cs1:limit:organizations:*")  # type: ignore[misc]
    attacker = Redis.from_url(settings.REDIS_URL)
    attacker.delete(key)
    spoil(attacker, key)
    for _ in range(Rate.parse(settings.RATE_LIMITS["organizations"]).count):
        take("organizations", "somebody")
    with pytest.raises(Limit):
        take("organizations", "somebody")
    assert client().ttl(key) > 0  # type: ignore[operator]

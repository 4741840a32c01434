"""Django's cache on Redis, shared by every process; while Redis is unavailable the cache is empty."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class JsonSerializer:
    """Values as JSON. Django's own serializer is pickle: whoever can write to Redis could run code in every process."""

    def dumps(self, value: object) -> bytes:
        """Raises TypeError for what JSON cannot hold."""
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        """Raises ValueError for what is not JSON."""
        return json.loads(data)


LONGEST = 86_400
"""Seconds an entry may lie. One without an end, or with a later one, was put there by somebody else."""


class TolerantRedisCache(RedisCache):
    """A Redis cache that is empty, not failing, while Redis is unavailable, so that people can still sign in."""

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """True when Redis is unavailable: as if it had been added."""

        def added() -> Any:
            self._clean(key, version)
            return super(TolerantRedisCache, self).add(key, value, _bounded(timeout), version)

        return _tolerant(added, True)

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The default when Redis is unavailable, or holds no JSON or another kind of value than the default."""

        def found() -> Any:
            self._clean(key, version)
            value = super(TolerantRedisCache, self).get(key, default, version)
            return value if _fits(value, default) else default

        return _tolerant(found, default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """None of the keys when Redis is unavailable."""
        _tolerant(lambda: super(TolerantRedisCache, self).set(key, value, _bounded(timeout), version), None)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        """False when Redis is unavailable."""
        return bool(_tolerant(lambda: super(TolerantRedisCache, self).delete(*args, **kwargs), False))

    def _clean(self, key: Any, version: Any) -> None:
        """Delete an entry with a longer expiry than any of ours."""
        name = self.make_and_validate_key(key, version=version)
        client = self._cache.get_client(name, write=True)
        left = client.pttl(name)
        if left == -1 or left > LONGEST * 1000:
            client.delete(name)


def _bounded(timeout: Any) -> Any:
    return LONGEST if timeout is None else timeout if timeout is DEFAULT_TIMEOUT else min(timeout, LONGEST)


def _fits(value: Any, default: Any) -> bool:
    """Whether a cached value has the type of the default; lists must contain times."""
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(one, Real) for one in value)
    return default is None or isinstance(value, type(default))


def _tolerant(call: Callable[[], T], otherwise: T) -> T:
    try:
        return call()
    except (RedisError, ValueError) as error:
        logger.warning("the cache is unavailable: %s", type(error).__name__)
        return otherwise

"""Django's cache on Redis, shared by every process; when Redis does not answer it is an empty cache, not an error."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, TypeVar

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


class TolerantRedisCache(RedisCache):
    """Used for rate limits of the sign-in pages: they protect the service and must not be what takes it down."""

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """True when Redis is away: as if it had been added."""
        return _tolerant(lambda: super(TolerantRedisCache, self).add(*args, **kwargs), True)

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The default when Redis is away or holds something that is not JSON."""
        return _tolerant(lambda: super(TolerantRedisCache, self).get(key, default, version), default)

    def set(self, *args: Any, **kwargs: Any) -> None:
        """Nothing when Redis is away."""
        _tolerant(lambda: super(TolerantRedisCache, self).set(*args, **kwargs), None)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        """False when Redis is away."""
        return bool(_tolerant(lambda: super(TolerantRedisCache, self).delete(*args, **kwargs), False))


def _tolerant(call: Callable[[], T], otherwise: T) -> T:
    try:
        return call()
    except (RedisError, ValueError) as error:
        logger.warning("the cache is of no use: %s", type(error).__name__)
        return otherwise

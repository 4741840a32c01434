"""Connections to Redis (or Valkey), and the one way desired state gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import encode

FAST_SECONDS = 0.5
"""How long a request waits for Redis before it leaves the work to a worker."""

_WRITE = """
local rev, old = redis.call('HGET', KEYS[1], 'rev'), redis.call('HGET', KEYS[1], 'b')
if rev and (#rev > 15 or not string.match(rev, '^%d+$')) then rev = false end
if rev and tonumber(rev) > tonumber(ARGV[1]) then return 0 end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'rev', ARGV[1], 'b', ARGV[2])
  redis.call('EXPIREAT', KEYS[1], ARGV[5])
else
  redis.call('HSET', KEYS[1], 'rev', ARGV[1], 'b', ARGV[2])
  redis.call('PERSIST', KEYS[1])
end
if rev == ARGV[1] and old == ARGV[2] then return 1 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'b', ARGV[4])
return 2
"""


@cache
def client() -> Redis:
    """The connection pool of workers and ingest; safe to share between threads, and after a fork."""
    return Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=10, socket_keepalive=True, health_check_interval=15
    )


@cache
def fast_client() -> Redis:
    """The same for work inside a request: gives up after :data:`FAST_SECONDS`, without a retry."""
    return Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=FAST_SECONDS,
        socket_timeout=FAST_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


@dataclass(frozen=True, slots=True)
class State:
    """A record of desired state on its way to Redis. ``expires_at`` (seconds since the epoch) lets Redis forget it."""

    key: str
    revision: int
    record: bytes
    change: Change
    expires_at: int | None = None


def write_state(redis: Redis, state: State) -> bool:
    """Write ``{rev, b}`` to the key unless a newer revision stands there, and announce it on the change stream.

    One script, so two writers cannot interleave. Writing what already stands announces nothing. Returns False when a
    newer revision was there.
    """
    return write_states(redis, [state])[0]


def write_states(redis: Redis, states: Sequence[State]) -> list[bool]:
    """:func:`write_state` for many, in one round trip; each stands for itself."""
    pipeline = redis.pipeline(transaction=False)
    for state in states:
        until = "" if state.expires_at is None else state.expires_at
        arguments = (state.revision, state.record, keys.CHANGES_MAXLEN, encode(state.change), until)
        pipeline.eval(_WRITE, 2, state.key, keys.CHANGES, *arguments)
    return [cast(int, done) > 0 for done in pipeline.execute()]


def revision_of(value: bytes | None) -> int:
    """The ``rev`` field of a record as a number; -1 when there is none, or nothing that could be one."""
    return int(value) if value is not None and value.isdigit() and len(value) <= 15 else -1


def announce(redis: Redis, change: Change) -> None:
    """Add an entry to the change stream."""
    redis.xadd(keys.CHANGES, {keys.FIELD: encode(change)}, maxlen=keys.CHANGES_MAXLEN, approximate=True)

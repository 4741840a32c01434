"""Connections to Redis (or Valkey), and the functions that write desired state there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import encode

logger = logging.getLogger(__name__)

FAST_SECONDS = 0.5
"""How long a request waits for Redis before it leaves the work to a worker."""

WRITES_TOGETHER = 100
"""Records in one call of the script: it blocks the server for less than a millisecond."""

_WRITE = """
local done = {}
local function keep(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
keep(KEYS[1], 'stream')
for i = 2, #KEYS do
  local a = 4 * (i - 2) + 2
  keep(KEYS[i], 'hash')
  local found = redis.call('HMGET', KEYS[i], 'rev', 'b')
  local rev, old = found[1], found[2]
  if rev and (#rev > 15 or not string.match(rev, '^%d+$')) then rev = false end
  if rev and tonumber(rev) > tonumber(ARGV[a]) then
    done[i - 1] = 0
  else
    redis.call('HSET', KEYS[i], 'rev', ARGV[a], 'b', ARGV[a + 1])
    if ARGV[a + 3] ~= '' then
      redis.call('EXPIREAT', KEYS[i], ARGV[a + 3])
    else
      redis.call('PERSIST', KEYS[i])
    end
    if rev ~= ARGV[a] or old ~= ARGV[a + 1] then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'b', ARGV[a + 2])
    end
    done[i - 1] = 1
  end
end
return done
"""


@cache
def client() -> Redis:
    """The Redis client of workers and ingest; safe to share between threads, and after a fork."""
    return Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=10, socket_keepalive=True, health_check_interval=15
    )


@cache
def fast_client() -> Redis:
    """The Redis client for web requests: gives up after :data:`FAST_SECONDS`, without a retry."""
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

    A key that somebody has made something else of (a string, say) is made anew.

    One script, so two writers cannot interleave. Writing what already stands announces nothing. Returns False when a
    newer revision was there.
    """
    return write_states(redis, [state])[0]


def write_states(redis: Redis, states: Sequence[State]) -> list[bool]:
    """Write many records as :func:`write_state` does, a hundred in one script call, each independently.

    Raises ``RedisError``; what was written until then stays, and writing all of it again does no harm.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for start in range(0, len(states), WRITES_TOGETHER):
            part = states[start : start + WRITES_TOGETHER]
            arguments: list[str | int | bytes] = [keys.CHANGES_MAXLEN]
            for state in part:
                until = "" if state.expires_at is None else state.expires_at
                arguments += [state.revision, state.record, encode(state.change), until]
            pipeline.eval(_WRITE, len(part) + 1, keys.CHANGES, *(state.key for state in part), *arguments)
        return [bool(done) for answer in pipeline.execute() for done in answer]


def revision_of(value: bytes | None) -> int:
    """The ``rev`` field of a record as a number; -1 when there is none, or nothing that could be one."""
    return int(value) if value is not None and value.isdigit() and len(value) <= 15 else -1


def records(redis: Redis, names: Sequence[str]) -> list[tuple[int, bytes | None]]:
    """Read revision and record of each key; ``(-1, None)`` where there is no hash."""
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(name, ["rev", "b"])
        found = pipeline.execute(raise_on_error=False)
    answers: list[tuple[int, bytes | None]] = []
    for name, answer in zip(names, found, strict=True):
        if isinstance(answer, list):
            answers.append((revision_of(answer[0]), answer[1]))
        elif isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
            logger.warning("%s on Redis is not a valid record: another program has written to it", name)
            answers.append((-1, None))
        else:
            raise answer
    return answers


def announce(redis: Redis, change: Change) -> None:
    """Add an entry to the change stream."""
    redis.xadd(keys.CHANGES, {keys.FIELD: encode(change)}, maxlen=keys.CHANGES_MAXLEN, approximate=True)


def revisions_of(redis: Redis, names: list[str]) -> list[int]:
    """The revision claimed under each key; -1 where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.hget(name, "rev")
    return [revision_of(value) if isinstance(value, bytes) else -1 for value in pipeline.execute(raise_on_error=False)]

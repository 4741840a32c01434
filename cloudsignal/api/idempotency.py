"""``Idempotency-Key``: a repeated POST is executed once and gets the stored first answer for a day.

One organization's answers have a bound (:data:`RECORDS_MAX`, :data:`BYTES_MAX`): the oldest are forgotten first. Of an
answer over :data:`ANSWER_MAX` bytes only the fact that the work is done is kept.

Answers may hold a secret that is shown once. They are kept on Redis encrypted under a key that needs both ours and the
caller's own ``Idempotency-Key``, of which only a hash is stored: who reads Redis reads nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import RedisError

from cloudsignal.errors import Conflict, Invalid, Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.secrets.sealing import SealError, seal, unseal
from cloudsignal.wire.keys import PREFIX

HEADER = "Idempotency-Key"
KEPT_SECONDS = 24 * 3600
RUNNING_SECONDS = 60
"""How long a request may run before its key is free again."""
KEY_MAX = 255
ANSWER_MAX = 64 * 1024
"""Bytes of one answer as it is kept."""
RECORDS_MAX = 2_000
"""Answers kept for one organization."""
BYTES_MAX = 8 * 1024 * 1024
"""Bytes of all of them."""
_CLOCKS_APART = 300
"""Seconds by which clocks of machines may differ."""
_RUNNING = b"running"
_TOO_LARGE = "too large"
_ANSWERS = f"{PREFIX}idempotency:"

_CLAIM = """
local held, left = false, redis.call('TTL', KEYS[1])
if redis.call('TYPE', KEYS[1]).ok == 'string' then held = redis.call('GET', KEYS[1]) end
if held and left >= 0 and left <= tonumber(held == ARGV[1] and ARGV[2] or ARGV[3]) then return held end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
"""
"""Claim a key, or return what it holds: ``running, its seconds, those of an answer``.

What lies there longer than we would have put it there (or is of another type) was put there by somebody else, and
counts for nothing: it would refuse the key for as long as it lies.
"""

_KEEP = """
local index, name, now, kept = KEYS[1], KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('SET', name, ARGV[1], 'EX', kept)
if redis.call('TYPE', index).ok ~= 'zset' then redis.call('DEL', index) end
redis.call('ZREMRANGEBYSCORE', index, '-inf', now - kept)
redis.call('ZREMRANGEBYSCORE', index, now + tonumber(ARGV[6]), '+inf')
redis.call('ZADD', index, now, #ARGV[1] .. ' ' .. name)
redis.call('EXPIRE', index, kept)
local count, bytes, known = 0, 0, {}
for _, member in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  local size, other = string.match(member, '^(%d+) (.*)$')
  size = tonumber(size)
  if size and size <= tonumber(ARGV[7]) and string.sub(other, 1, #ARGV[8]) == ARGV[8] then
    count, bytes = count + 1, bytes + size
    known[count] = {member, size, other}
  else
    redis.call('ZREM', index, member)
  end
end
for _, one in ipairs(known) do
  if count <= tonumber(ARGV[4]) and bytes <= tonumber(ARGV[5]) then break end
  redis.call('DEL', one[3])
  redis.call('ZREM', index, one[1])
  count, bytes = count - 1, bytes - one[2]
end
"""
"""Keep an answer, and forget the oldest of the same organization beyond its bounds. Its index names and sizes them;
what we would not have written into it is taken out."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The first answer to a key."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a request under its key, and to store its answer."""

    name: str
    index: str
    context: str
    fingerprint: str

    def finish(self, stored: Stored) -> None:
        """Keep the answer. When Redis fails here the work is done and the caller has its answer: nothing to undo."""
        sealed = self._seal(stored.status, stored.body, stored.headers)
        if len(sealed) > ANSWER_MAX:
            sealed = self._seal(0, _TOO_LARGE, {})
        limits = [str(one) for one in (KEPT_SECONDS, RECORDS_MAX, BYTES_MAX, _CLOCKS_APART, ANSWER_MAX)] + [_ANSWERS]
        try:
            fast_client().eval(_KEEP, 2, self.index, self.name, cast("Any", sealed), str(time.time()), *limits)
        except RedisError:
            return

    def _seal(self, status: int, body: Any, headers: dict[str, str]) -> bytes:
        plain = json.dumps([self.fingerprint, status, body, headers]).encode()
        return seal("idempotency", self.context, plain)

    def release(self) -> None:
        """Free the key: the request failed and may be tried again."""
        try:
            fast_client().delete(self.name)
        except RedisError:
            return


def begin(key: str, *, who: str, owner: str, fingerprint: str) -> Claim | Stored:
    """Claim ``key`` for a request of ``who``, or return the answer that it had before.

    ``owner`` is the organization that it counts for; outside of one, the person or key.

    Raises :class:`Conflict` while the first request runs, :class:`Invalid` when the key is unusable or was used for
    another request, and :class:`Unavailable` when Redis is unavailable: doing it twice would be worse than not at all.
    """
    if not 1 <= len(key) <= KEY_MAX or not key.isprintable():
        raise Invalid("bad_idempotency_key", f"An Idempotency-Key has 1 to {KEY_MAX} visible characters.")
    digest = hashlib.sha256(f"{who}\0{key}".encode("utf-8", "replace")).hexdigest()
    names = f"{_ANSWERS}{digest}", f"{PREFIX}idempotencies:{owner}"
    claim = Claim(*names, f"{who}\0{key}", fingerprint)
    try:
        seconds = str(RUNNING_SECONDS), str(KEPT_SECONDS)
        found = cast("bytes | None", fast_client().eval(_CLAIM, 1, claim.name, cast("Any", _RUNNING), *seconds))
    except RedisError as error:
        raise Unavailable("unavailable", "Idempotency keys cannot be checked right now; try again.") from error
    if found is None:
        return claim
    if found == _RUNNING:
        raise Conflict(
            "request_running", "The first request with this Idempotency-Key is still running; try again later."
        )
    return _open(claim, found)


def _open(claim: Claim, found: bytes) -> Stored:
    try:
        fingerprint, status, body, headers = json.loads(unseal("idempotency", claim.context, found))
    except (SealError, ValueError) as error:
        raise Conflict(
            "request_lost",
            "The first response to this Idempotency-Key is no longer readable; check whether the work was done.",
        ) from error
    if fingerprint != claim.fingerprint:
        raise Invalid(
            "idempotency_key_reused", "This Idempotency-Key was used for a different request; send a new one."
        )
    if body == _TOO_LARGE and not status:
        message = f"This was done. Its response was over {ANSWER_MAX} bytes, which is not kept; read what it created."
        raise Conflict("answer_not_kept", message)
    return Stored(status, body, headers)

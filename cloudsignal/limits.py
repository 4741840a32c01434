"""Rate limits, counted on Redis so that every process shares them.

One key a caller, holding the time at which its bucket is empty again (the generic cell rate algorithm): a caller may
burst up to ``count`` and then gets one for every ``seconds / count``. When Redis does not answer, nothing is refused:
a limit protects the service and must not be what takes it down.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from math import ceil
from typing import cast

from django.conf import settings
from redis.exceptions import RedisError

from cloudsignal.errors import Limit
from cloudsignal.redis import fast_client
from cloudsignal.wire.keys import PREFIX

logger = logging.getLogger(__name__)

_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local count, seconds = tonumber(ARGV[1]), tonumber(ARGV[2])
local kind = redis.call('TYPE', KEYS[1]).ok
local was = kind == 'string' and tonumber(redis.call('GET', KEYS[1])) or 0
if not (was <= now + seconds + 1) then was = 0 end
local full = math.max(was, now) + seconds / count
if full - seconds > now then return tostring(full - seconds - now) end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1)
end
return '0'
"""


# What this script could not have written (another type, no number, further ahead than a full bucket) counts as nothing:
# it would shut somebody out, or lift the limit, for as long as it stands.


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` calls in ``seconds``."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From ``COUNT/SECONDS``."""
        count, _, seconds = text.partition("/")
        return cls(int(count), int(seconds))


def take(limit: str, who: str) -> None:
    """Count one call of ``who`` against the rate limit ``name`` (``settings.RATE_LIMITS``).

    Raises :class:`Limit` with the seconds to wait when the bucket is empty; a refused call is not counted.
    """
    _ask(limit, who, count=True)


def check(limit: str, who: str) -> None:
    """Check a limit as :func:`take` does without counting; for limits that count only failures."""
    _ask(limit, who, count=False)


def _ask(limit: str, who: str, *, count: bool) -> None:
    rate = Rate.parse(settings.RATE_LIMITS[limit])
    key = f"{PREFIX}limit:{limit}:{hashlib.sha256(who.encode('utf-8', 'replace')).hexdigest()[:32]}"
    try:
        found = fast_client().eval(_TAKE, 1, key, str(rate.count), str(rate.seconds), "1" if count else "0")
        wait = float(cast("bytes", found))
    except RedisError as error:
        logger.warning("rate limits are not counted: %s", type(error).__name__)
        return
    if wait > 0:
        seconds = max(1, ceil(wait))
        raise Limit("rate_limited", f"Too many requests; try again in {seconds} s.", retry_after=seconds)

"""Redis scripts that claim, take over and release client IDs; each compares before it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudsignal.edge.redis import Command
from cloudsignal.edge.signin.holds import RETURN_WITHIN
from cloudsignal.edge.signin.stored_sessions import LIVE_TTL, STORED_MAX, held_seconds, session_lifetime
from cloudsignal.wire import keys

if TYPE_CHECKING:
    from cloudsignal.edge.session.machine import Session

_HELD = """
local function held_of(key)
  if redis.call('TYPE', key).ok ~= 'string' then return false end
  return redis.call('GET', key)
end
"""
"""Lua function: the hold on a client ID; a key of another type is no hold."""

TAKE = f"""{_HELD}
local held = held_of(KEYS[1])
local left = redis.call('TTL', KEYS[1])
if left < 0 or left > {LIVE_TTL + STORED_MAX} then held = false end
if held and string.match(held, '^[^\\n]*') ~= ARGV[1] then
  return false
end
local seconds = math.max(tonumber(ARGV[3]), held and left or 0)
redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[2], 'EX', seconds)
redis.call('EXPIRE', KEYS[2], seconds)
return held or ''
"""
"""Take a client ID over unless another username holds it: ``username, session, seconds`` -> what it held, or nothing.

A hold without an end, or longer than any of ours, was put there by somebody else: it would lock the username out for
good.
"""

TAKE_BEYOND = f"#!lua flags=allow-oom\n{TAKE}"
"""The same when Redis has no room left: a client ID is small, and who signs in is bounded. Redis 7, or Valkey."""

KEEP = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[1] + ARGV[5], '+inf')
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and ARGV[4] ~= '0'
    and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
return 1
"""
"""Count a session that outlives its connection: ``now, client ID, end, quota, longest`` -> 0 when there are too many.

What ends later than any session can, somebody else has noted.
"""

GATHER = 0.02
"""Seconds for which a client ID may wait to be released together with others."""

CHUNK = 200
"""Client IDs in one run of a script, at most: a script blocks Redis."""

CLAIM = f"""{_HELD}
local now, lost, newer = tonumber(redis.call('TIME')[1]), {{}}, {{}}
for i = 1, #KEYS / 3 do
  local key, filters, stored = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local name, session, seconds, before, client_id, lifetime = unpack(ARGV, 6 * i - 5, 6 * i)
  local held = held_of(key)
  local holder, theirs = string.match(held or name, '^([^\\n]*)\\n?(.*)$')
  if (holder == name or holder == '') and #theirs == #session and theirs > session then
    newer[#newer + 1] = i
  elseif holder == name then
    redis.call('SET', key, name .. '\\n' .. session, 'EX', seconds)
    redis.call('EXPIRE', filters, seconds)
    if lifetime ~= '0' then redis.call('ZADD', stored, now + seconds, client_id) end
  else
    lost[#lost + 1] = i
  end
end
return {{lost, newer}}
"""
"""Keep client IDs that no other username holds: ``username, session, seconds, (unused), client ID, lifetime`` each.

The numbers, from 1, of those that another username holds, and of those that a newer session of the same username holds
(or of none: it is being discarded). Ids of sessions are UUIDs of version 7, which are in the order of time.
"""

RELEASE = f"""{_HELD}
local now = tonumber(redis.call('TIME')[1])
for i = 1, #KEYS / 3 do
  local key, filters, stored = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local name, session, seconds, before, client_id, lifetime = unpack(ARGV, 6 * i - 5, 6 * i)
  if held_of(key) == name .. '\\n' .. session then
    if before ~= '' then
      redis.call('SET', key, before, 'KEEPTTL')
    elseif seconds == '0' then
      redis.call('DEL', key, filters)
      redis.call('ZREM', stored, client_id)
    else
      redis.call('EXPIRE', key, seconds)
      if lifetime ~= '0' then
        redis.call('EXPIRE', filters, seconds)
        redis.call('ZADD', stored, now + lifetime, client_id)
      else
        redis.call('DEL', filters)
        redis.call('ZREM', stored, client_id)
      end
    end
  end
end
"""
"""Release client IDs and their filters (0 seconds) or keep them for so long, unless newer sessions hold them.

A session that never began leaves its client ID to the one it was taken from (``before``): that one is live, or stored.
"""


def kept_seconds(session: Session) -> int:
    """Seconds a client ID stays with its username after the session; 0 when it is free at once.

    Longer than the broker keeps the session when an edge without Redis may still count on the username's hold
    (:mod:`cloudsignal.edge.signin.holds`).
    """
    if not session.at_broker:
        return 0
    if session.ousted:
        return held_seconds(session)
    return max(session_lifetime(session), RETURN_WITHIN if session.took_over else 0)


def command(script: str, holds: list[tuple[Session, int]]) -> Command:
    """Run ``script`` for these sessions, each with its seconds."""
    names: list[str] = []
    values: list[str | bytes | int] = []
    for session, seconds in holds:
        org, client_id = session.org.id, session.client_id
        names += keys.client(org, client_id), keys.filters(org, client_id), keys.stored(org)
        taking = session.taking
        displaced = taking.result() if taking is not None and taking.done() and not taking.exception() else None
        values += session.username, session.id, seconds, displaced or b"", client_id, session_lifetime(session)
    return ("EVAL", script, len(names), *names, *values)

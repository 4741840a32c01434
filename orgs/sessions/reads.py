"""Live MQTT sessions of an organization, as the edges publish them on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from redis.exceptions import RedisError

from cloudsignal.errors import Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import SESSIONS_SECONDS, LiveSession
from orgs.access.grants import Access
from orgs.permissions import Permission


def live_sessions(access: Access) -> tuple[LiveSession, ...]:
    """List the live sessions of an organization, newest first; at most seconds old.

    Raises :class:`Unavailable` when Redis does not answer in time.
    """
    access.require(Permission.ORG_READ)
    return sessions_of(access.org_id)


def sessions_of(org_id: str) -> tuple[LiveSession, ...]:
    """List live sessions for services that check a permission of their own."""
    try:
        sessions = _listed(org_id)
    except RedisError as error:
        raise Unavailable("sessions_unavailable", "Live sessions are unavailable; try again.") from error
    own = [session for session in sessions if session is not None and session.org == org_id]
    return tuple(sorted(own, key=lambda session: session.connected_at, reverse=True))


_REMOVE_STALE = """
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[2], id) == 0 then redis.call('HDEL', KEYS[1], id) end
end
"""
"""Remove session IDs from the index that the node does not list; the script checks that again at that moment."""


_NO_EXPIRY = -1
"""Redis' TTL of a key that does not expire."""


def _listed(org_id: str) -> list[LiveSession | None]:
    """Read the organization's sessions from the lists of the nodes, and remove stale IDs from its index.

    A list ends within seconds unless its node goes on writing it. One that would lie longer counts for nothing.
    """
    redis = fast_client()
    index = cast("dict[bytes, bytes]", redis.hgetall(keys.live(org_id)))
    found: list[LiveSession | None] = []
    for node in sorted(set(index.values())):
        ids = [identifier for identifier, holder in index.items() if holder == node]
        name = keys.sessions(node.decode(errors="replace"))
        with redis.pipeline() as pipeline:
            pipeline.ttl(name)
            pipeline.hmget(name, ids)
            left, blobs = cast("tuple[int, list[bytes | None]]", pipeline.execute())
        if left == _NO_EXPIRY or left > SESSIONS_SECONDS:
            continue  # no edge has written this
        stale = [identifier for identifier, blob in zip(ids, blobs, strict=True) if blob is None]
        if stale:
            redis.eval(_REMOVE_STALE, 2, keys.live(org_id), name, *stale)
        found += [_session(blob) for blob in blobs if blob is not None]
    return found


def _session(blob: bytes | str) -> LiveSession | None:
    try:
        return decode(blob.encode() if isinstance(blob, str) else blob, LiveSession)
    except WireError:
        return None


def sessions_or_none(access: Access) -> Sequence[LiveSession] | None:
    """List live sessions, or None while Redis is unavailable, so that a page can still show its other columns."""
    try:
        return live_sessions(access)
    except Unavailable:
        return None

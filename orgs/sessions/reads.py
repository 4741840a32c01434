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
    """The organization's connected clients, newest first, as the edges publish them (seconds old at most).

    Raises :class:`Unavailable` when Redis does not answer in time.
    """
    access.require(Permission.ORG_READ)
    return sessions_of(access.org_id)


def sessions_of(org_id: str) -> tuple[LiveSession, ...]:
    """The same, for services that ask for a permission of their own."""
    try:
        sessions = _listed(org_id)
    except RedisError as error:
        raise Unavailable("sessions_unavailable", "Live sessions are unavailable; try again.") from error
    own = [session for session in sessions if session is not None and session.org == org_id]
    return tuple(sorted(own, key=lambda session: session.connected_at, reverse=True))


_TAKE_AWAY = """
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[2], id) == 0 then redis.call('HDEL', KEYS[1], id) end
end
"""
"""Take ids from the index that the node does not list: looked at once more, because it may list them by now."""


_ENDLESS = -1
"""What Redis answers to TTL of a key without an end."""


def _listed(org_id: str) -> list[LiveSession | None]:
    """What the nodes list of the organization; ids in its index that no node lists any more are taken away.

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
        if left == _ENDLESS or left > SESSIONS_SECONDS:
            continue  # no edge has written this
        stale = [identifier for identifier, blob in zip(ids, blobs, strict=True) if blob is None]
        if stale:
            redis.eval(_TAKE_AWAY, 2, keys.live(org_id), name, *stale)
        found += [_session(blob) for blob in blobs if blob is not None]
    return found


def _session(blob: bytes | str) -> LiveSession | None:
    try:
        return decode(blob.encode() if isinstance(blob, str) else blob, LiveSession)
    except WireError:
        return None


def sessions_or_none(access: Access) -> Sequence[LiveSession] | None:
    """Live sessions, or None while Redis does not answer: a list without that column beats no list."""
    try:
        return live_sessions(access)
    except Unavailable:
        return None

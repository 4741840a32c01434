"""Live sessions on Redis, as an edge publishes them."""

from __future__ import annotations

from redis import Redis

from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import SESSIONS_SECONDS, LiveSession


def publish(redis: Redis, live: LiveSession) -> None:
    """List the session under its node, and in the index of its organization."""
    redis.hset(keys.sessions(live.node), live.session, encode(live))  # type: ignore[arg-type]
    redis.expire(keys.sessions(live.node), SESSIONS_SECONDS)
    redis.hset(keys.live(live.org), live.session, live.node)

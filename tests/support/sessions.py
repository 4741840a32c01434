"""Live sessions on Redis, as an edge publishes them."""

from __future__ import annotations

from redis import Redis

from cloudsignal.redis import client as redis_client
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import SESSIONS_SECONDS, LiveSession
from orgs.access.grants import Access


def publish(redis: Redis, live: LiveSession) -> None:
    """List the session under its node, and in the index of its organization."""
    redis.hset(keys.sessions(live.node), live.session, encode(live))  # type: ignore[arg-type]
    redis.expire(keys.sessions(live.node), SESSIONS_SECONDS)
    redis.hset(keys.live(live.org), live.session, live.node)


def connected(access: Access, username: str = "sensor", **changes: object) -> LiveSession:
    """A live session, as an edge would publish it."""
    values: dict[str, object] = {
        "session": f"s-{username}", "org": access.org_id, "username": username, "client_id": f"{username}-1",
        "node": "edge-1", "ip": "192.0.2.7", "port": 50000, "transport": "mqtts", "mqtt_version": "5",
        "tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_256_GCM_SHA384", "token_id": "tok_x",
        "connected_at": 1_790_000_000.0, "expires_at": 0,
    }  # fmt: skip
    session = LiveSession(**(values | changes))  # type: ignore[arg-type]
    publish(redis_client(), session)
    return session

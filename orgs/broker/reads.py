"""Retained messages and stored sessions of an organization, as the edges record them on Redis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import cast

from redis.exceptions import RedisError

from cloudsignal.errors import Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.wire import keys
from cloudsignal.wire.retained import RetainedEntry
from orgs.access.grants import Access
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_of

LISTED_MAX = 10_000
"""Maximum number of retained messages, or stored sessions, that are searched for a list."""


@dataclass(frozen=True, slots=True)
class RetainedMessage:
    """A retained message without its payload, which no part of CloudSignal reads."""

    topic: str
    size: int
    """Size of the packet in bytes."""
    published_at: datetime | None
    """None if the message is older than its record."""
    expires_at: datetime | None
    username: str
    """The local username that published it; empty if unknown."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that outlives its connection."""

    client_id: str
    username: str
    """The local username of the session."""
    ends_at: datetime
    """When the session expires unless its client connects again; an estimate while the client is connected."""
    connected: bool


@dataclass(frozen=True, slots=True)
class RetainedList:
    """Retained messages by topic. ``total`` and ``bytes`` count all of them, ``rows`` are those searched."""

    rows: tuple[RetainedMessage, ...]
    total: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredList:
    """Stored sessions by client ID; those that expire first are searched first."""

    rows: tuple[StoredSession, ...]
    total: int


def list_retained(access: Access, *, find: str = "") -> RetainedList:
    """List retained messages whose topic or username contains ``find``, by topic.

    At most :data:`LISTED_MAX` are looked at. Raises :class:`Unavailable` when Redis does not answer.
    """
    access.require(Permission.ORG_READ)
    org, rows = access.org_id, []
    try:
        redis = fast_client()
        total, size = redis.hlen(keys.retained(org)), redis.get(keys.retained_bytes(org))
        entries = redis.hscan_iter(keys.retained(org), count=1_000)
        for topic, value in islice(entries, LISTED_MAX):
            name, entry = topic.decode("utf-8", "replace"), RetainedEntry.read(value)
            if find in name or (find and find in entry.username):
                rows.append(RetainedMessage(name, entry.size, _time(entry.at), _time(entry.ends), entry.username))
    except RedisError as error:
        raise _away() from error
    return RetainedList(tuple(sorted(rows, key=lambda row: row.topic)), total, _number(size))


def list_stored(access: Access, *, find: str = "") -> StoredList:
    """List stored sessions whose client ID or username contains ``find``. Raises :class:`Unavailable`."""
    access.require(Permission.ORG_READ)
    return stored_of(access.org_id, find=find)


def stored_of(org: str, *, find: str = "") -> StoredList:
    """List stored sessions for services that check a permission of their own."""
    try:
        redis = fast_client()
        total = redis.zcard(keys.stored(org))
        found = redis.zrange(keys.stored(org), 0, LISTED_MAX - 1, withscores=True)
        noted = [(name.decode("utf-8", "replace"), ends) for name, ends in cast("list[tuple[bytes, float]]", found)]
        held = cast("list[bytes | None]", redis.mget([keys.client(org, name) for name, _ in noted])) if noted else []
    except RedisError as error:
        raise _away() from error
    live = {session.client_id for session in sessions_of(org)} if noted else set()
    owners = [(value or b"").decode("utf-8", "replace").partition("\n")[0] for value in held]
    rows = [
        StoredSession(name, owner, ends_at, name in live)
        for (name, ends), owner in zip(noted, owners, strict=True)
        if (ends_at := _time(ends)) is not None and (find in name or find in owner)
    ]
    return StoredList(tuple(sorted(rows, key=lambda row: row.client_id)), total)


def _time(seconds: float) -> datetime | None:
    """Parse a timestamp from Redis; None for 0 and for a value out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 253_402_300_799 else None


def _number(value: object) -> int:
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < 16 else 0


def _away() -> Unavailable:
    return Unavailable(
        "broker_unknown", "The broker's retained messages and stored sessions are unavailable; try again."
    )

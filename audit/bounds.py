"""Size limits of an audit event's fields, shared by ingest and search. Pure Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

TEXT_BYTES = 2_000
"""Bytes of UTF-8 kept of username, client ID and topic: an index row of PostgreSQL holds at most 2,704."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The earliest time an event can have."""

LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The latest one; a day short of what ``datetime`` can say, so that a day can be added."""


def microseconds(at: datetime) -> int:
    """Microseconds since the epoch."""
    return (at - EPOCH) // timedelta(microseconds=1)


LATEST_US = microseconds(LATEST)


def moment(us: int) -> datetime:
    """The time ``us`` microseconds after the epoch; raises ``OverflowError`` when there is none."""
    return EPOCH + timedelta(microseconds=us)


def cut(text: str) -> str:
    """``text`` within :data:`TEXT_BYTES`, never in the middle of a character."""
    if len(text) * 4 <= TEXT_BYTES:
        return text
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")

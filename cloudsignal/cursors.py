"""Cursors of lists that are paged by time and primary key: where the next page begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cloudsignal.errors import Invalid


def write_cursor(at: datetime, pk: int) -> str:
    """Encode the position of a row in a list ordered by time and primary key."""
    return f"{int(at.timestamp() * 1_000_000)}-{pk}"


def read_cursor(cursor: str) -> tuple[datetime, int]:
    """Decode a cursor of :func:`write_cursor`; raises :class:`Invalid` for any other text."""
    at, _, pk = cursor.partition("-")
    if not (cursor.isascii() and at.isdigit() and pk.isdigit() and len(at) < 18 and len(pk) < 19):
        raise Invalid("bad_cursor", "The cursor is not valid for this list; start from the first page.", field="cursor")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(at)), int(pk)

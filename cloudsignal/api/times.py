"""Times in requests: ISO 8601 with a zone, within what every part of the system can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework import serializers

from cloudsignal.errors import Invalid

FIRST, LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class TimeField(serializers.DateTimeField):
    """A time in a body."""

    def to_internal_value(self, value: Any) -> datetime:
        """The time in UTC; refuses what has no zone or lies outside 1970 to 2200."""
        if isinstance(value, str) and (found := read_time(value)) is not None:
            return found
        raise serializers.ValidationError("Write an ISO 8601 time with its zone, such as 2026-01-31T12:00:00Z.")


def query_time(name: str, text: str) -> datetime | None:
    """A time in a query, None when empty; raises :class:`Invalid`."""
    if not text:
        return None
    found = read_time(text.replace(" ", "+"))
    if found is None:
        raise Invalid("bad_time", f"{name} is an ISO 8601 time with its zone: 2026-01-31T12:00:00Z.", field=name)
    return found


def read_time(text: str) -> datetime | None:
    """The time in UTC, or None when it cannot be read or held."""
    try:
        found = parse_datetime(text)
        if found is None or found.tzinfo is None:
            return None
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if FIRST <= found <= LAST else None

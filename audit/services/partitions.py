"""Partitions of the audit table: made ahead of time, indexed for search once their day is over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction

AHEAD = 3
"""Days for which a partition is there before the first event."""
SEAL_BACK = 14
"""Days looked back for partitions that are still to be sealed."""


def ensure(days: list[date]) -> int:
    """Make the partitions of ``days`` that are missing; returns how many were. Waits two seconds for locks at most.

    A day that lies too far from today gets none; its events go to the default partition.
    """
    today = datetime.now(UTC).date()
    made = 0
    for day in sorted(set(days)):
        if not today - timedelta(days=400) <= day <= today + timedelta(days=8):
            continue
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            cursor.execute("SELECT audit_ensure_partition(%s)", [day])
            made += bool(cursor.fetchone()[0])
    return made


def ensure_ahead() -> int:
    """Partitions for today and the next :data:`AHEAD` days."""
    today = datetime.now(UTC).date()
    return ensure([today + timedelta(days=offset) for offset in range(AHEAD + 1)])


def seal_past() -> int:
    """Build the search indexes of finished days; returns how many partitions got them.

    Yesterday is left alone until two in the morning: late events are cheaper to insert without indexes.
    """
    now = datetime.now(UTC)
    newest = (now - timedelta(hours=2)).date() - timedelta(days=1)
    sealed = 0
    for offset in range(SEAL_BACK):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT audit_seal_partition(%s)", [newest - timedelta(days=offset)])
            sealed += bool(cursor.fetchone()[0])
    return sealed

"""Partitions of the audit table: made ahead of time, indexed for search once their day is over.

The hot partition carries only its key and ``(org_id, ts, id)``, which is what ingest can keep up with. The further
indexes are built in one go when nothing much is written any more. While they are, that one partition takes no inserts:
ingest keeps entries with an event that comes so late in hand, and goes on with the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from django.db import DatabaseError, connection, transaction

logger = logging.getLogger(__name__)

AHEAD = 3
"""Days for which a partition is there before the first event."""
REACH_BACK, REACH_AHEAD = timedelta(days=400), timedelta(days=8)
"""How far from today a partition can lie; the function in the database refuses others."""
SEAL_BACK = 31
"""Days looked back for partitions that are still to be sealed."""
SEAL_HOURS = 2
"""How long after midnight, UTC, the day before is sealed: by then almost all of its late events have arrived."""
SEAL_DAY = 4_081_600
"""With the number of a day since the epoch, the advisory lock of that day. Whoever seals it holds it; whoever
stores rows in it shares it."""
_SEAL_LOCK = 4_081_600_413
"""Advisory lock of whoever seals: a redelivered task must not do it a second time beside the first."""


def ensure(days: Iterable[date]) -> int:
    """Make the partitions of ``days`` that are missing; returns how many were. Waits two seconds for locks at most.

    A day that lies too far from today gets none; its events go to the default partition.
    """
    today = datetime.now(UTC).date()
    made = 0
    for day in sorted(set(days)):
        if not today - REACH_BACK <= day <= today + REACH_AHEAD:
            continue
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            cursor.execute("SELECT audit_ensure_partition(%s)", [day])
            made += bool(cursor.fetchone()[0])
    return made


def ensure_ahead() -> int:
    """Partitions for today and the next :data:`AHEAD` days; returns how many were made."""
    today = datetime.now(UTC).date()
    return ensure(today + timedelta(days=offset) for offset in range(AHEAD + 1))


def seal_past(now: datetime | None = None) -> int:
    """Build the search indexes of finished days, newest first; returns how many partitions got them.

    Does nothing when another process is at it. A day that cannot be sealed is logged and does not keep others from it.
    """
    newest = ((now or datetime.now(UTC)) - timedelta(hours=SEAL_HOURS)).date() - timedelta(days=1)
    return sum(_seal(newest - timedelta(days=offset)) for offset in range(SEAL_BACK))


def _seal(day: date) -> bool:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_SEAL_LOCK])
            if not cursor.fetchone()[0]:
                return False
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [SEAL_DAY, (day - date(1970, 1, 1)).days])
            cursor.execute("SELECT audit_seal_partition(%s)", [day])
            return bool(cursor.fetchone()[0])
    except DatabaseError as error:
        logger.error("the partition of %s could not be sealed: %s", day, str(error).partition("\n")[0])  # noqa: TRY400
        return False

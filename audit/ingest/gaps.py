"""Detect audit events that a node recorded but that never arrived.

A heartbeat says how many events the running edge process had recorded at that moment. A minute later at least as many
must be stored, not counting those that happened since. When fewer are, the stream is empty and nothing of it arrived
between two looks, events were lost on the way (a deleted stream), and the platform's log says how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection

from audit.bounds import EPOCH, LATEST
from audit.ingest.rows import platform_row
from audit.ingest.store import store
from audit.kinds import AUDIT_GAP
from audit.models import Journal
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.report import Heartbeat

SETTLE_SECONDS = 60.0
"""How long after a heartbeat its events must have arrived, and how long they may then make no progress."""

_SINCE = "SELECT count(*) FROM audit_event WHERE ts > %s AND ts < %s AND node = %s"
_BEGIN = (
    "INSERT INTO audit_journal (node, incarnation, stored, lost, first_at, last_at) "
    "VALUES (%s, %s, 0, 0, now(), now()) ON CONFLICT DO NOTHING"
)


@dataclass(slots=True)
class _Watch:
    """A heartbeat whose event count must be reached within a minute."""

    beat: Heartbeat
    due: float
    missing: int | None = None


class Gaps:
    """Watches one heartbeat per node. Several ingest processes may do so; each gap is logged once."""

    def __init__(self, *, settle: float = SETTLE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle = settle
        self._clock = clock
        self._watched: dict[str, _Watch] = {}

    def check(self, beats: Sequence[Heartbeat], *, drained: Callable[[], bool]) -> int:
        """Watch new heartbeats, and check those that are due; returns how many gaps were logged.

        ``drained`` says whether the stream holds nothing that is not stored yet.
        """
        now = self._clock()
        for beat in beats:
            watch = self._watched.get(beat.node)
            if watch is None or watch.beat.incarnation != beat.incarnation:
                self._watched[beat.node] = _Watch(beat, now + self._settle)
        due = [watch for watch in self._watched.values() if watch.due <= now]
        if not due or not drained():
            return 0
        return sum(self._look(watch, now) for watch in due)

    def _look(self, watch: _Watch, now: float) -> bool:
        missing, lost = _missing(watch.beat)
        if missing > 0 and (watch.missing is None or missing < watch.missing):
            watch.missing, watch.due = missing, now + self._settle
            return False
        del self._watched[watch.beat.node]
        return missing > 0 and _tell(watch.beat, missing, lost)


def _missing(beat: Heartbeat) -> tuple[int, int]:
    """The number of missing events of ``beat`` that are not logged yet, and the number already logged."""
    at = min(EPOCH + timedelta(seconds=beat.at), LATEST)
    with platform_scope(), connection.cursor() as cursor:
        journal = Journal.objects.filter(node=beat.node, incarnation=beat.incarnation).first()
        cursor.execute(_SINCE, [at, at + timedelta(days=1), beat.node])
        later = int(cursor.fetchone()[0])
    stored, lost = (journal.stored, journal.lost) if journal else (0, 0)
    return beat.sequence - lost - (stored - later), lost


def _tell(beat: Heartbeat, missing: int, lost: int) -> bool:
    """Log the gap in the platform's log; False when another process has done so meanwhile."""
    row = platform_row(
        key=f"gap/{beat.node}/{beat.incarnation}/{lost + missing}",
        at_ms=int(beat.at * 1_000),
        kind=AUDIT_GAP,
        reason="gap",
        details={"node": beat.node, "incarnation": beat.incarnation, "missing": missing, "recorded": beat.sequence},
    )
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(_BEGIN, [beat.node, beat.incarnation])
        told = Journal.objects.filter(node=beat.node, incarnation=beat.incarnation, lost=lost)
        return bool(told.update(lost=lost + missing)) and store([row]) == 1

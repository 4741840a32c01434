"""The ingest consumer: reads stream entries, stores their events, and only then acknowledges them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from django.db import DatabaseError, DataError, connection, connections
from redis import Redis
from redis.exceptions import RedisError

from audit.bounds import LATEST_US, moment
from audit.ingest.append import DAY_US, Append, BeingSealedError, Load, days_in
from audit.ingest.gaps import Gaps
from audit.ingest.lost import Heard, LostNodes
from audit.ingest.rows import Row, days_of, platform_row, row_of
from audit.ingest.store import store
from audit.ingest.streams import CLAIM_IDLE_SECONDS, READ_MAX, DeadLetter, StreamEntry, Streams
from audit.kinds import AUDIT_UNREADABLE
from audit.services import partitions
from cloudsignal.secrets.keyring import node_key
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditBatch, read_batch
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import BundleReport, Heartbeat
from cloudsignal.wire.sealed import Kind, open_record

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 0.5
BACKOFF_FIRST = 0.1
BACKOFF_MAX = 3.0
"""Seconds between attempts while PostgreSQL or Redis is unavailable."""
REPORTS_AGAIN_SECONDS = 1.0
"""How long reports of nodes wait after they could not be applied."""
LATE_AGAIN_SECONDS = 1.0
"""Seconds that entries wait when they hold events of a day that is being sealed."""
LATE_MAX = 1_000
"""Such entries kept in hand. Further ones stay pending in the stream, and are taken over from there again."""
UNFIT = (WireError, ValueError, TypeError, ArithmeticError)
"""Errors of an event that cannot be stored."""
PAST = timedelta(days=31)
FUTURE = timedelta(days=2)
"""Days further away get no partition of their own because of an event: a wrong clock must not make hundreds."""


class NodeRegistry(Protocol):
    """The interface to the registry of nodes in ``acl``, which the ``ingest`` command passes in."""

    def report(self, reports: Sequence[BundleReport]) -> None:
        """Apply bundle reports in order. Raises ``ValueError`` or ``DataError`` for an invalid one."""

    def look(self, redis: Redis) -> Sequence[Heartbeat]:
        """Read the heartbeats, if it is time to; returns those that are new."""

    def heard(self, *, steady: float) -> Mapping[str, Heard] | None:
        """The time of each node's last heartbeat; None unless all were readable for the last ``steady`` seconds."""


@dataclass(slots=True)
class Counters:
    """Counters of this ingest process since its start."""

    events: int = 0
    """Stored for the first time."""
    repeated: int = 0
    """Delivered again, or a further copy of a folded event."""
    reports: int = 0
    quarantined: int = 0


@dataclass(slots=True)
class _Read:
    """An entry of the audit stream with the rows made from it."""

    entry: StreamEntry
    batch: AuditBatch | None = None
    rows: list[Row] = field(default_factory=list)
    wrong: str = ""


class Ingest:
    """One consumer of the ingest group. Several may run; each entry goes to one of them."""

    def __init__(
        self,
        redis: Redis,
        nodes: NodeRegistry,
        *,
        name: str = "",
        claim_idle: float = CLAIM_IDLE_SECONDS,
        append: Append | None = None,
    ) -> None:
        self.counters = Counters()
        self._redis = redis
        self._nodes = nodes
        self._streams = Streams(redis, name or socket.gethostname(), claim_idle=claim_idle)
        self._gaps = Gaps()
        self._lost = LostNodes()
        self._waiting: dict[str, StreamEntry] = {}
        self._reports_at = 0.0
        self._append = append
        self._late: dict[str, StreamEntry] = {}
        """Entries with events of a day that is being sealed."""
        self._late_at = 0.0
        self._days: set[date] = set()

    def run(self, stop: threading.Event, alive: Callable[[], None]) -> None:
        """Ingest until ``stop`` is set, retrying after failures with the same entries.

        ``alive`` is called once a round.
        """
        wait = BACKOFF_FIRST
        while not stop.is_set():
            alive()
            try:
                self.round()
            except (RedisError, DatabaseError, OSError) as error:
                logger.warning("ingest waits %.1f s: %s", wait, _short(error))
            except Exception:
                logger.exception("ingest waits %.1f s after an unexpected error", wait)
            else:
                wait = BACKOFF_FIRST
                continue
            self._streams.again()
            self._late.clear()
            connections.close_all()
            if self._append:
                self._append.close()
            stop.wait(wait)
            wait = min(wait * 2, BACKOFF_MAX)

    def round(self, *, block: float = BLOCK_SECONDS) -> int:
        """Read once, store, finish; returns how many entries were dealt with."""
        work = self._streams.next(block=block)
        again = self._late_again()
        entries = {entry.id: entry for entry in (*again, *work.audit) if entry.id not in self._late}
        self._audit(list(entries.values()))
        self._reports(work.reports)
        beats = self._nodes.look(self._redis)
        self._gaps.check(beats, drained=lambda: self._streams.idle(keys.AUDIT))
        self._lost.check(self._nodes.heard, drained=lambda: self._streams.idle(keys.AUDIT))
        return len(work.audit) + len(work.reports)

    # --- audit ------------------------------------------------------------------------------------------------------

    def _audit(self, entries: Sequence[StreamEntry]) -> None:
        if not entries:
            return
        read = [_read(entry) for entry in entries]
        try:
            fresh = self._appended(self._append, read) if self._append else self._stored(read)
        except DataError:
            fresh = self._store_singly([_with_rows(one) for one in read])
        except BeingSealedError as error:
            self._set_apart(read, error.days)
            return
        total = sum(len(one.batch.events) for one in read if one.batch)
        quarantined = [DeadLetter(one.entry, one.wrong) for one in read if one.wrong]
        self._streams.finish(keys.AUDIT, entries, quarantined)
        self.counters.events += fresh
        self.counters.repeated += max(0, total - fresh)
        self._note(keys.AUDIT, quarantined)

    def _stored(self, read: Sequence[_Read]) -> int:
        rows = [row for one in read for row in _with_note(_with_rows(one))]
        self._make_partitions(days_of(rows))
        return store(rows)

    def _appended(self, append: Append, read: Sequence[_Read]) -> int:
        load = Load()
        for one in read:
            if one.batch:
                load.add(one.batch)
        self._make_partitions({moment(day * DAY_US).date() for day in load.days if 0 <= day <= LATEST_US // DAY_US})
        return append.store(
            load,
            lambda: [row for one in read for row in _with_note(_with_rows(one))],
            unusual=any(one.wrong for one in read),
        )

    def _set_apart(self, read: Sequence[_Read], days: set[int]) -> None:
        """Keep the entries that must wait for a day in hand, as far as there is room, and store the others."""
        waiting = {one.entry.id: one.entry for one in read if one.batch and not days.isdisjoint(days_in(one.batch))}
        self._late.update(list(waiting.items())[: max(0, LATE_MAX - len(self._late))])
        if time.monotonic() >= self._late_at:  # or those in hand would wait as long as others come
            self._late_at = time.monotonic() + LATE_AGAIN_SECONDS
        self._audit([one.entry for one in read if one.entry.id not in waiting])

    def _late_again(self) -> list[StreamEntry]:
        """The entries that waited longest, at most as many as a round reads."""
        if not self._late or time.monotonic() < self._late_at:
            return []
        return [self._late.pop(name) for name in list(self._late)[:READ_MAX]]

    def _store_singly(self, read: Sequence[_Read]) -> int:
        """Store entries one by one after PostgreSQL refused a batch, and quarantine the one that it refuses.

        Only a ``DataError`` says so. An ``IntegrityError`` passes: a row on its way to the default partition is refused
        when its day's partition is made at that moment.
        """
        fresh = 0
        for one in read:
            try:
                fresh += store(_with_note(one))
            except DataError as error:
                one.rows, one.wrong = [], f"the database refused it: {_short(error)}"
                fresh += store(_with_note(one))
        return fresh

    def _make_partitions(self, days: set[date]) -> None:
        today = datetime.now(UTC).date()
        missing = {day for day in days if today - PAST <= day <= today + FUTURE} - self._days
        if not missing:
            return
        try:
            partitions.ensure(sorted(missing))
        except DatabaseError as error:
            # Somebody holds a lock, or the server is going away. The default partition takes the rows, and they move
            # when the day's is made later.
            logger.warning("ingest: a partition could not be made: %s", _short(error))
            return
        self._days |= missing

    # --- reports ----------------------------------------------------------------------------------------------------

    def _reports(self, entries: Sequence[StreamEntry]) -> None:
        """Apply node reports; while one waits for a lock or for PostgreSQL, audit events are still stored."""
        self._waiting.update({entry.id: entry for entry in entries})
        if not self._waiting or time.monotonic() < self._reports_at:
            return
        waiting = list(self._waiting.values())
        try:
            quarantined = self._apply(waiting)
            store([_note(keys.REPORTS, one) for one in quarantined])
        except DatabaseError as error:
            logger.warning("ingest: reports of nodes wait: %s", _short(error))
            self._reports_at = time.monotonic() + REPORTS_AGAIN_SECONDS
            connection.close_if_unusable_or_obsolete()
            return
        self._streams.finish(keys.REPORTS, waiting, quarantined)
        self._waiting.clear()
        self.counters.reports += len(waiting) - len(quarantined)
        self._note(keys.REPORTS, quarantined)

    def _apply(self, entries: Sequence[StreamEntry]) -> list[DeadLetter]:
        """Apply all reports at once, or one by one when one is invalid; returns those that were quarantined."""
        reports: list[tuple[StreamEntry, BundleReport]] = []
        quarantined: list[DeadLetter] = []
        for entry in entries:
            try:
                reports.append((entry, decode(open_record(Kind.REPORT, entry.record, node_key()), BundleReport)))
            except WireError as error:
                if entry.there:
                    quarantined.append(DeadLetter(entry, str(error)))
        try:
            self._nodes.report([report for _, report in reports])
        except Exception as error:
            if isinstance(error, DatabaseError) and not isinstance(error, DataError):
                raise
            for entry, report in reports:
                try:
                    self._nodes.report([report])
                except (DataError, ValueError, ArithmeticError) as wrong:
                    quarantined.append(DeadLetter(entry, f"it makes no sense: {_short(wrong)}"))
        return quarantined

    def _note(self, stream: str, quarantined: Sequence[DeadLetter]) -> None:
        self.counters.quarantined += len(quarantined)
        for one in quarantined:
            logger.error("ingest: entry %s of %s was quarantined: %s", one.entry.id, stream, one.reason[:200])


def _read(entry: StreamEntry) -> _Read:
    read = _Read(entry)
    if not entry.there:
        return read
    try:
        read.batch = read_batch(open_record(Kind.AUDIT, entry.record, node_key()))
    except WireError as error:
        read.wrong = str(error)
    return read


def _with_rows(read: _Read) -> _Read:
    """``read`` with a row of each of its events."""
    read.rows = []
    for event in read.batch.events if read.batch else ():
        try:
            read.rows.append(row_of(event, node=read.batch.node, incarnation=read.batch.incarnation))  # type: ignore[union-attr]
        except UNFIT as error:
            read.wrong = _short(error)
    return read


def _with_note(read: _Read) -> list[Row]:
    """The rows of an entry, and a row for the platform's log when the entry has a fault."""
    return [*read.rows, _note(keys.AUDIT, DeadLetter(read.entry, read.wrong))] if read.wrong else read.rows


def _note(stream: str, one: DeadLetter) -> Row:
    return platform_row(
        key=f"{stream}/{one.entry.id}",
        at_ms=one.entry.at_ms,
        kind=AUDIT_UNREADABLE,
        reason="unreadable",
        details={"stream": stream, "entry": one.entry.id, "error": one.reason[:500]},
    )


def _short(error: BaseException) -> str:
    """The first line of a database error: further lines repeat values of rows."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"

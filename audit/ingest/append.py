"""Append events to the audit as a role that can do nothing else: one binary COPY into the table.

Row-level security closes COPY to the roles it binds, so this one (``DATABASE_INGEST_URL``) has BYPASSRLS, and the
right to insert into the audit and to read it. The fast way takes it for granted that nothing of a batch is stored yet.
PostgreSQL refuses it otherwise, and the batch is compared with what is there; only a batch of which a part is new, or
that holds something unusual, takes the way of :mod:`audit.ingest.store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from django.db import connection as django_connection
from psycopg.errors import UniqueViolation

from audit.bounds import EPOCH, LATEST_US, moment
from audit.ingest import lost
from audit.ingest.insert import stage
from audit.ingest.packed import COPIED, END, NO_LEAF, SIGNATURE, Packer, leaf_data
from audit.ingest.rows import Row, row_of
from audit.ingest.store import PATIENCE, SAME, count, existing, store_within
from audit.services.commitments import ReservedLeaves
from audit.services.partitions import SEAL_BACK, SEAL_DAY
from cloudsignal.ids import ORG, PLATFORM_ORG
from cloudsignal.wire.audit import AuditBatch, AuditEvent
from cloudsignal.wire.codec import WireError

DAY_US = 86_400_000_000
CONNECT_SECONDS = 5

_COPY = f"COPY audit_event ({', '.join(COPIED)}) FROM STDIN (FORMAT BINARY)"
_CLOSED = "SELECT day FROM unnest(%s::int4[]) AS day WHERE NOT pg_try_advisory_xact_lock_shared(%s, day)"


class BeingSealedError(Exception):
    """Some days of a load are being indexed and take no rows; ``days`` since the epoch."""

    def __init__(self, days: set[int]) -> None:
        super().__init__(f"{len(days)} days are being sealed")
        self.days = days


class _UnusualError(Exception):
    """The fast way cannot store this batch."""


@dataclass(slots=True)
class Load:
    """Batches of events to be stored in one transaction."""

    batches: list[AuditBatch] = field(default_factory=list)
    size: int = 0
    """Events in the batches."""
    orgs: Counter[str] = field(default_factory=Counter)
    """Events by organization, as they name it."""
    days: set[int] = field(default_factory=set)
    boundaries: list[tuple[AuditEvent, AuditBatch]] = field(default_factory=list)
    """Events that begin or end a session."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Events by node and incarnation."""

    def add(self, batch: AuditBatch) -> None:
        """Take a batch."""
        self.batches.append(batch)
        self.size += len(batch.events)
        for event in batch.events:
            self.orgs[event.org] += 1
            self.days.add(event.ts // DAY_US)
            if event.kind in lost.BOUNDARIES:
                self.boundaries.append((event, batch))
            if event.node and event.node != batch.node:
                self.counts[event.node[:128], batch.incarnation[:36]] += 1
                self.counts[batch.node[:128], batch.incarnation[:36]] -= 1
        self.counts[batch.node[:128], batch.incarnation[:36]] += len(batch.events)

    def packed(self, packer: Packer) -> list[tuple[bytes, str, bytes]]:
        """Each event packed up to its leaf, its organization, and the bytes that its leaf commits to."""
        return [packer.pack(event, node=batch.node) for batch in self.batches for event in batch.events]


class Append:
    """The connection of ``DATABASE_INGEST_URL``. Raises ``django.db.Error``, like Django's own connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None
        self._packer = Packer()
        self._repeated = False
        """Whether the last batch was stored already: then it is likely that the next one is too."""

    def store(self, load: Load, rows: Callable[[], list[Row]], *, unusual: bool = False) -> int:
        """Store a load in one transaction; returns how many events were new.

        ``rows`` makes the rows of the slow way, notes of ingest itself among them; with ``unusual`` there is no other.
        Raises :class:`BeingSealedError` when a day of it takes no rows at the moment; nothing is stored then.
        """
        with django_connection.wrap_database_errors:
            ways = [] if unusual else [self._there, self._copy] if self._repeated else [self._copy, self._there]
            for way in ways:
                try:
                    with self._transaction(load) as cursor:
                        fresh = way(cursor, load)
                except (UniqueViolation, _UnusualError, WireError, ValueError, TypeError, ArithmeticError):
                    continue
                self._repeated = not fresh
                return fresh
            with self._transaction(load) as cursor:
                return store_within(cursor, rows())

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    @contextmanager
    def _transaction(self, load: Load) -> Iterator[psycopg.Cursor[Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_SECONDS, options="-c timezone=UTC"
            )
        with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
            cursor.execute(PATIENCE)
            today = (datetime.now(UTC) - EPOCH).days
            # Days before those are never sealed; with a lock for each that an event names, the lock table were full.
            if past := sorted(day for day in load.days if today - SEAL_BACK - 2 <= day < today):
                cursor.execute(_CLOSED, [past, SEAL_DAY])
                if closed := {day for (day,) in cursor.fetchall()}:
                    raise BeingSealedError(closed)
            yield cursor

    def _copy(self, cursor: psycopg.Cursor[Any], load: Load) -> int:
        """Store everything, taking it to be new."""
        sizes: Counter[str] = Counter()
        for org, size in load.orgs.items():
            sizes[org if ORG.match(org) else PLATFORM_ORG] += size
        if not sizes.keys() <= existing(cursor, sizes):
            raise _UnusualError
        rows = [row_of(event, node=batch.node, incarnation=batch.incarnation) for event, batch in load.boundaries]
        if lost.without_second_ends(cursor, rows)[1]:
            raise _UnusualError
        leaves = ReservedLeaves(cursor, sizes)
        with cursor.copy(_COPY) as copy:
            copy.write(SIGNATURE)
            for batch in load.batches:
                copy.write(b"".join([self._row(event, batch.node, leaves) for event in batch.events]))
            copy.write(END)
        leaves.queue()
        lost.note(cursor, rows)
        count(cursor, load.counts)
        return load.size

    def _row(self, event: AuditEvent, node: str, leaves: ReservedLeaves) -> bytes:
        data, org, committed = self._packer.pack(event, node=node)
        return data + leaf_data(leaves.add(org, committed))

    def _there(self, cursor: psycopg.Cursor[Any], load: Load) -> int:
        """Store nothing, if everything is stored already."""
        days = [day for day in load.days if 0 <= day <= LATEST_US // DAY_US]
        stage(cursor, [SIGNATURE, *(data + NO_LEAF for data, _, _ in load.packed(self._packer)), END])
        cursor.execute(SAME, [moment(min(days, default=0) * DAY_US), moment((max(days, default=0) + 1) * DAY_US)])
        if (cursor.fetchone() or [0])[0] != load.size:
            raise _UnusualError
        return 0


def days_in(batch: AuditBatch) -> set[int]:
    """The days of a batch's events, in days since the epoch, UTC."""
    return {event.ts // DAY_US for event in batch.events}

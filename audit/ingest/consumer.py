"""The consumer: reads the audit and report streams in a group, stores, then acknowledges."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError, connections
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from acl.services.nodes import note_heartbeat
from acl.services.reports import apply_report
from audit.ingest.rows import Row, days_of, platform_row, row_of, store
from audit.kinds import CRITICAL
from audit.services import partitions
from cloudsignal.health.alive import touch
from cloudsignal.wire import keys
from cloudsignal.wire.audit import decode_batch
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import BundleReport, Heartbeat

logger = logging.getLogger(__name__)

GROUP = "ingest"
READ_MAX = 60
"""Entries a round reads at most: 60 batches of up to 100 events."""
BLOCK_MS = 1_000
CLAIM_IDLE_MS = 15_000
"""An entry that another consumer has held this long without acknowledging it is taken over."""
CLAIM_EVERY = 5.0
NODES_EVERY = 2.0
DEAD = f"{keys.PREFIX}audit:dead"
"""Stream of entries that could not be understood, with the reason (fields ``b``, ``stream``, ``reason``)."""
DEAD_MAXLEN = 10_000
BACKOFF_MAX = 5.0

Entry = tuple[bytes, dict[bytes, bytes] | None]


@dataclass(slots=True)
class Counters:
    """What this process has done since its start."""

    events: int = 0
    entries: int = 0
    dead: int = 0
    reports: int = 0


class Ingest:
    """One consumer of the group. Several may run; each entry goes to one of them."""

    def __init__(self, redis: Redis, *, name: str = "") -> None:
        self.redis = redis
        # The host's name, so that a process that was killed finds at once what its predecessor held. Two on one host
        # may meet the same entry; the key keeps it from being stored twice.
        self.name = name or socket.gethostname()
        self.counters = Counters()
        self._days: set[date] = set()
        self._claimed_at = 0.0
        self._nodes_at = 0.0
        self._ready = False
        self._leftovers = True
        self._beats: dict[bytes, bytes] = {}

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop`` says so. PostgreSQL or Redis being away is waited out, whatever is in hand comes again."""
        wait = 0.1
        while not stop():
            touch("ingest")
            try:
                self.round()
            except (RedisError, DatabaseError, InterfaceError, OperationalError, OSError) as error:
                logger.warning("ingest waits %.1f s: %s", wait, type(error).__name__)
                self._ready = False
                connections.close_all()
                time.sleep(wait)
                wait = min(wait * 2, BACKOFF_MAX)
            else:
                wait = 0.1

    def round(self, *, block: int = BLOCK_MS) -> int:
        """Read once, store, acknowledge; returns how many entries were dealt with."""
        if not self._ready:
            self._prepare()
        self._note_nodes()
        entries = self._own() if self._leftovers else self._claim()
        self._leftovers = self._leftovers and any(entries.values())
        if not any(entries.values()):
            entries = self._read(block)
        return self._audit(entries[keys.AUDIT]) + self._reports(entries[keys.REPORTS])

    # --- reading ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for stream in (keys.AUDIT, keys.REPORTS):
            try:
                self.redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._leftovers = True
        self._ready = True

    def _read(self, block: int) -> dict[str, list[Entry]]:
        streams = {keys.AUDIT: ">", keys.REPORTS: ">"}
        try:
            answer = self.redis.xreadgroup(GROUP, self.name, streams, count=READ_MAX, block=block)  # type: ignore[arg-type]
        except ResponseError as error:
            if "NOGROUP" in str(error):  # Redis was emptied
                self._ready = False
            raise
        found: dict[str, list[Entry]] = {keys.AUDIT: [], keys.REPORTS: []}
        for stream, entries in cast("list[tuple[bytes, list[Entry]]]", answer or []):
            found[stream.decode()] = entries
        return found

    def _claim(self) -> dict[str, list[Entry]]:
        """Now and then, take over what a consumer that died left behind."""
        found: dict[str, list[Entry]] = {keys.AUDIT: [], keys.REPORTS: []}
        now = time.monotonic()
        if self._claimed_at and now - self._claimed_at < CLAIM_EVERY:
            return found
        for stream in found:
            claimed = self.redis.xautoclaim(stream, GROUP, self.name, CLAIM_IDLE_MS, count=READ_MAX)
            found[stream] = list(cast("list[Any]", claimed)[1])
        if not any(len(entries) >= READ_MAX for entries in found.values()):
            self._claimed_at = now
        return found

    def _own(self) -> dict[str, list[Entry]]:
        """What this consumer, or one of its name before it, was given and did not acknowledge."""
        found: dict[str, list[Entry]] = {}
        for stream in (keys.AUDIT, keys.REPORTS):
            answer = self.redis.xreadgroup(GROUP, self.name, {stream: "0"}, count=READ_MAX)  # type: ignore[arg-type]
            entries = cast("list[tuple[bytes, list[Entry]]]", answer or [])
            found[stream] = list(entries[0][1]) if entries else []
        return found

    # --- audit ------------------------------------------------------------------------------------------------------

    def _audit(self, entries: list[Entry]) -> int:
        read = [(entry_id, fields, self._rows(entry_id, fields)) for entry_id, fields in entries]
        rows = [row for _, _, of_entry in read for row in of_entry]
        if rows:
            self._make_partitions(rows)
            try:
                store(rows)
            except (DataError, IntegrityError):
                self._store_singly(read)
        self._done(keys.AUDIT, entries)
        self.counters.events += len(rows)
        return len(entries)

    def _store_singly(self, read: list[tuple[bytes, dict[bytes, bytes] | None, list[Row]]]) -> None:
        """One entry holds something that PostgreSQL refuses: store the others, and put that one aside."""
        for entry_id, fields, rows in read:
            try:
                store(rows)
            except (DataError, IntegrityError) as error:
                store(self._bury(keys.AUDIT, entry_id, fields, f"refused by the database: {error}"))

    def _rows(self, entry_id: bytes, fields: dict[bytes, bytes] | None) -> list[Row]:
        blob = (fields or {}).get(keys.FIELD.encode())
        if blob is None:
            return self._bury(keys.AUDIT, entry_id, fields, "the entry has no record")
        try:
            batch = decode_batch(blob)
        except WireError as error:
            return self._bury(keys.AUDIT, entry_id, fields, str(error))
        rows: list[Row] = []
        for event in batch.events:
            try:
                rows.append(row_of(event, node=batch.node))
            except WireError as error:
                rows += self._bury(keys.AUDIT, entry_id, fields, str(error))
        return rows

    def _make_partitions(self, rows: list[Row]) -> None:
        missing = days_of(rows) - self._days
        if not missing:
            return
        try:
            partitions.ensure(sorted(missing))
        except OperationalError as error:
            # Somebody holds a lock; the default partition takes the rows, and they move when beat makes the day's.
            logger.warning("ingest: a partition could not be made: %s", type(error).__name__)
            return
        self._days |= missing

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _reports(self, entries: list[Entry]) -> int:
        for entry_id, fields in entries:
            blob = (fields or {}).get(keys.FIELD.encode(), b"")
            try:
                apply_report(decode(blob, BundleReport))
            except (WireError, DataError, ValueError, OverflowError) as error:
                store(self._bury(keys.REPORTS, entry_id, fields, str(error)))
                continue
            self.counters.reports += 1
        self._done(keys.REPORTS, entries)
        return len(entries)

    def _note_nodes(self) -> None:
        now = time.monotonic()
        if now - self._nodes_at < NODES_EVERY:
            return
        self._nodes_at = now
        for key in self.redis.scan_iter(match=keys.NODE_PATTERN, count=500):
            blob = cast("bytes | None", self.redis.get(key))
            if blob is None or self._beats.get(key) == blob:
                continue
            try:
                note_heartbeat(decode(blob, Heartbeat))
            except (WireError, DataError, ValueError, OverflowError) as error:
                logger.warning("ingest: a heartbeat could not be read: %s", error)
            self._beats[key] = blob

    # --- acknowledging ----------------------------------------------------------------------------------------------

    def _done(self, stream: str, entries: list[Entry]) -> None:
        """Only after the commit: acknowledge and delete."""
        if not entries:
            return
        ids = [entry_id for entry_id, _ in entries]
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.xack(stream, GROUP, *ids)
        pipeline.xdel(stream, *ids)
        pipeline.execute()
        self.counters.entries += len(ids)

    def _bury(self, stream: str, entry_id: bytes, fields: dict[bytes, bytes] | None, reason: str) -> list[Row]:
        """Keep an entry nobody can read for a person to look at; it never holds up the others.

        Returns the row that tells the platform's log of it.
        """
        if fields is None:  # deleted from the stream in the meantime: there is nothing to keep
            return []
        blob = fields.get(keys.FIELD.encode(), b"")
        body: dict[Any, Any] = {"b": blob, "stream": stream, "id": entry_id, "reason": reason[:200]}
        self.redis.xadd(DEAD, body, maxlen=DEAD_MAXLEN, approximate=True)
        self.counters.dead += 1
        logger.error("ingest: an entry of %s could not be read: %s", stream, reason[:200])
        key, milliseconds = f"{stream}/{entry_id.decode()}", entry_id.partition(b"-")[0]
        return [platform_row(key=key, at_ms=int(milliseconds), kind=CRITICAL, reason=reason)]

"""The shipper: sends what the journal holds to the audit stream, at least once, and trims the journal behind it."""

from __future__ import annotations

import asyncio
import logging

from cloudsignal.edge.journal import Journal, SegmentReader, segments
from cloudsignal.edge.store import Store, UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.audit import BATCH_MAX, AuditBatch, encode_batch
from cloudsignal.wire.codec import WireError

logger = logging.getLogger("cloudsignal.edge.ship")

PAUSE = 0.1
"""Seconds between two rounds: repeats of one denial within it travel as one."""

BATCHES = 8
"""Batches sent in one round trip, at most."""

ROTATE_BYTES = 64 * 1024
"""A current segment that is shipped and larger than this is closed, so that it can be deleted."""


class Shipper:
    """Reads segments in order. Its position is in memory only: after a restart what is left is sent again."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store
        self._reader: SegmentReader | None = None
        self.shipped = 0
        """Events sent, repeats of folded ones included."""

    async def run(self) -> None:
        """Ship until cancelled; when Redis is away, try again every second."""
        while True:
            try:
                more = await self.ship()
            except UnavailableError:
                await asyncio.sleep(1.0)
                continue
            except (OSError, WireError):
                logger.exception("the journal cannot be read or written")
                await asyncio.sleep(1.0)
                continue
            if not more:
                await asyncio.sleep(PAUSE)

    async def ship(self) -> bool:
        """One round; returns whether there is more to send at once."""
        self._journal.flush()
        reader = self._open()
        events, behind = reader.read(limit=BATCH_MAX * BATCHES)
        rows = list(events.values())
        batches = [
            AuditBatch(reader.node, reader.incarnation, rows[start : start + BATCH_MAX])
            for start in range(0, len(rows), BATCH_MAX)
        ]
        if batches:
            await self._store.call(*(("XADD", keys.AUDIT, "*", keys.FIELD, encode_batch(batch)) for batch in batches))
            self.shipped += len(rows)
        reader.offset = behind
        self._trim(reader)
        return bool(batches) or self._reader is None

    async def drain(self, *, seconds: float) -> bool:
        """Ship everything there is, for at most ``seconds``; returns whether it all went out."""
        self._journal.flush()
        try:
            async with asyncio.timeout(seconds):
                while await self.ship():
                    pass
        except (UnavailableError, TimeoutError, OSError):
            return False
        return True

    def _open(self) -> SegmentReader:
        if self._reader is None:
            number, path = segments(self._journal.folder)[0]
            self._reader = SegmentReader(number, path)
        return self._reader

    def _trim(self, reader: SegmentReader) -> None:
        """Delete the segment when everything in it was sent and nothing more will come."""
        if reader.number == self._journal.current:
            if self._journal.current_size < ROTATE_BYTES or reader.offset < self._journal.current_size:
                return
            self._journal.rotate()
        elif reader.read(limit=1)[0]:
            return
        self._journal.delete(reader.number, whole=reader.offset >= reader.path.stat().st_size)
        self._reader = None

"""The shipper: sends what the journal holds to the audit stream, at least once, and trims the journal behind it.

Sent is not safe: a Redis that is killed may lose its last second or two. A segment is therefore deleted only when Redis
says that it is on its disk (``WAITAOF``, Redis 7.2 or Valkey; without it, or without an append-only file, the operator
has chosen otherwise). When another Redis process answers than the one it was sent to, everything still in the journal
is sent again. Ingest deduplicates.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from cloudsignal.edge.audit.journal import Journal, SegmentReader, segments
from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.audit import BATCH_MAX, AuditBatch, encode_batch
from cloudsignal.wire.sealed import Kind, seal_record

logger = logging.getLogger("cloudsignal.edge.audit.shipper")

PAUSE = 0.1
"""Seconds between two rounds."""

CONFIRM = 1.0
"""Seconds between two questions whether what was sent is safe."""

FSYNC = 1_500
"""Milliseconds one such question waits for Redis's disk; it must be less than ``redis.TIMEOUT``."""

BATCHES = 8
"""Batches sent in one round trip, at most."""

ROTATE_BYTES = 64 * 1024
"""A current segment that is shipped and larger than this is closed, so that it can be deleted."""


class Shipper:
    """Reads segments in order. Its position is in memory only: after a restart what is left is sent again."""

    def __init__(self, journal: Journal, store: Store, confirming: Store, node: str, key: bytes) -> None:
        self._journal = journal
        self._store = store
        self._confirming = confirming
        self._mark = keys.shipped(node)
        self._key = key
        self._reader: SegmentReader | None = None
        self._sent: list[SegmentReader] = []
        """Segments sent to their end and not known to be safe."""
        self._server = b""
        """The Redis process everything was sent to."""
        self.shipped = 0
        """Events sent, repeats of folded ones included."""

    @property
    def unsent(self) -> int:
        """Bytes of the journal that were not sent yet."""
        readers = [*self._sent, self._reader] if self._reader is not None else self._sent
        return max(0, self._journal.size - sum(reader.offset for reader in readers))

    async def run(self) -> None:
        """Ship until canceled; when Redis is unavailable, try again every second."""
        while True:
            try:
                more = await self.ship()
            except UnavailableError:
                await asyncio.sleep(1.0)
                continue
            except OSError:
                logger.exception("the journal cannot be read or written")
                await asyncio.sleep(1.0)
                continue
            if not more:
                await asyncio.sleep(PAUSE)

    async def trim(self) -> None:
        """Delete what is safe until canceled."""
        while True:
            await asyncio.sleep(CONFIRM)
            try:
                await self.confirm()
            except UnavailableError:
                continue
            except OSError:
                logger.exception("a segment cannot be deleted")

    async def ship(self) -> bool:
        """Send one round of batches; returns whether more can be sent at once."""
        if not self._server:
            self._server = await self._identity()
        with suppress(OSError):
            # What the disk refuses stays in memory. What it holds must leave, or a full disk would stay full.
            self._journal.flush()
        reader = self._open()
        events, behind = reader.read(limit=BATCH_MAX * BATCHES, ended=reader.number != self._journal.current)
        rows = list(events.values())
        batches = [
            AuditBatch(reader.node, reader.incarnation, rows[start : start + BATCH_MAX])
            for start in range(0, len(rows), BATCH_MAX)
        ]
        if batches:
            said = [seal_record(Kind.AUDIT, encode_batch(batch), self._key) for batch in batches]
            await self._store.call(*(("XADD", keys.AUDIT, "*", keys.FIELD, blob) for blob in said))
            self.shipped += len(rows)
        if reader is not self._reader:
            return True  # everything is to be sent again: what was just read included
        read = bool(rows) or behind != reader.offset
        reader.offset = behind
        if not read:
            self._move_on(reader)
        return bool(rows) or self._reader is None or reader.number != self._journal.current

    async def confirm(self) -> None:
        """Delete sent segments that Redis has on its disk, or start over when it is another Redis by now."""
        sent = list(self._sent)
        if sent:
            # A write of this connection's own: once it is on the disk, so is everything that was sent before it.
            await self._confirming.call(("SET", self._mark, self.shipped, "EX", 60))
            try:
                on_disk = (await self._confirming.call(("WAITAOF", 1, 0, FSYNC)))[0]
            except UnavailableError as error:
                if not any(text in str(error).lower() for text in ("unknown command", "appendonly")):
                    raise
                on_disk = [1, 0]
            if not on_disk[0]:
                return
        if self._server and await self._identity() != self._server:
            logger.warning("redis was restarted: the audit journal is sent again")
            self._server = b""
            self._reader = None
            self._sent.clear()
            return
        for reader in sent:
            whole = reader.offset >= reader.path.stat().st_size
            if not whole:
                logger.warning("%s cannot be read beyond byte %d and is quarantined", reader.path.name, reader.offset)
            self._journal.delete(reader.number, whole=whole)
            self._sent.remove(reader)

    async def drain(self, *, seconds: float) -> bool:
        """Ship everything there is, for at most ``seconds``; returns whether it all went out."""
        with suppress(OSError):
            self._journal.settle()
        try:
            async with asyncio.timeout(seconds):
                while await self.ship():
                    pass
                await self.confirm()
        except (UnavailableError, TimeoutError, OSError):
            return False
        return True

    async def _identity(self) -> bytes:
        """The identity of the running Redis process (``run_id``)."""
        text = (await self._confirming.call(("INFO", "server")))[0]
        lines = text.splitlines() if isinstance(text, bytes) else []
        return next((line for line in lines if line.startswith(b"run_id:")), b"unknown")

    def _open(self) -> SegmentReader:
        if self._reader is None:
            behind = max((reader.number for reader in self._sent), default=-1)
            number, path = next(entry for entry in segments(self._journal.folder) if entry[0] > behind)
            self._reader = SegmentReader(number, path)
        return self._reader

    def _move_on(self, reader: SegmentReader) -> None:
        """Go on to the next segment when this one is complete."""
        if reader.number == self._journal.current:
            journal = self._journal
            if journal.failed or journal.current_size < ROTATE_BYTES or reader.offset < journal.current_size:
                return
            journal.rotate()
            return  # the last counts are still to be read
        reader.forget()
        self._sent.append(reader)
        self._reader = None

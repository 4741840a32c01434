"""The consumer group of the Redis streams that ingest reads: fetch, acknowledge and take over entries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from cloudsignal.wire import keys

GROUP = "ingest"
READ_MAX = 60
"""Entries of each stream that a round reads at most: 60 batches of up to 100 events."""
CLAIM_IDLE_SECONDS = 10.0
"""An entry that a consumer has held this long without finishing it is taken over by another."""
CLAIM_SECONDS = 2.0
"""How often to look for such entries."""
DEAD_MAXLEN = 1_000
"""Quarantined entries kept for each stream (approximate trimming)."""
DEAD_BYTES = 1_048_576
"""Bytes kept of such an entry."""

STREAMS = (keys.AUDIT, keys.REPORTS)


def dead(stream: str) -> str:
    """The stream of quarantined entries: fields ``b`` (the record), ``id`` (in ``stream``) and ``reason``."""
    return f"{stream}:dead"


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of a Redis stream."""

    id: str
    record: bytes
    """Empty when the entry has no such field, or was deleted from the stream while it was pending."""
    there: bool = True

    @property
    def at_ms(self) -> int:
        """The time the entry was added, in milliseconds since the epoch; IDs are ``MILLISECONDS-NUMBER``."""
        return min(int(self.id.partition("-")[0]), 2**53)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that cannot be stored, and the reason."""

    entry: StreamEntry
    reason: str


@dataclass(slots=True)
class Work:
    """The next entries of both streams, in the order they were added."""

    audit: list[StreamEntry] = field(default_factory=list)
    reports: list[StreamEntry] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.audit or self.reports)


class Streams:
    """One consumer of the group, over both streams.

    ``name`` is best the same after a restart: a process that comes back finds at once what its predecessor held when it
    was killed. When two of one name meet the same entry, the key of the event keeps it from being stored twice.
    """

    def __init__(self, redis: Redis, name: str, *, claim_idle: float = CLAIM_IDLE_SECONDS) -> None:
        self._redis = redis
        self._name = name
        self._claim_idle = int(claim_idle * 1_000)
        self._joined = False
        self._leftovers: dict[str, str] = {}
        """Where to read on in what is in hand; empty when that was done."""
        self._claimed_at = 0.0
        self._claimed = False
        """Whether the last turn took entries over. Then this one reads new ones first, so that both go on."""

    def again(self) -> None:
        """Rejoin the group after a failure, and start with entries that were read but not acknowledged."""
        self._joined = False

    def next(self, *, block: float) -> Work:
        """Fetch the next entries; waits up to ``block`` seconds for new ones. Raises ``RedisError``."""
        if not self._joined:
            self._join()
        if self._leftovers:
            work = self._read(self._leftovers, None)
            if work:
                # Onwards, not from the beginning again: one that has to wait must not keep new ones out.
                for stream, found in ((keys.AUDIT, work.audit), (keys.REPORTS, work.reports)):
                    self._leftovers[stream] = found[-1].id if found else self._leftovers[stream]
                return work
            self._leftovers = {}
        new = dict.fromkeys(STREAMS, ">")
        if self._claimed and (work := self._read(new, None)):
            self._claimed = False
            return work
        work = self._claim()
        self._claimed = bool(work)
        return work or self._read(new, int(block * 1_000) or None)

    def finish(self, stream: str, entries: Sequence[StreamEntry], quarantined: Sequence[DeadLetter] = ()) -> None:
        """Acknowledge and delete committed entries and keep copies of quarantined ones, in one transaction."""
        if not entries:
            return
        pipeline = self._redis.pipeline(transaction=True)
        for one in quarantined:
            body: dict[Any, Any] = {keys.FIELD: one.entry.record[:DEAD_BYTES], "id": one.entry.id, "reason": one.reason}
            pipeline.xadd(dead(stream), body, maxlen=DEAD_MAXLEN, approximate=True)
        names = [entry.id for entry in entries]
        pipeline.xack(stream, GROUP, *names)
        pipeline.xdel(stream, *names)
        pipeline.execute()

    def idle(self, stream: str) -> bool:
        """Whether every entry of ``stream`` is acknowledged, by any consumer."""
        return self._redis.xlen(stream) == 0

    def _join(self) -> None:
        for stream in STREAMS:
            try:
                self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._joined = True
        self._leftovers = dict.fromkeys(STREAMS, "0")

    def _read(self, positions: dict[str, str], block: int | None) -> Work:
        after: dict[Any, Any] = dict(positions)
        answer = self._redis.xreadgroup(GROUP, self._name, after, count=READ_MAX, block=block)
        work = Work()
        for stream, found in cast("list[tuple[bytes, list[Any]]]", answer or []):
            (work.audit if stream.decode() == keys.AUDIT else work.reports).extend(_entry(one) for one in found)
        return work

    def _claim(self) -> Work:
        """From time to time, take over the entries of a consumer that died."""
        work = Work()
        now = time.monotonic()
        if now - self._claimed_at < CLAIM_SECONDS:
            return work
        full = False
        for stream, into in ((keys.AUDIT, work.audit), (keys.REPORTS, work.reports)):
            answer = self._redis.xautoclaim(stream, GROUP, self._name, self._claim_idle, count=READ_MAX)
            found = answer[1]
            into.extend(_entry(one) for one in found)
            full = full or len(found) >= READ_MAX
        if not full:
            self._claimed_at = now
        return work


def _entry(raw: tuple[bytes, dict[bytes, bytes] | None] | tuple[None, None]) -> StreamEntry:
    name, fields = raw
    if name is None:  # Redis 6.2 answers so for an entry that was claimed and is deleted
        return StreamEntry("0-0", b"", there=False)
    if not fields:
        return StreamEntry(name.decode(), b"", there=False)
    return StreamEntry(name.decode(), fields.get(keys.FIELD.encode(), b""))

"""The audit journal: events are on disk before the client gets its answer.

A plain ``write`` into a file survives the death of the process by any signal, so an event whose answer was seen is
never lost. The shipper (:mod:`cloudsignal.edge.audit.shipper`) reads the same files, sends what they hold to the audit
stream and deletes what was sent; when Redis is unavailable the files simply grow. Ingest deduplicates on
the key of an event, so sending something twice is harmless.

Equal events fold. The first is an event like any other. Those that repeat it within :data:`FOLD_SECONDS` are counted in
further events, one a second at most, which name the first (``repeats``) and are sent once their second is over: what
was sent never changes. Each repetition is on disk before its answer all the same.

A segment is a run of frames (:mod:`cloudsignal.edge.audit.framing`). ``H`` names the node and its incarnation, ``E``
is an event, ``C`` raises the count of one that stands earlier in the same segment, ``D`` does so for the last time. The
end of a segment is the end of every count in it.

An organization whose budget is used up (:mod:`cloudsignal.edge.audit.budget`) has everything of one kind folded.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from audit.kinds import ACL_DENIED
from cloudsignal.edge.audit.budget import Budget, payer
from cloudsignal.edge.audit.framing import frame, frames
from cloudsignal.edge.audit.open_sessions import OpenSessions
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.codec import WireError, decode

SEGMENT_BYTES = 1024 * 1024
"""A segment is closed when it has grown to this."""

READ_BYTES = 1024 * 1024
"""No event is read beyond this at once: it may all become one entry of the stream, and ingest takes many together."""

LIMIT_BYTES = 256 * 1024 * 1024
"""Above this, new connections are refused: nothing that happened is ever dropped."""

FOLD_SECONDS = 60.0
"""Equal events within this many seconds are one fold."""

REPEAT_SECONDS = 1.0
"""Seconds whose repetitions are one event: a fold makes no more than one of them in this time."""

FOLD_MAX = 20_000
"""Distinct events that are watched for repetition."""

FOLD_BYTES = 16 * 1024 * 1024
"""Characters of topics and names in them."""

EQUAL = ("kind", "org", "username", "ip", "reason", "action", "topic", "rule")
"""The fields that a repetition has in common with the event that it repeats."""

_NAME = re.compile(r"(\d{10})\.log")


@dataclass(slots=True)
class _Fold:
    event: AuditEvent
    """The first of the equal events."""
    until: float
    repeat: AuditEvent | None = None
    """The event that counts the repetitions of this second."""
    closes: float = 0.0
    """Time at which the second of the count is over."""
    rose: bool = False
    """Whether the count on disk is too low."""

    @property
    def size(self) -> int:
        """Characters that a client chose."""
        return len(self.event.topic) + len(self.event.client_id) + len(self.event.username)

    def links(self, event: AuditEvent) -> bool:
        """Whether ``event`` is equal to the first in all that a search may ask for but session and client ID."""
        return all(getattr(self.event, name) == getattr(event, name) for name in EQUAL)


class Journal:
    """Writes events. One per process and folder; everything happens in the event loop's thread."""

    def __init__(self, folder: Path, *, node: str, incarnation: str, limit: int = LIMIT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.limit = limit
        self.sequence = 0
        """Events recorded by this incarnation."""
        self.taken = self.written = 0
        """What was taken, repeats of folded events included, and how much of it is on disk."""
        self.kinds: Counter[str] = Counter()
        """Occurrences by kind of event, repeats included."""
        self.failed = ""
        """Why the last write failed; empty when it succeeded."""
        self.budget = Budget(limit)
        self._header = frame(b"H", (node, incarnation))
        self._buffer: list[bytes] = []
        self._folds: OrderedDict[Hashable, _Fold] = OrderedDict()
        """Oldest first."""
        self._folds_size = 0
        self._open: dict[str, _Fold] = {}
        """Folds with an event that still counts, by its id, oldest first."""
        numbers = [number for number, _ in segments(folder)]
        self.size = sum(path.stat().st_size for _, path in segments(folder))
        """Bytes in all segments."""
        self.current = max(numbers, default=0)
        self.current_size = 0
        self._fd = -1
        self.sessions = OpenSessions(folder)
        """Which sessions have begun and not ended."""
        if numbers:
            self.sessions.replay(folder / f"{self.current:010d}.log")
        self.sessions.begin()
        self.rotate()

    def rotate(self) -> None:
        """Close the current segment and begin the next. Raises :class:`OSError`; then the current one goes on."""
        if self._fd >= 0:
            self._write_counts(close=True)
            self._put()
            self.sessions.flush()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL | os.O_CLOEXEC
        begun = os.open(self.folder / f"{self.current + 1:010d}.log", flags, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = begun
        self.current += 1
        self.current_size = 0
        self._buffer.insert(0, self._header)

    def sweep(self) -> None:
        """Leave nothing on disk that was shipped: an organization is gone. Raises :class:`OSError`."""
        self.rotate()
        self.sessions.begin()

    @property
    def full(self) -> bool:
        """Whether new connections must be refused."""
        return bool(self.failed) or self.size >= self.limit

    def share_full(self, org: str) -> bool:
        """Whether the organization holds more of the journal than is free: it gets no new sessions then."""
        return self.budget.share_full(org, self.size)

    def record(self, event: AuditEvent) -> None:
        """Take an event; it is on disk after the next :meth:`flush`."""
        self.sequence += 1
        self.taken += 1
        self.kinds[event.kind] += 1
        self.sessions.note(event, self._write(b"E", event, payer(event)))

    def note(self, event: AuditEvent) -> None:
        """Take an event, or count it beyond the budget of its organization."""
        if self._over(payer(event)):
            self._count_beyond(event)
        else:
            self.record(event)

    def again(self, key: Hashable) -> bool:
        """Count a repetition of this second; ``False`` when :meth:`fold` needs an event to count it in.

        Beyond the budget of its organization it does: it knows where to count it then.
        """
        fold = self._folds.get(key)
        return fold is not None and not self._over(payer(fold.event)) and self._again(key)

    def _again(self, key: Hashable) -> bool:
        fold = self._folds.get(key)
        if fold is None or fold.repeat is None or time.monotonic() >= fold.closes:
            return False
        fold.repeat.count += 1
        fold.rose = True
        self.taken += 1
        self.kinds[fold.event.kind] += 1
        return True

    def fold(self, key: Hashable, event: AuditEvent) -> None:
        """Take an event, or count it as a repetition of an equal one of the last minute."""
        if self._over(payer(event)):
            self._count_beyond(event)
        elif not self._again(key):
            self._fold(key, event)

    def _fold(self, key: Hashable, event: AuditEvent) -> None:
        now = time.monotonic()
        fold = self._folds.get(key)
        if fold is None or now >= fold.until:
            self._keep(key, event)
            return
        if fold.repeat is not None:
            self._close(fold)
        event.repeats = fold.event.id if fold.links(event) else event.id
        fold.repeat, fold.closes = event, now + REPEAT_SECONDS
        self._open[event.id] = fold
        self.record(event)

    def _keep(self, key: Hashable, event: AuditEvent) -> None:
        self.record(event)
        old = self._folds.pop(key, None)
        self._folds[key] = fold = _Fold(event, time.monotonic() + FOLD_SECONDS)
        self._folds_size += fold.size - (old.size if old else 0)
        while len(self._folds) > FOLD_MAX or self._folds_size > FOLD_BYTES:
            self._folds_size -= self._folds.popitem(last=False)[1].size

    def _over(self, who: str) -> bool:
        return self.budget.spent(who) or self.budget.share_full(who, self.size)

    def _count_beyond(self, event: AuditEvent) -> None:
        """Count an event with all others of its organization, kind and action: only how many is told of them."""
        reason = "" if event.kind == ACL_DENIED else event.reason
        key = (payer(event), event.kind, event.action, reason)
        if not self._again(key):
            few = AuditEvent(event.id, event.ts, event.kind, org=event.org, node=event.node, action=event.action)
            few.reason, few.details = reason, {"beyond": "audit_budget"}
            self._fold(key, few)

    def _write(self, tag: bytes, record: object, who: str) -> bytes:
        data = frame(tag, record)
        self._buffer.append(data)
        self.budget.charge(who, self.current, len(data))
        return data

    def _write_counts(self, *, close: bool = False) -> None:
        """Write the counts that rose, each once however often it did, and end those whose second is over.

        Of an organization that has its share of the disk only the end is written: a kill loses no more than a second.
        """
        now = time.monotonic()
        for fold in list(self._open.values()):
            if close or now >= fold.closes:
                self._close(fold)
            elif fold.rose and fold.repeat and not self.budget.share_full(payer(fold.event), self.size):
                self._write(b"C", (fold.repeat.id, fold.repeat.count), payer(fold.event))
                fold.rose = False

    def _close(self, fold: _Fold) -> None:
        if fold.repeat is not None and fold.repeat.id in self._open:
            del self._open[fold.repeat.id]
            self._write(b"D", (fold.repeat.id, fold.repeat.count), payer(fold.event))
        fold.repeat, fold.rose = None, False

    def flush(self) -> None:
        """Write what was taken. Raises :class:`OSError` when the disk refuses; nothing taken is forgotten then."""
        if self._open:
            self._write_counts()
        if self._buffer and self._put() and self.current_size >= SEGMENT_BYTES:
            try:
                self.rotate()
            except OSError as error:
                # What was taken is on disk, in a segment that grows on; no client signs in until the next is begun.
                self.failed = str(error)

    def settle(self) -> None:
        """Write what was taken and end every count, so that all of it can be sent. Raises :class:`OSError`."""
        self._write_counts(close=True)
        self.flush()

    def _put(self) -> bool:
        """Write the buffer; returns whether there was anything in it."""
        if not self._buffer:
            return False
        data = b"".join(self._buffer)
        self._buffer = [data]
        try:
            while data:
                written = os.write(self._fd, data)
                self.size += written
                self.current_size += written
                data = data[written:]
                self._buffer = [data]
        except OSError as error:
            self.failed = str(error)
            raise
        self.failed = ""
        self.written = self.taken
        self._buffer = []
        return True

    def delete(self, number: int, *, whole: bool = True) -> None:
        """Delete a segment whose events were shipped; one that could not be read to its end is set aside instead."""
        path = self.folder / f"{number:010d}.log"
        self.size -= path.stat().st_size
        self.budget.deleted(number)
        if whole:
            path.unlink()
        else:
            path.rename(path.with_suffix(".damaged"))

    def close(self) -> None:
        """Write what is left and close the file."""
        self.settle()
        os.close(self._fd)
        self._fd = -1
        self.sessions.close()


@dataclass(slots=True)
class SegmentReader:
    """Reads one segment from front to back while it may still grow."""

    number: int
    path: Path
    offset: int = 0
    node: str = ""
    incarnation: str = ""
    _counting: dict[str, AuditEvent] = field(default_factory=dict)
    """Repetitions whose count may still rise."""
    _events: dict[str, AuditEvent] = field(default_factory=dict)
    """Other events: in a segment of the release before, ``C`` raises their counts after they were sent."""

    def read(self, *, limit: int, ended: bool) -> tuple[dict[str, AuditEvent], int]:
        """Up to ``limit`` events from ``offset`` on, and the offset behind them.

        An event that still counts is none of them, until its count or, with ``ended``, the segment has ended.
        A frame that is cut short, damaged or not understood ends the reading: it is the last write of a process that
        was killed in the middle of it, and no client saw an answer that depended on it, or the work of another version.
        """
        events: dict[str, AuditEvent] = {}
        behind = self.offset
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(SEGMENT_BYTES * 4)
        with suppress(WireError):
            for tag, payload, end in frames(data):
                if tag == b"H":
                    self.node, self.incarnation = decode(payload, tuple[str, str])
                elif tag == b"E":
                    event = decode(payload, AuditEvent)
                    if event.repeats:
                        self._counting[event.id] = event
                    elif len(events) >= limit:
                        break
                    else:
                        self._events[event.id] = events[event.id] = event
                elif not self._count(*decode(payload, tuple[str, int]), events, limit=limit, last=tag == b"D"):
                    break
                behind = self.offset + end
                if end >= READ_BYTES:
                    break
        if ended and behind == self.offset:
            while self._counting and len(events) < limit:
                identifier, event = self._counting.popitem()
                events[identifier] = event
        return events, behind

    def _count(self, identifier: str, count: int, events: dict[str, AuditEvent], *, limit: int, last: bool) -> bool:
        """Raise a count, and put its event among ``events`` if it can be sent; ``False`` when there is no room."""
        known = self._counting.get(identifier) or self._events.get(identifier)
        if known is None:
            return True
        if last or identifier in self._events:
            if identifier not in events and len(events) >= limit:
                return False
            events[identifier] = known
            self._counting.pop(identifier, None)
        known.count = max(known.count, count)
        return True

    def forget(self) -> None:
        """Everything was read: the events are needed no more."""
        self._events.clear()


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of every segment, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)

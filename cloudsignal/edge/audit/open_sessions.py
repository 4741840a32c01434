"""The sessions that have begun and not ended, on disk: a process that is killed leaves its successor a list to end.

The journal cannot say it: what was shipped is deleted from it, and a session may outlast its ``connect`` by weeks. This
file gets a record for each ``connect`` and each end before the journal begins its next segment, and is written anew
when most of it is void. So what it lacks stands in the newest segment (:meth:`OpenSessions.replay`), and a session that
begins and ends within one costs it nothing.

Its modification time is set every second: the last sign of life of the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from audit.kinds import CONNECT, DISCONNECT, SESSION_CLOSED, CloseCause
from cloudsignal.edge.audit.framing import frame, frames
from cloudsignal.wire.audit import AuditEvent, uuid7
from cloudsignal.wire.codec import WireError, decode

NAME = "sessions.open"

COMPACT_BYTES = 1024 * 1024
"""The file is written anew when it is larger than this and twice what is open."""

ENDS = frozenset({DISCONNECT, SESSION_CLOSED})


class OpenSessions:
    """One file of one edge process. Raises :class:`OSError` where the disk refuses; nothing noted is forgotten then."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self.alive_at = 0.0
        """When the process before this one was last alive, in seconds since the epoch; 0 when there was none."""
        self._open: dict[str, bytes] = {}
        """The record of each open session, as it stands in the file."""
        self._open_bytes = self._size = 0
        self._compact_at = COMPACT_BYTES
        self._noted: dict[str, bytes] = {}
        """Records that are still to be written, by session."""
        self._rest = b""
        """The rest of the last write, which the disk has not taken yet."""
        self._fd = -1
        with suppress(FileNotFoundError):
            self.alive_at = self._path.stat().st_mtime
            self._read(self._path.read_bytes())

    def replay(self, segment: Path) -> None:
        """Take over what the newest segment of the journal knows and this file does not."""
        self.alive_at = max(self.alive_at, segment.stat().st_mtime)
        with suppress(WireError):
            begin, data = 0, segment.read_bytes()
            for tag, payload, end in frames(data):
                if tag == b"E":
                    self.note(decode(payload, AuditEvent), data[begin:end])
                begin = end

    def begin(self) -> None:
        """Start the file of this process, with what its predecessor left open."""
        self._compact()

    def note(self, event: AuditEvent, record: bytes) -> None:
        """See whether an event begins or ends a session; ``record`` is its frame in the journal."""
        if event.kind == CONNECT:
            self._open[event.session] = self._noted[event.session] = record
            self._open_bytes += len(record)
        elif event.kind in ENDS:
            self._ended(event.session)
            if self._noted.pop(event.session, None) is None:
                self._noted[event.session] = frame(b"X", event.session)

    def flush(self) -> None:
        """Write what was noted."""
        self._rest += b"".join(self._noted.values())
        self._noted.clear()
        while self._rest:
            written = os.write(self._fd, self._rest)
            self._size += written
            self._rest = self._rest[written:]
        if self._size > max(self._compact_at, 2 * self._open_bytes):
            try:
                self._compact()
            except OSError:
                self._compact_at = self._size + COMPACT_BYTES  # the old file goes on

    def alive(self) -> None:
        """Leave a sign of life."""
        os.utime(self._fd)

    def ends(self) -> Iterator[AuditEvent]:
        """The end of every open session, at the last sign of life of the process that held it."""
        for record in list(self._open.values()):
            _, payload, _ = next(frames(record))
            begun = decode(payload, AuditEvent)
            ts = max(begun.ts, int(self.alive_at * 1_000_000))
            yield replace(
                begun,
                id=uuid7(ts / 1_000_000),
                ts=ts,
                kind=SESSION_CLOSED,
                reason=CloseCause.NODE_LOST.value,
                details={"seconds": round((ts - begun.ts) / 1_000_000, 3)},
            )

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush()
        os.close(self._fd)
        self._fd = -1

    def _ended(self, session: str) -> None:
        record = self._open.pop(session, None)
        if record is not None:
            self._open_bytes -= len(record)

    def _read(self, data: bytes) -> None:
        begin = 0
        with suppress(WireError):
            for tag, payload, end in frames(data):
                if tag == b"X":
                    self._ended(decode(payload, str))
                else:
                    session = decode(payload, AuditEvent).session
                    self._open[session] = data[begin:end]
                    self._open_bytes += end - begin
                begin = end

    def _compact(self) -> None:
        """Put a file in place that holds the open sessions alone."""
        draft = self._path.with_suffix(".new")
        begun = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            data = b"".join(self._open.values())
            size = len(data)
            while data:
                data = data[os.write(begun, data) :]
            draft.replace(self._path)
        except OSError:
            os.close(begun)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size, self._compact_at = begun, size, COMPACT_BYTES
        self._open_bytes = size
        self._noted.clear()
        self._rest = b""

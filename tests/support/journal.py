"""The journal that an edge keeps on its disk, read back."""

from __future__ import annotations

from pathlib import Path

from cloudsignal.edge.audit.journal import SegmentReader, segments
from cloudsignal.wire.audit import AuditEvent


def read_all(folder: Path) -> dict[str, AuditEvent]:
    """Every event in every segment with its highest count, as ingest would end up with."""
    found: dict[str, AuditEvent] = {}
    for number, path in segments(folder):
        reader = SegmentReader(number, path)
        while True:
            events, behind = reader.read(limit=7, ended=True)
            if not events and behind == reader.offset:
                break
            reader.offset = behind
            for event in events.values():
                old = found.get(event.id)
                if old is None or event.count > old.count:
                    found[event.id] = event
    return found

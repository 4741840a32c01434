"""What a session writes down, kept in a list."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from cloudsignal.wire.audit import AuditEvent


@dataclass(slots=True)
class ListSink:
    """A trail in memory, for tests of the session without any I/O."""

    taken: int = 0
    events: list[AuditEvent] = field(default_factory=list)
    folded: dict[Hashable, AuditEvent] = field(default_factory=dict)

    def record(self, event: AuditEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def note(self, event: AuditEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def again(self, key: Hashable) -> bool:
        """Count a repetition."""
        if key in self.folded:
            self.folded[key].count += 1
        return key in self.folded

    def fold(self, key: Hashable, event: AuditEvent) -> None:
        """Keep the first of equal events and count the others."""
        if self.again(key):
            return
        self.folded[key] = event
        self.events.append(event)

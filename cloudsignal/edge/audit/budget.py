"""How much of the audit journal one organization may take, by the minute and of the disk.

Whoever floods the audit pays alone: beyond its budget an organization's events are counted in one event per kind
instead of standing each for itself, and the room left to the others never depends on it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from audit.kinds import AUTH_FAILED
from cloudsignal.wire.audit import AuditEvent

MINUTE_BYTES = 8 * 1024 * 1024
"""Bytes of events of one organization that stand each for itself in a minute: about 20,000 ordinary ones."""


def payer(event: AuditEvent) -> str:
    """The budget that an event is charged to: strangers must not use up that of an organization's clients."""
    return f"{event.org}?" if event.kind == AUTH_FAILED else event.org


class Budget:
    """Bytes that each payer wrote in this minute, and holds of the journal's disk."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = 0
        self._spent: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._segments: defaultdict[int, Counter[str]] = defaultdict(Counter)
        """Bytes in each segment by payer; what an earlier process left has none."""

    def charge(self, who: str, segment: int, size: int) -> None:
        """``who`` writes ``size`` bytes into ``segment``."""
        self._turn()
        self._spent[who] += size
        self._held[who] += size
        self._segments[segment][who] += size

    def deleted(self, segment: int) -> None:
        """A segment is gone from the disk."""
        for who, size in self._segments.pop(segment, {}).items():
            self._held[who] -= size
            if self._held[who] <= 0:
                del self._held[who]

    def spent(self, who: str) -> bool:
        """Whether the budget of this minute is used up."""
        self._turn()
        return self._spent[who] >= MINUTE_BYTES

    def share_full(self, who: str, size: int) -> bool:
        """Whether ``who`` holds more of a journal of ``size`` bytes than is still free.

        One flood takes half of the disk, two take two thirds, and whoever holds little always finds room.
        """
        return self._held[who] > max(0, self._limit - size)

    def _turn(self) -> None:
        minute = int(time.monotonic()) // 60
        if minute != self._minute:
            self._minute = minute
            self._spent.clear()

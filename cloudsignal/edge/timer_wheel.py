"""One timer for all sessions: each lies in the slot of the second in which it must be looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class TimingWheel(Generic[Item]):
    """``look(item)`` returns when to look again, in seconds since the epoch, or ``None`` for never."""

    def __init__(self, look: Callable[[Item], float | None]) -> None:
        self._look = look
        self._slots: dict[int, dict[Item, None]] = {}
        self._slot_of: dict[Item, int] = {}
        self._done = int(time.time())

    def add(self, item: Item, at: float) -> None:
        """Look at ``item`` at ``at``, to the second, never earlier, and at no other time."""
        self.drop(item)
        slot = self._slot_of[item] = max(int(at) + 1, self._done + 1)
        self._slots.setdefault(slot, {})[item] = None

    def drop(self, item: Item) -> None:
        """Look at ``item`` no more. Connections that come and go must not pile up until their time has come."""
        slot = self._slots.get(self._slot_of.pop(item, 0))
        if slot is not None:
            slot.pop(item, None)

    def turn(self, now: float) -> None:
        """Look at everything that is due. Called about once a second."""
        while self._done < int(now):
            self._done += 1
            for item in list(self._slots.get(self._done, ())):
                if self._slot_of.get(item) != self._done:
                    continue  # dropped while the others were looked at
                self.drop(item)
                again = self._look(item)
                if again is not None:
                    self.add(item, again)
            self._slots.pop(self._done, None)

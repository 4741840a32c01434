"""One timer for all sessions: each lies in the slot of the second in which it must be looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Wheel(Generic[Item]):
    """``look(item)`` returns when to look again, in seconds since the epoch, or ``None`` for never."""

    def __init__(self, look: Callable[[Item], float | None]) -> None:
        self._look = look
        self._slots: dict[int, list[Item]] = {}
        self._done = int(time.time())

    def add(self, item: Item, at: float) -> None:
        """Look at ``item`` at ``at``, to the second, never earlier."""
        self._slots.setdefault(max(int(at) + 1, self._done + 1), []).append(item)

    def turn(self, now: float) -> None:
        """Look at everything that is due. Called about once a second."""
        while self._done < int(now):
            self._done += 1
            for item in self._slots.pop(self._done, ()):
                again = self._look(item)
                if again is not None:
                    self.add(item, again)

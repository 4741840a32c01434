"""Caches that are bounded in bytes, per session and per organization.

A client chooses how many topics it uses and how long they are, up to 64 KiB each. Counted by entries alone, ten idle
sessions held a gigabyte.
"""

from __future__ import annotations

from typing import Generic, TypeVar

SESSION_BYTES = 512 * 1024
"""Remembered for one session."""

ORGANIZATION_BYTES = 64 * 1024 * 1024
"""Remembered for all sessions of an organization on one edge process."""

UNFINISHED_BYTES = 128 * 1024 * 1024
"""Packets of an organization that have begun and are not complete, on one edge process."""

UNREAD_BYTES = 128 * 1024 * 1024
"""Messages of an organization that are written and its slow clients have not read, on one edge process."""

ENTRY = 200
"""Bytes an entry takes beside the texts in it."""

LONGEST = 4_096
"""A longer text is not worth remembering: checking it anew costs little beside moving it."""

LONG = LONGEST >> 8
"""First byte of the length of such a text: it is not looked up either, which would be to hash all of it."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Purse:
    """A budget of bytes; what is taken from it is taken from ``parent`` too."""

    __slots__ = ("_limit", "held", "parent")

    def __init__(self, limit: int, parent: Purse | None = None) -> None:
        self._limit = limit
        self.parent = parent
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold ``size`` more, if there is room."""
        if self.held + size > self._limit or (self.parent is not None and not self.parent.take(size)):
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """Hold ``size`` less."""
        self.held -= size
        if self.parent is not None:
            self.parent.give(size)

    @property
    def scarce(self) -> bool:
        """Whether more than three quarters are taken, so that caches should be dropped."""
        return self.held * 4 > self._limit * 3


class Memo(Generic[Key, Value]):
    """A cache of at most ``most`` entries within the budget ``purse``. Read :attr:`known`; never write to it."""

    __slots__ = ("_most", "_purse", "_size", "known")

    def __init__(self, purse: Purse, most: int) -> None:
        self.known: dict[Key, Value] = {}
        self._purse = purse
        self._most = most
        self._size = 0

    def keep(self, key: Key, value: Value, size: int) -> bool:
        """Remember an entry whose texts have ``size`` bytes; ``False`` when there is no room for it."""
        if size > LONGEST:
            return True
        size += ENTRY
        if len(self.known) >= self._most or not self._purse.take(size):
            return False
        self._size += size
        self.known[key] = value
        return True

    def keep_newest(self, key: Key, value: Value, size: int) -> None:
        """Remember an entry; everything older goes when there is no room."""
        if not self.keep(key, value, size):
            self.drop()
            self.keep(key, value, size)

    def drop(self) -> None:
        """Forget everything."""
        if self._size:
            self.known.clear()
            self._purse.give(self._size)
            self._size = 0

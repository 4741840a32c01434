"""The expiry times of rules, over the bits of a compiled policy."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from acl.policy.engine.model import as_utc

_BLOCK = 64
_EVER = datetime.max.replace(tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)


class Expiries:
    """An index of the bits by expiry time. ``live`` is constant between two expiries and cached until the next."""

    def __init__(self, expires_of_rank: Sequence[datetime | None], mask: Callable[[Iterable[int]], int]) -> None:
        ending = sorted((expires, rank) for rank, expires in enumerate(expires_of_rank) if expires is not None)
        self._mask = mask
        self._all = (1 << len(expires_of_rank)) - 1
        self._times = [expires for expires, _ in ending]
        self._ranks = [rank for _, rank in ending]
        self._blocks = [mask(self._ranks[at : at + _BLOCK]) for at in range(0, len(ending), _BLOCK)]
        self._window = (_EVER, _EVER, self._all)

    def __bool__(self) -> bool:
        return bool(self._times)

    def live(self, now: datetime) -> int:
        """The bits that have not expired at ``now``."""
        now = as_utc(now)
        start, end, alive = self._window
        if start <= now < end:
            return alive
        gone = bisect_right(self._times, now)
        start = self._times[gone - 1] if gone else _NEVER
        end = self._times[gone] if gone < len(self._times) else _EVER
        alive = self._all ^ self._mask(self._ranks[:gone])
        self._window = (start, end, alive)
        return alive

    def soonest(self, among: int) -> datetime | None:
        """The first time at which one of the bits ``among`` expires."""
        for number, block in enumerate(self._blocks):
            if block & among:
                for at in range(number * _BLOCK, len(self._ranks)):
                    if among & self._mask(self._ranks[at : at + 1]):
                        return self._times[at]
        return None

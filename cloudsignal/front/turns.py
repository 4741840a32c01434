"""Schedule threads fairly: kinds of requests take turns, within a kind addresses, within an address callers."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from cloudsignal.front.refusal import Gone, busy

WAIT_SECONDS = 30.0
"""How long a request waits for a thread before it is told to come back."""
PENDING_MAX = 1024
"""Requests that wait for a thread, run, or are being answered at a time."""
PENDING_OF_ADDRESS = 256
"""Of these, from one address."""
STUCK_SECONDS = 60.0
"""Requests wait and none has ended for so long: the process hangs, and is better started again."""


class Place(NamedTuple):
    """The kind, address and caller of a request. ``caller`` separates those who share an address."""

    kind: str
    address: str
    caller: str


class Turns:
    """The fair queue for threads. ``shares`` says how many of the threads each kind may take at a time.

    An address may take half of a kind's share, and a caller half of that: the threads share one processor core, so each
    that one caller takes makes everybody else slower. Shares are smaller than the number of threads, so no kind can
    take all, and a free thread goes to the kinds in turn, so none waits for another's queue.
    """

    def __init__(self, threads: int, shares: Mapping[str, int]) -> None:
        self._threads = threads
        self._shares = dict(shares)
        self._order = deque(shares)
        self._running: Counter[str] = Counter()
        self._of: Counter[tuple[str, ...]] = Counter()
        """Threads that a kind and address have, and of these each caller."""
        self._waiting: dict[str, _Addresses] = {kind: OrderedDict() for kind in shares}
        self._pending: Counter[str] = Counter()
        self._ended = 0.0

    @contextmanager
    def pending(self, address: str) -> Iterator[None]:
        """Count a request whose body has been read. Raises :class:`Refusal` when there are too many already."""
        if self._pending[address] >= PENDING_OF_ADDRESS:
            raise busy(f"{PENDING_OF_ADDRESS} requests of this address are being served.")
        if self._pending.total() >= PENDING_MAX:
            raise busy(f"{PENDING_MAX} requests are being served.")
        self._pending[address] += 1
        try:
            yield
        finally:
            self._pending[address] -= 1
            if not self._pending[address]:
                del self._pending[address]

    async def enter(self, place: Place, leaving: asyncio.Future[None]) -> None:
        """Wait for a thread.

        Raises :class:`Refusal` after :data:`WAIT_SECONDS`, and :class:`Gone` once ``leaving`` is done.
        """
        loop = asyncio.get_running_loop()
        if not self._running.total():
            self._ended = loop.time()
        turn: asyncio.Future[None] = loop.create_future()
        callers = self._waiting[place.kind].setdefault(place.address, OrderedDict())
        callers.setdefault(place.caller, deque()).append(turn)
        self._hand_out()
        if turn.done():
            return
        try:
            await asyncio.wait({turn, leaving}, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._give_up(place, turn)
            raise
        if turn.done():
            return
        self._give_up(place, turn)
        if leaving.done():
            raise Gone
        raise busy(f"No thread was free for this request within {WAIT_SECONDS:.0f} seconds.")

    def leave(self, place: Place) -> None:
        """Release the thread."""
        self._ended = asyncio.get_running_loop().time()
        self._running[place.kind] -= 1
        for whose in (place[:2], place):
            self._of[whose] -= 1
            if not self._of[whose]:
                del self._of[whose]
        self._hand_out()

    @property
    def stuck(self) -> bool:
        """Whether requests wait and none has ended for :data:`STUCK_SECONDS`."""
        waiting = any(self._waiting.values())
        return waiting and asyncio.get_running_loop().time() - self._ended > STUCK_SECONDS

    def _give_up(self, place: Place, turn: asyncio.Future[None]) -> None:
        """Stop waiting; a turn granted at the same moment passes to the next request."""
        if turn.done():
            self.leave(place)
            return
        self._waiting[place.kind][place.address][place.caller].remove(turn)
        self._forget(place)

    def _forget(self, place: Place) -> None:
        """Remove empty queues."""
        addresses = self._waiting[place.kind]
        callers = addresses[place.address]
        if not callers[place.caller]:
            del callers[place.caller]
        if not callers:
            del addresses[place.address]

    def _hand_out(self) -> None:
        while self._running.total() < self._threads and self._next():
            pass

    def _next(self) -> bool:
        """Grant one thread to the next kind, address and caller; false when no request may have one."""
        for _ in range(len(self._order)):
            kind = self._order[0]
            self._order.rotate(-1)
            if self._running[kind] < self._shares[kind] and (place := self._next_of(kind)):
                self._give(place)
                return True
        return False

    def _next_of(self, kind: str) -> Place | None:
        of_address = (self._shares[kind] + 1) // 2
        of_caller = (of_address + 1) // 2
        for address, callers in self._waiting[kind].items():
            if self._of[kind, address] >= of_address:
                continue
            for caller in callers:
                if self._of[place := Place(kind, address, caller)] < of_caller:
                    return place
        return None

    def _give(self, place: Place) -> None:
        """Grant the thread to the first request of a queue; the rest of it moves behind the other queues."""
        addresses = self._waiting[place.kind]
        callers = addresses[place.address]
        callers[place.caller].popleft().set_result(None)
        callers.move_to_end(place.caller)
        addresses.move_to_end(place.address)
        self._forget(place)
        self._running[place.kind] += 1
        self._of.update((place[:2], place))


_Addresses = OrderedDict[str, OrderedDict[str, deque[asyncio.Future[None]]]]

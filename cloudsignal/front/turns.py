"""Who gets a thread next: kinds of requests take turns, and within a kind the addresses they come from."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cloudsignal.front.refusal import Gone, busy

WAIT_SECONDS = 30.0
"""How long a request waits for a thread before it is told to come back."""
PENDING_MAX = 1024
"""Requests that wait for a thread, run, or are being answered at a time."""
PENDING_OF_ADDRESS = 256
"""Of these, from one address."""
STUCK_SECONDS = 60.0
"""Requests wait and none has ended for so long: the process hangs, and is better started again."""


class Turns:
    """Threads and who waits for them. ``shares`` says how many of the threads each kind may take at a time.

    An address may take half of a kind's share. Shares are smaller than the number of threads, so no kind can take all,
    and a free thread goes to the kinds in turn, so none waits for another's queue.
    """

    def __init__(self, threads: int, shares: Mapping[str, int]) -> None:
        self._threads = threads
        self._shares = dict(shares)
        self._order = deque(shares)
        self._running: Counter[str] = Counter()
        self._of_address: Counter[tuple[str, str]] = Counter()
        self._waiting: dict[str, OrderedDict[str, deque[asyncio.Future[None]]]] = {
            kind: OrderedDict() for kind in shares
        }
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

    async def enter(self, kind: str, address: str, leaving: asyncio.Future[None]) -> None:
        """Wait for a thread.

        Raises :class:`Refusal` after :data:`WAIT_SECONDS`, and :class:`Gone` once ``leaving`` is done.
        """
        loop = asyncio.get_running_loop()
        if not self._running.total():
            self._ended = loop.time()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[kind].setdefault(address, deque()).append(turn)
        self._hand_out()
        if turn.done():
            return
        try:
            await asyncio.wait({turn, leaving}, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._give_up(kind, address, turn)
            raise
        if turn.done():
            return
        self._give_up(kind, address, turn)
        if leaving.done():
            raise Gone
        raise busy("All threads are taken.")

    def leave(self, kind: str, address: str) -> None:
        """Give the thread back."""
        self._ended = asyncio.get_running_loop().time()
        self._running[kind] -= 1
        self._of_address[kind, address] -= 1
        if not self._of_address[kind, address]:
            del self._of_address[kind, address]
        self._hand_out()

    @property
    def stuck(self) -> bool:
        """Whether requests wait and none has ended for :data:`STUCK_SECONDS`."""
        waiting = any(self._waiting.values())
        return waiting and asyncio.get_running_loop().time() - self._ended > STUCK_SECONDS

    def _give_up(self, kind: str, address: str, turn: asyncio.Future[None]) -> None:
        """Stop waiting; a turn that was given at the same moment goes to the next."""
        if turn.done():
            self.leave(kind, address)
            return
        turns = self._waiting[kind][address]
        turns.remove(turn)
        if not turns:
            del self._waiting[kind][address]

    def _hand_out(self) -> None:
        while self._running.total() < self._threads and self._next():
            pass

    def _next(self) -> bool:
        """Give one thread to the kind and address whose turn it is; False when nobody may have one."""
        for _ in range(len(self._order)):
            kind = self._order[0]
            self._order.rotate(-1)
            if self._running[kind] < self._shares[kind] and self._next_of(kind):
                return True
        return False

    def _next_of(self, kind: str) -> bool:
        waiting = self._waiting[kind]
        for address, turns in waiting.items():
            if self._of_address[kind, address] >= (self._shares[kind] + 1) // 2:
                continue
            turns.popleft().set_result(None)
            waiting.move_to_end(address)
            if not turns:
                del waiting[address]
            self._running[kind] += 1
            self._of_address[kind, address] += 1
            return True
        return False

"""Fair scheduling: sessions with more work than one turn allows take turns, organization by organization."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudsignal.edge.session.organization import Organization

SLICE = 0.00025
"""Seconds of queued work done at once, before the event loop handles new input."""

LEAST_REST = 0.001
"""Seconds that an organization rests at least (:meth:`Organization.rest`): timers are no finer."""

READS = 8
"""Reads of one organization in a row that are processed at once while another is about; the next take turns."""

ABOUT = 1.0
"""Seconds after a read for which an organization counts as being about."""


class Turns:
    """Sessions that wait, in one queue per organization; the queues take turns.

    However many sessions of one organization have costly packets for the edge, all of them together get one turn
    where another organization gets one.
    """

    def __init__(self) -> None:
        self._organizations: deque[Organization] = deque()
        """Organizations with waiting sessions, each once."""
        self._resting = 0
        """How many organizations rest before their next turn."""
        self._scheduled = False
        self._latest: Organization | None = None
        """The organization of the last read."""
        self._in_a_row = 0
        self._shared_until = 0.0
        """Loop time until which more than one organization is about; 0 when only one is."""

    def crowded_out(self, org: Organization) -> bool:
        """Count a read; whether it has to wait because ``org`` has had enough reads in a row, and another is about.

        One message to sixty subscribers is sixty reads in one round of the loop: 2 ms for which all others would wait.
        """
        if org is not self._latest:
            self._another(org)
        elif self._shared_until:
            self._in_a_row += 1
            if self._in_a_row > READS:
                now = asyncio.get_running_loop().time()
                if self._another_waits(org):
                    self._shared_until = now + ABOUT  # what is read of one that waits is not counted here
                    return True
                if now < self._shared_until:
                    return True
                self._shared_until = 0.0
        return False

    def _another_waits(self, org: Organization) -> bool:
        """Whether another organization waits for its turn, or rests; ``org`` itself does neither."""
        return bool(self._resting) or any(other is not org for other in self._organizations)

    def _another(self, org: Organization) -> None:
        """Note that another organization than the last one was read from."""
        if self._latest is not None:
            self._shared_until = asyncio.get_running_loop().time() + ABOUT
        self._latest = org
        self._in_a_row = 1

    def wait(self, org: Organization, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` when it is this organization's turn."""
        if not org.waiting:
            self._organizations.append(org)
        org.waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if self._organizations and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        now = time.perf_counter()
        end = now + SLICE
        try:
            while self._organizations and now < end:
                org = self._organizations.popleft()
                if org.rests_until > now + LEAST_REST:
                    self._resting += 1
                    asyncio.get_running_loop().call_later(org.rests_until - now, self._rested, org)
                    continue
                go_on = org.waiting.popleft()
                if org.waiting:
                    self._organizations.append(org)
                go_on()
                now = time.perf_counter()
        finally:
            self._schedule()  # also when one has failed: the others still wait

    def _rested(self, org: Organization) -> None:
        self._resting -= 1
        self._organizations.append(org)
        self._schedule()

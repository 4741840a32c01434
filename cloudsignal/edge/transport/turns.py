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


class Turns:
    """Sessions that wait, in one queue per organization; the queues take turns.

    However many sessions of one organization have costly packets for the edge, all of them together get one turn
    where another organization gets one.
    """

    def __init__(self) -> None:
        self._organizations: deque[Organization] = deque()
        """Organizations with waiting sessions, each once."""
        self._scheduled = False

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
        end = time.perf_counter() + SLICE
        try:
            while self._organizations and time.perf_counter() < end:
                org = self._organizations.popleft()
                go_on = org.waiting.popleft()
                if org.waiting:
                    self._organizations.append(org)
                go_on()
        finally:
            self._schedule()  # also when one has failed: the others still wait

"""The hold of live sessions on their client IDs: renewed, and given up to whoever signed in with one since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from audit.kinds import AuthReason, CloseCause
from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.signin.claims import CHUNK, CLAIM, GATHER, command
from cloudsignal.edge.signin.stored_sessions import LIVE_TTL, held_seconds
from cloudsignal.wire import keys

LOOK_EVERY = 10.0
"""Seconds between two looks at who holds the client IDs of live sessions."""

SIGNING_IN = 8.0
"""Seconds a sign-in elsewhere gets until it has come about, or has given the client ID back."""


class Renewal:
    """Watches the client IDs of the live sessions of one process."""

    def __init__(self, store: Store, sessions: Iterable[Session], pump: Callable[[str], None]) -> None:
        self._store = store
        self._sessions = sessions
        self._pump = pump
        """Writes the output of a session."""
        self._superseded: dict[str, float] = {}
        """Sessions whose client ID a newer one holds, and since when that is known, on the monotonic clock."""

    async def run(self) -> None:
        """Look at who holds the client IDs, and renew the holds, until canceled."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if time.monotonic() - renewed > LIVE_TTL / 2:
                renewed = time.monotonic()
                await self.renew()
            else:
                await self.look()

    async def renew(self) -> None:
        """Keep the client IDs of sessions that live longer than their time on Redis.

        A session whose client ID another username holds ends: Redis has forgotten its hold, and given it away.
        """
        await self._walk(self._renew)

    async def look(self) -> None:
        """End sessions whose client ID has signed in again on another edge.

        The broker ends them as a rule, before this is looked at. One whose nodes have lost each other does not, and
        the client would have two.
        """
        await self._walk(self._look)

    async def _walk(self, work: Callable[[list[Session]], Awaitable[None]]) -> None:
        live = list(self._sessions)
        for start in range(0, len(live), CHUNK):
            part = [session for session in live[start : start + CHUNK] if session.held_until and not session.ended]
            if part:
                with suppress(UnavailableError):
                    await work(part)
            await asyncio.sleep(GATHER)
        known = {session.id for session in live if not session.ended}
        self._superseded = {name: since for name, since in self._superseded.items() if name in known}

    async def _look(self, sessions: list[Session]) -> None:
        names = [keys.client(session.org.id, session.client_id) for session in sessions]
        (held,) = await self._store.call(("MGET", *names))
        changed = [
            session
            for session, value in zip(sessions, held, strict=True)
            if value != f"{session.username}\n{session.id}".encode() and not session.ended
        ]
        if changed:
            await self._renew(changed)

    async def _renew(self, sessions: list[Session]) -> None:
        now = time.time()
        holds = [(session, held_seconds(session)) for session in sessions]
        lost, newer = map(set, await self._store.ask(command(CLAIM, holds)))
        for number, (session, seconds) in enumerate(holds, 1):
            if number in newer:
                self._supersede(session)
                continue
            self._superseded.pop(session.id, None)
            if number not in lost:
                session.held_until = now + seconds
            else:
                if session.live:
                    session.end(CloseCause.TAKEN_OVER, text="another username holds the client ID")
                else:
                    session.refuse(AuthReason.CLIENT_ID_TAKEN)
                self._pump(session.id)

    def _supersede(self, session: Session) -> None:
        """End a session that a newer one has taken over, unless that one may still be signing in."""
        since = self._superseded.setdefault(session.id, time.monotonic())
        if session.live and time.monotonic() - since > SIGNING_IN:
            session.end(CloseCause.TAKEN_OVER)
            self._pump(session.id)

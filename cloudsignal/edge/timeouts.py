"""Timeouts of sessions: expiry, keep-alive, expiring rules, and signs of life of the broker."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

from audit.kinds import AuthReason, CloseCause
from cloudsignal.edge.session.context import Phase
from cloudsignal.edge.timer_wheel import TimingWheel
from cloudsignal.edge.transport.connection import Client

logger = logging.getLogger("cloudsignal.edge")

CONNECT_WITHIN = 10.0
"""Seconds from the TLS handshake to CONNECT."""

SIGN_IN_WITHIN = 20.0
"""Seconds from the TLS handshake to CONNACK."""

LOOK_EVERY = 60.0
"""Seconds between two looks at a session that asks for none."""

PING_LEAST = 0.5
"""Seconds between two pings to the broker, at least; the wheel turns once a second."""

JUMP = 2.0
"""Seconds the wall clock may be put forward or back unnoticed."""

LATE = 5.0
"""Seconds a look at the broker may be late; after more this process itself did not run."""


class Timeouts:
    """Applies timeouts to the sessions of one process."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients
        self._wheel: TimingWheel[str] = TimingWheel(self._look)
        self._turned = time.monotonic()
        self._ahead = time.time() - self._turned

    def opened(self, session_id: str) -> None:
        """A TLS handshake is done."""
        self._wheel.add(session_id, time.time() + CONNECT_WITHIN)

    def signed_in(self, session_id: str) -> None:
        """The client has its CONNACK: look when the first thing is due."""
        again = self._look(session_id)
        if again is not None:
            self._wheel.add(session_id, again)

    def soon(self, session_id: str) -> None:
        """Something has changed: look now, and find out when the next look is due."""
        self._wheel.add(session_id, time.time())

    def closed(self, session_id: str) -> None:
        """The client is gone."""
        self._wheel.drop(session_id)

    def turn(self) -> None:
        """Look at everything that is due. Called about once a second."""
        now, steady = time.time(), time.monotonic()
        moved = now - steady - self._ahead
        if abs(moved) > JUMP:
            self._ahead += moved
            self._clock_moved(moved, now, since=now - (steady - self._turned))
        self._turned = steady
        self._wheel.turn(now)

    def _clock_moved(self, by: float, now: float, *, since: float) -> None:
        """The wall clock was put forward or back: nobody counts as silent for it, but what holds must be checked anew.

        Who has connected after it, ``since`` the last turn, did so by the new clock.
        """
        logger.warning("the clock was put %s by %.0f seconds", "forward" if by > 0 else "back", abs(by))
        self._wheel = TimingWheel(self._look)
        for session_id, client in self._clients.items():
            session = client.session
            session.opened_at = session.heard_at = now
            if not since <= session.connected_at <= now:
                session.connected_at += by
            if client.broker is not None:
                client.broker.heard_at = client.broker.spoke_at = now
                client.broker.pinged_at = 0.0
            session.outdated = True
            self._wheel.add(session_id, now)

    def _look(self, session_id: str) -> float | None:
        client = self._clients.get(session_id)
        if client is None or client.session.phase is Phase.CLOSED:
            return None
        session = client.session
        now = time.time()
        if session.phase is not Phase.LIVE:
            return self._look_early(client, now)
        if client.broker is not None and client.broker.blocked:
            session.heard_at = now  # it is not read from: silence says nothing
        if session.expires_at and now >= session.expires_at:
            session.end(CloseCause.EXPIRED)
        elif session.connect.keep_alive and now >= session.heard_at + 1.5 * session.connect.keep_alive:
            session.client_lost("keep_alive")
        elif session.outdated or now >= session.authorizer.until or session.org.remembered.scarce:
            session.forget()
            session.rejudge()
            client.pump()
        watch = self._watch_broker(client, now)
        if session.ended:
            client.pump()
            return None
        again = min(now + LOOK_EVERY, session.authorizer.until, watch)
        if session.expires_at:
            again = min(again, session.expires_at)
        if session.connect.keep_alive:
            again = min(again, session.heard_at + 1.5 * session.connect.keep_alive)
        return again

    def _watch_broker(self, client: Client, now: float) -> float:
        """Ping a node of the broker that was silent, or to which nothing was said; end the session of one that is gone.

        Returns when to look again. A ping and its answer have half the keep-alive each, so that either side notices
        within one that the other is gone.
        """
        session, broker = client.session, client.broker
        if session.ended or broker is None:
            return math.inf
        every = max(PING_LEAST, session.broker_keep_alive / 2 - 1)
        if broker.spoken:
            broker.spoken, broker.spoke_at = False, now
        if client.broker_unread or broker.reads:
            broker.heard_at = now
        if broker.pinged_at > broker.heard_at:
            due = broker.pinged_at + every
            if due <= now < due + LATE:
                session.broker_silent(now - broker.pinged_at)
                return math.inf
            if now < due:
                return due
            broker.heard_at = now  # this process was away, and may have missed the answer: it asks again
        due = min(broker.heard_at, broker.spoke_at) + every
        if now < due:
            return due
        broker.ping(now)
        return now + every

    def _look_early(self, client: Client, now: float) -> float | None:
        session = client.session
        due = session.opened_at + (CONNECT_WITHIN if session.phase is Phase.NEW else SIGN_IN_WITHIN)
        if now < due:
            return due
        if session.phase is Phase.NEW:
            client.give_up()
        else:
            session.refuse(AuthReason.UNAVAILABLE, details={"text": "no answer in time; try again later"})
            client.pump()
        return None

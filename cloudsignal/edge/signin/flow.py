"""The sign-in flow: from the CONNECT of a client to the connection with the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from audit.kinds import AuthReason
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.broker.dialer import BrokerUnreachableError, Dialed, Dialer
from cloudsignal.edge.control.desired_state import DesiredState
from cloudsignal.edge.redis import NoRoomError, NotSentError, Store, UnavailableError
from cloudsignal.edge.session.context import Asked, Grant
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.register import Register
from cloudsignal.edge.session.retained import Ledger
from cloudsignal.edge.signin.check import (
    METRICS_APPENDED,
    Checked,
    Name,
    check,
    parse_name,
    session_end,
    without_metrics,
)
from cloudsignal.edge.signin.claims import CHUNK, GATHER, KEEP, RELEASE, TAKE, TAKE_BEYOND, command, kept_seconds
from cloudsignal.edge.signin.holds import Holds
from cloudsignal.edge.signin.stored_sessions import (
    HELD_MAX,
    Stored,
    held_seconds,
    resumed,
    session_lifetime,
)
from cloudsignal.edge.transport.address_limits import Limits
from cloudsignal.edge.transport.connection import Client
from cloudsignal.wire import keys
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.credential import Credential

SLOWED = 2.0
"""Seconds a failed sign-in takes from an address that fails often."""

STOPPING = "this node is stopping; connect again"
NOT_LOOKED_UP = "credentials cannot be looked up right now; try again later"
"""Texts for the client and the audit: the process is stopping; Redis is unavailable."""
UNCERTAIN = "the client ID cannot be confirmed right now; try again later"
"""Text for the client when Redis is unavailable and another username may hold the client ID on another edge."""


class SignInFlow:
    """Signs clients in, or refuses them."""

    def __init__(
        self,
        *,
        store: Store,
        desired: DesiredState,
        sessions: Register,
        dialer: Dialer,
        limits: Limits,
        ledger: Ledger,
        journal: Journal,
        pepper: bytes,
        failure_floor: float,
    ) -> None:
        self._store = store
        self._desired = desired
        self._sessions = sessions
        self._dialer = dialer
        self._limits = limits
        self._ledger = ledger
        self._journal = journal
        self._pepper = pepper
        self._failure_floor = failure_floor
        """Seconds a failed sign-in takes at least."""
        self.closed = False
        """Whether the process is stopping, so that every sign-in is refused."""
        self.stored = Stored(store)
        self.holds = Holds()
        self._released: dict[str, list[tuple[Session, int]]] = {}
        """Client IDs to be released, by key."""
        self._timer: asyncio.TimerHandle | None = None

    async def sign_in(self, client: Client) -> None:
        """Take a session from SIGNING_IN to a connection with the broker, or refuse it."""
        session = client.session
        started = time.monotonic()
        if self.closed:
            session.refuse(AuthReason.UNAVAILABLE, details={"text": STOPPING})
            return
        name = parse_name(session.connect.username)
        meant = name or without_metrics(session.connect.username)
        known = meant.org if meant is not None and meant.org in self._desired.organizations else ""
        refused = self._limits.refused(session.origin.ip, known)
        if refused and known:
            session.refuse(AuthReason.RATE_LIMITED, org=known)
            return
        record, reason, token_id = None, AuthReason.MALFORMED, ""
        session.username = meant.local if meant is not None else ""
        if name is not None:
            if refused:
                reason = AuthReason.UNKNOWN  # Redis is not asked; the answer and its time tell nothing of it
            else:
                record, reason, token_id = await self._verify(session, name)
        if record is None:
            await self._fail(session, known, reason, started)
            return
        if session.ended:
            return
        org = self._desired.organizations.get(record.org)
        if org is None:
            session.refuse(AuthReason.NO_POLICY, org=record.org)
        elif org.active.suspended:
            session.refuse(AuthReason.ORG_SUSPENDED, org=org.id)
        elif self._sessions.full(org, session.client_id, record.username):
            session.refuse(AuthReason.QUOTA, org=org.id)
        elif self._journal.share_full(org.id):
            session.refuse(AuthReason.QUOTA, org=org.id, details={"limit": "audit_journal"})
        else:
            await self._enter(client, org, record, token_id)

    async def _verify(self, session: Session, name: Name) -> tuple[Credential | None, AuthReason, str]:
        """Find and verify the credential; returns its record, or the reason. Redis is asked before a refusal."""
        known = self._desired.known_credential(name.org, name.local)
        checked = self._check(known, session, name) if known is not None else None
        if known is None or checked is None or checked.secret is None:
            try:
                known = await self._desired.credential(name.org, name.local)
            except UnavailableError:
                return None, (checked.reason if checked else None) or AuthReason.UNAVAILABLE, ""
            checked = self._check(known, session, name)
        if known is None or checked.secret is None:
            return None, checked.reason or AuthReason.UNKNOWN, ""
        return known, AuthReason.UNKNOWN, checked.secret.token_id

    def _check(self, record: Credential | None, session: Session, name: Name) -> Checked:
        pepper, password = self._pepper, session.connect.password
        return check(record, pepper=pepper, name=name, password=password, now=time.time())

    async def _fail(self, session: Session, org: str, reason: AuthReason, started: float) -> None:
        """Refuse after a fixed time, so that the time reveals nothing. ``org`` exists, or is empty."""
        floor = self._failure_floor
        presented = session.connect.username or ""
        session.forget_connect()
        if reason is not AuthReason.UNAVAILABLE:
            self._limits.failed(session.origin.ip, org)
            if self._limits.slowed(session.origin.ip):
                floor = SLOWED
        elapsed = time.monotonic() - started
        await asyncio.sleep(floor * (int(elapsed / floor) + 1) - elapsed if floor else 0)
        if not session.ended:
            details = {} if org else {"presented": presented[:128]}
            if without_metrics(presented) is not None:
                details["text"] = METRICS_APPENDED
            elif reason is AuthReason.UNAVAILABLE:
                details["text"] = NOT_LOOKED_UP
            session.refuse(reason, org=org, details=details)

    async def _enter(self, client: Client, org: Organization, record: Credential, token_id: str) -> None:
        session = client.session
        end, _ = session_end(record, token_id, now=time.time())
        client_id = session.client_id or f"auto-{uuid7().replace('-', '')}"
        holder = self._sessions.holder(org, client_id)
        if holder is not None and not holder.ended and holder.username != record.username:
            session.refuse(AuthReason.CLIENT_ID_TAKEN, org=org.id)
            return
        session.subscriptions.memory = self.stored
        self._ledger.attach(org.retained)
        grant = Grant(org, record.username, client_id, token_id, end, record.claims)
        session.welcome(grant)
        if session.ended:
            return
        # From here on the session is found by every change of its organization and identity.
        self._sessions.add(session)
        claim = self._claim(session)
        dialed: Dialed | None = None
        try:
            dialed = await self._dialer.dial(client)
            if not await self._claimed(session, claim):
                session.refuse(AuthReason.CLIENT_ID_TAKEN)
            elif not session.ended and session_lifetime(session) and not await self._kept(session):
                session.refuse(AuthReason.QUOTA, details={"limit": "stored_sessions"})
        except BrokerUnreachableError as error:
            session.refuse(AuthReason.UNAVAILABLE, details={"broker": str(error)})
        except UnavailableError:
            session.refuse(AuthReason.UNAVAILABLE, details={"text": UNCERTAIN})
        finally:
            if client.session.ended and dialed is not None:
                dialed.broker.close()
        if dialed is not None and not client.session.ended:
            # Connecting took place while Redis was asked, but only now is anything said to the broker.
            await self._dialer.introduce(client, dialed)

    def _claim(self, session: Session) -> list[asyncio.Future[Any]]:
        """Claim the client ID on Redis, and ask for the subscriptions of a stored session.

        Most client IDs are free, and a plain SET NX claims them without a script.
        """
        store, key = self._store, keys.client(session.org.id, session.client_id)
        if key in self._released:
            self.give_back()
        value = f"{session.username}\n{session.id}"
        asked = [store.ask(("SET", key, value, "EX", held_seconds(session), "NX"))]
        if not session.connect.clean_start:
            asked.append(store.ask(("HGETALL", keys.filters(session.org.id, session.client_id))))
        return asked

    async def _claimed(self, session: Session, asked: list[asyncio.Future[Any]]) -> bool:
        """Whether the client ID is ours; one that the same username holds is taken over.

        Raises :class:`UnavailableError` when Redis is unavailable and nothing else makes it certain.
        """
        until = time.time() + held_seconds(session)
        try:
            script, free = TAKE, False
            try:
                free = await asked[0] is not None
            except NoRoomError:
                script = TAKE_BEYOND
            if not free and not session.ended:
                session.taking = taking = self._store.ask(command(script, [(session, held_seconds(session))]))
                await asyncio.wait([taking])  # to be known also when the client goes meanwhile: see release
                session.took_over = bool(taking.result())
                free = taking.result() is not None
            self.holds.forget(session.org.id, session.client_id)
        except UnavailableError:
            until = self.holds.until(session)
            if not until:
                raise
            free = session.took_over = True
        if free:
            session.held_until = until
            session.remembered = await _resumed(asked[1:])
        return free

    async def _kept(self, session: Session) -> bool:
        """Whether the organization may have this session kept; one that it has already needs no room.

        Raises :class:`UnavailableError` when Redis is unavailable and the session is certainly new.
        """
        now = int(time.time())
        limit = session.org.active.quotas.stored_sessions
        keep = ("EVAL", KEEP, 1, keys.stored(session.org.id), now, session.client_id)
        try:
            (kept,) = await self._store.call((*keep, now + held_seconds(session), limit, HELD_MAX))
        except UnavailableError:
            if not session.connect.client_id:
                raise  # the edge has just made its client ID: each would be one more, and nobody counts them
            return True  # a client ID that is certain was counted when Redis gave it
        return bool(kept)

    def release(self, session: Session) -> None:
        """Release the client ID after the connection; it stays held while the broker keeps the session.

        Of one that never came to the broker nothing stays: it was counted against no quota.
        """
        if session.taking is not None and not session.taking.done():
            session.taking.add_done_callback(lambda _: self.release(session))
            return
        key = keys.client(session.org.id, session.client_id)
        self._released.setdefault(key, []).append((session, kept_seconds(session)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self.give_back)

    def give_back(self) -> None:
        """Send the collected releases now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        released, self._released = self._released, {}
        holds = [hold for each in released.values() for hold in each]
        for start in range(0, len(holds), CHUNK):
            part = holds[start : start + CHUNK]
            answer = self._store.ask(command(RELEASE, part))
            answer.add_done_callback(partial(self._given_back, part))

    def _given_back(self, holds: list[tuple[Session, int]], answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and isinstance(answer.exception(), NotSentError):
            for session, _ in holds:
                if session.at_broker:
                    self.holds.left(session)


async def _resumed(asked: list[asyncio.Future[Any]]) -> Sequence[tuple[Asked, bool]]:
    """The subscriptions of the stored session, if Redis was asked and answered."""
    for answer in asked:
        with suppress(UnavailableError):
            return resumed(await answer)
    return ()

"""Applies changes of the control plane to live sessions: bundles, credentials, and orders to close one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Protocol

from audit.kinds import AuthReason, CloseCause
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.control.desired_state import DesiredState
from cloudsignal.edge.control.heartbeat import HeartbeatSender
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.register import Register
from cloudsignal.edge.session.retained import Ledger
from cloudsignal.edge.signin.check import session_end
from cloudsignal.edge.timeouts import LOOK_EVERY, SIGN_IN_WITHIN, Timeouts
from cloudsignal.edge.transport.connection import Client
from cloudsignal.wire.change import Change
from cloudsignal.wire.credential import ClaimValue

logger = logging.getLogger("cloudsignal.edge")

SLICE = 0.002
"""Seconds spent on checking sessions anew before everything else gets its turn."""


class Host(Protocol):
    """The parts of the process that changes reach (:class:`cloudsignal.edge.node.Node`)."""

    clients: dict[str, Client]
    sessions: Register
    desired: DesiredState
    timeouts: Timeouts
    heartbeat_sender: HeartbeatSender
    ledger: Ledger
    journal: Journal

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a task until it ends or the process does."""

    def pump(self, session_id: str) -> None:
        """Write what a session has to say."""

    def flush(self) -> None:
        """Write the journal."""


class Changes:
    """Applies changes to the live sessions of one process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def organization_changed(self, org: Organization) -> None:
        """Handle a new active bundle: check what sessions hold. Packets are checked by it from the next byte on."""
        gone = org.id not in self._host.desired.organizations
        self._host.spawn(self._forget(org) if gone else self._rejudge(org))

    async def credentials_changed(self, names: Iterable[tuple[str, str]], committed_at: float) -> None:
        """Re-read these records and apply them to live sessions: end, extend, or take over claims."""
        wanted = set(names)
        records = await self._host.desired.fetch_credentials(wanted)
        now = time.time()
        for org_id in {org for org, _ in records}:
            org = self._host.desired.organizations.get(org_id)
            for session in self._host.sessions.of(org) if org is not None else ():
                record = records.get((org_id, session.username))
                if record is None or session.ended:
                    continue
                end, reason = session_end(record, session.token_id, now=now)
                if reason is not None:
                    cause = CloseCause.EXPIRED if reason is AuthReason.EXPIRED else CloseCause.REVOKED
                    session.end(cause, **_since(committed_at))
                else:
                    if end and not 0 < session.expires_at <= end:
                        self._host.timeouts.soon(session.id)  # it ends sooner than it was to be looked at
                    if session.expires_at != end:
                        session.expires_at = end
                        self._host.heartbeat_sender.add(
                            session
                        )  # the list of live sessions says when the credential ends
                    if dict(record.claims) != dict(session.identity.claims):
                        session.adopt(claims=record.claims)
                        self._rejudge_session(session)
                self._host.pump(session.id)

    async def claims_now(self, sessions: Iterable[Session]) -> dict[str, Mapping[str, ClaimValue]]:
        """The claims of sessions as Redis has them now, by session ID. Whose credential is gone or revoked is missing.

        Raises :class:`UnavailableError`.
        """
        asked = list(sessions)
        records = await self._host.desired.fetch_credentials({(one.org.id, one.username) for one in asked})
        now = time.time()
        return {
            one.id: record.claims
            for one in asked
            if (record := records.get((one.org.id, one.username))) is not None
            and session_end(record, one.token_id, now=now)[1] is not AuthReason.REVOKED
        }

    def close_asked(self, change: Change) -> None:
        """Close the session that an order names."""
        client = self._host.clients.get(change.session)
        if client is None or client.session.org_id() != change.org:
            return
        details = {"asked": change.cause} if change.cause else {}
        since = _since(change.committed_at)
        client.session.end(CloseCause.KICKED, **details, **since)
        client.pump()

    async def _forget(self, org: Organization) -> None:
        """An organization was deleted: its sessions end, and the journal keeps nothing of it once that is shipped."""
        self._host.ledger.detach(org.id)
        await self._rejudge(org)
        end = time.monotonic() + SIGN_IN_WITHIN
        while self._host.sessions.of(org) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        try:
            self._host.journal.sweep()
        except OSError as error:
            logger.warning("the audit journal cannot be begun anew: %s", error)

    async def _rejudge(self, org: Organization) -> None:
        active = org.active
        pause = time.perf_counter() + SLICE
        for session in self._host.sessions.of(org):
            if org.active is not active:
                return
            if session.ended:
                continue
            if active.suspended:
                session.end(CloseCause.ORG_SUSPENDED, **_since(active.issued_at))
            else:
                session.adopt()
                self._rejudge_session(session)
            self._host.pump(session.id)
            if time.perf_counter() > pause:
                await asyncio.sleep(0)
                pause = time.perf_counter() + SLICE
        self._host.flush()

    def _rejudge_session(self, session: Session) -> None:
        """Check what the session holds; it is looked at again when the first rule that mattered expires."""
        session.rejudge()
        now = time.time()
        if session.authorizer.until < now + LOOK_EVERY and not session.ended:
            self._host.timeouts.soon(session.id)  # that look finds out when the next is due


def _since(committed_at: float) -> dict[str, float]:
    """How long a change took from its commit to here, for the event; nothing when the commit is not known."""
    return {"seconds_since_commit": round(time.time() - committed_at, 3)} if committed_at else {}

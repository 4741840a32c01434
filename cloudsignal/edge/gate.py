"""The gate: signs one client in, from its CONNECT to the connection with the broker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from audit.kinds import AuthReason
from cloudsignal.edge.link import Client
from cloudsignal.edge.organization import Organization
from cloudsignal.edge.session import Grant, Session
from cloudsignal.edge.signin import Checked, Name, check, parse_name, session_end
from cloudsignal.edge.store import Command, UnavailableError
from cloudsignal.edge.stored import Stored, held_seconds, resumed, session_lifetime
from cloudsignal.edge.upstream import BrokerUnreachableError
from cloudsignal.wire import keys
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.credential import Credential

if TYPE_CHECKING:
    from cloudsignal.edge.node import Node

SLOWED = 2.0
"""Seconds a failed sign-in takes from an address that fails often."""

CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^[^\\n]*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[2], 'EX', ARGV[3])
return 1
"""
"""Take a client id for a username unless another username holds it: ``username, session, seconds`` -> 0 or 1."""

RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. '\\n' .. ARGV[2] then return 0 end
if ARGV[3] == '0' then return redis.call('DEL', KEYS[1], KEYS[2]) end
redis.call('EXPIRE', KEYS[2], ARGV[3])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
"""Give it and its filters back (0 seconds) or keep them for the stored session, unless a newer session has them."""


class Gate:
    """Decides who comes in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.stored = Stored(node.store)

    async def sign_in(self, client: Client) -> None:
        """Take a session from SIGNING_IN to a connection with the broker, or refuse it."""
        node, session = self._node, client.session
        started = time.monotonic()
        if node.draining:
            session.refuse(AuthReason.UNAVAILABLE)
            return
        if node.limits.refused(session.origin.ip):
            session.refuse(AuthReason.RATE_LIMITED)
            return
        name = parse_name(session.connect.username)
        record, reason, token_id = None, AuthReason.MALFORMED, ""
        if name is not None:
            session.username = name.local
            record, reason, token_id = await self._verify(session, name)
        if record is None:
            await self._fail(session, name, reason, started)
            return
        org = node.snapshot.organizations.get(record.org)
        if org is None:
            session.refuse(AuthReason.NO_POLICY, org=record.org)
        elif org.force.suspended:
            session.refuse(AuthReason.ORG_SUSPENDED, org=org.id)
        elif org.full(session.client_id, record.username):
            session.refuse(AuthReason.QUOTA, org=org.id)
        else:
            await self._enter(client, org, record, token_id)

    async def _verify(self, session: Session, name: Name) -> tuple[Credential | None, AuthReason, str]:
        """The record when its secret was presented, else why not. No refusal rests on memory: Redis is asked."""
        node = self._node
        known = node.snapshot.known_credential(name.org, name.local)
        checked = self._check(known, session, name) if known is not None else None
        if known is None or checked is None or checked.secret is None:
            try:
                known = await node.snapshot.credential(name.org, name.local)
            except UnavailableError:
                return None, (checked.reason if checked else None) or AuthReason.UNAVAILABLE, ""
            checked = self._check(known, session, name)
        if known is None or checked.secret is None:
            return None, checked.reason or AuthReason.UNKNOWN, ""
        return known, AuthReason.UNKNOWN, checked.secret.token_id

    def _check(self, record: Credential | None, session: Session, name: Name) -> Checked:
        pepper, password = self._node.settings.pepper, session.connect.password
        return check(record, pepper=pepper, name=name, password=password, now=time.time())

    async def _fail(self, session: Session, name: Name | None, reason: AuthReason, started: float) -> None:
        """Refuse after the time every refusal takes, so that nothing can be told from it."""
        node = self._node
        floor = node.settings.failure_floor
        if reason is not AuthReason.UNAVAILABLE:
            node.limits.failed(session.origin.ip)
            if node.limits.slowed(session.origin.ip):
                floor = SLOWED
        elapsed = time.monotonic() - started
        await asyncio.sleep(floor * (int(elapsed / floor) + 1) - elapsed if floor else 0)
        if not session.ended:
            org = name.org if name is not None and name.org in node.snapshot.organizations else ""
            presented = session.connect.username or ""
            details = {} if org else {"presented": presented[:128]}
            session.refuse(reason, org=org, details=details)

    async def _enter(self, client: Client, org: Organization, record: Credential, token_id: str) -> None:
        node, session = self._node, client.session
        end, _ = session_end(record, token_id, now=time.time())
        client_id = session.client_id or f"auto-{uuid7().replace('-', '')}"
        holder = org.clients.get(client_id)
        if holder is not None and not holder.ended and holder.username != record.username:
            session.refuse(AuthReason.CLIENT_ID_TAKEN, org=org.id)
            return
        session.subscriptions.memory = self.stored
        grant = Grant(org, record.username, client_id, token_id, end, record.claims)
        session.welcome(grant)
        if session.ended:
            return
        # From here on the session is found by every change of its organization and identity.
        node.register(client)
        if not await self._claim(session):
            session.refuse(AuthReason.CLIENT_ID_TAKEN)
        if session.ended:  # it may have been closed while we waited
            return  # type: ignore[unreachable]
        try:
            await node.dialer.dial(client)
        except BrokerUnreachableError as error:
            if not session.ended:
                session.refuse(AuthReason.UNAVAILABLE, details={"broker": str(error)})

    async def _claim(self, session: Session) -> bool:
        key = keys.client(session.org.id, session.client_id)
        asked: list[Command] = [("EVAL", CLAIM, 1, key, session.username, session.id, held_seconds(session))]
        if not session.connect.clean_start:
            asked.append(("SMEMBERS", keys.filters(session.org.id, session.client_id)))
        try:
            reply = await self._node.store.call(*asked)
        except UnavailableError:
            # Redis is away: this node's own sessions were looked at; a credential in memory signs in all the same.
            return True
        session.remembered = resumed(reply[1]) if len(reply) > 1 else ()
        return bool(reply[0])

    def renew(self, session: Session) -> None:
        """Keep the client id of a session that lives longer than its time on Redis."""
        org, client_id, seconds = session.org.id, session.client_id, held_seconds(session)
        claim = ("EVAL", CLAIM, 1, keys.client(org, client_id), session.username, session.id, seconds)
        self._node.store.send(claim, ("EXPIRE", keys.filters(org, client_id), seconds))

    def release(self, session: Session) -> None:
        """The connection is gone: the client id stays with the username while the broker keeps the session."""
        names = keys.client(session.org.id, session.client_id), keys.filters(session.org.id, session.client_id)
        lifetime = session_lifetime(session)
        self._node.store.send(("EVAL", RELEASE, 2, *names, session.username, session.id, lifetime))

"""The gate: signs one client in, from its CONNECT to the connection with the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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

TAKE = """
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^[^\\n]*') ~= ARGV[1] then
  return false
end
local seconds = math.max(tonumber(ARGV[3]), redis.call('TTL', KEYS[1]))
redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[2], 'EX', seconds)
redis.call('EXPIRE', KEYS[2], seconds)
return held or ''
"""
"""Take a client id unless another username holds it: ``username, session, seconds`` -> what it held, or nothing."""

CLAIM = """
for i = 1, #KEYS / 2 do
  local key, filters = KEYS[2 * i - 1], KEYS[2 * i]
  local name, session, seconds = ARGV[4 * i - 3], ARGV[4 * i - 2], ARGV[4 * i - 1]
  local held = redis.call('GET', key)
  if not held or string.match(held, '^[^\\n]*') == name then
    redis.call('SET', key, name .. '\\n' .. session, 'EX', seconds)
    redis.call('EXPIRE', filters, seconds)
  end
end
"""
"""Keep client ids that no other username holds: ``username, session, seconds, (unused)`` each."""

RELEASE = """
for i = 1, #KEYS / 2 do
  local key, filters = KEYS[2 * i - 1], KEYS[2 * i]
  local name, session, seconds, before = ARGV[4 * i - 3], ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i]
  if redis.call('GET', key) == name .. '\\n' .. session then
    if before ~= '' then
      redis.call('SET', key, before, 'KEEPTTL')
    elseif seconds == '0' then
      redis.call('DEL', key, filters)
    else
      redis.call('EXPIRE', key, seconds)
      redis.call('EXPIRE', filters, seconds)
    end
  end
end
"""
"""Give them and their filters back (0 seconds) or keep them for stored sessions, unless newer sessions have them.

A session that never began leaves its client id to the one it was taken from (``before``): that one is live, or stored.
"""

GATHER = 0.02
"""Seconds a client id may wait to be given back together with others."""

CHUNK = 200
"""Client ids one run of a script is about, at most: Redis does nothing else meanwhile."""


class Gate:
    """Decides who comes in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.stored = Stored(node.store)
        self._released: dict[str, list[tuple[Session, int]]] = {}
        """Client ids to be given back, by key."""
        self._timer: asyncio.TimerHandle | None = None

    async def sign_in(self, client: Client) -> None:
        """Take a session from SIGNING_IN to a connection with the broker, or refuse it."""
        node, session = self._node, client.session
        started = time.monotonic()
        if node.draining:
            session.refuse(AuthReason.UNAVAILABLE)
            return
        name = parse_name(session.connect.username)
        known = name.org if name is not None and name.org in node.snapshot.organizations else ""
        refused = node.limits.refused(session.origin.ip, known)
        if refused and known:
            session.refuse(AuthReason.RATE_LIMITED, org=known)
            return
        record, reason, token_id = None, AuthReason.MALFORMED, ""
        if name is not None:
            session.username = name.local
            if refused:
                reason = AuthReason.UNKNOWN  # Redis is not asked; the answer and its time tell nothing of it
            else:
                record, reason, token_id = await self._verify(session, name)
        if record is None:
            await self._fail(session, known, reason, started)
            return
        if session.ended:
            return
        org = node.snapshot.organizations.get(record.org)
        if org is None:
            session.refuse(AuthReason.NO_POLICY, org=record.org)
        elif org.force.suspended:
            session.refuse(AuthReason.ORG_SUSPENDED, org=org.id)
        elif org.full(session.client_id, record.username):
            session.refuse(AuthReason.QUOTA, org=org.id)
        elif node.journal.share_full(org.id):
            session.refuse(AuthReason.QUOTA, org=org.id, details={"limit": "audit_journal"})
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

    async def _fail(self, session: Session, org: str, reason: AuthReason, started: float) -> None:
        """Refuse after the time every refusal takes, so that nothing can be told from it. ``org`` is one there is."""
        node = self._node
        floor = node.settings.failure_floor
        presented = session.connect.username or ""
        session.forget_connect()
        if reason is not AuthReason.UNAVAILABLE:
            node.limits.failed(session.origin.ip, org)
            if node.limits.slowed(session.origin.ip):
                floor = SLOWED
        elapsed = time.monotonic() - started
        await asyncio.sleep(floor * (int(elapsed / floor) + 1) - elapsed if floor else 0)
        if not session.ended:
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
        node.ledger.attach(org.retained)
        grant = Grant(org, record.username, client_id, token_id, end, record.claims)
        session.welcome(grant)
        if session.ended:
            return
        # From here on the session is found by every change of its organization and identity.
        node.register(client)
        claim = self._claim(session)
        broker = None
        try:
            broker = await node.dialer.dial(client)
            if not await self._claimed(session, claim) and not client.session.ended:
                session.refuse(AuthReason.CLIENT_ID_TAKEN)
        except BrokerUnreachableError as error:
            if not session.ended:
                session.refuse(AuthReason.UNAVAILABLE, details={"broker": str(error)})
        finally:
            # Connecting took place while Redis was asked, but only now is anything said to the broker.
            if client.session.ended and broker is not None:
                broker.close()
            else:
                client.broker = broker

    def _claim(self, session: Session) -> list[asyncio.Future[Any]]:
        """Ask for the client id, and for what a stored session is subscribed to.

        Nobody holds most client ids, and Redis needs no script to say so.
        """
        store, key = self._node.store, keys.client(session.org.id, session.client_id)
        if key in self._released:
            self.give_back()
        value = f"{session.username}\n{session.id}"
        asked = [store.ask(("SET", key, value, "EX", held_seconds(session), "NX"))]
        if not session.connect.clean_start:
            asked.append(store.ask(("SMEMBERS", keys.filters(session.org.id, session.client_id))))
        return asked

    async def _claimed(self, session: Session, asked: list[asyncio.Future[Any]]) -> bool:
        """Whether the client id is ours; one that the same username holds is taken over."""
        try:
            free = await asked[0] is not None
            session.remembered = resumed(await asked[1]) if len(asked) > 1 else ()
            if free or session.ended:
                return free
            session.taking = taking = self._node.store.ask(_command(TAKE, [(session, held_seconds(session))]))
            await asyncio.wait([taking])  # to be known also when the client goes meanwhile: see release
            return taking.result() is not None
        except UnavailableError:
            # Redis is away: this node's own sessions were looked at; a credential in memory signs in all the same.
            return True

    async def renew(self, sessions: Iterable[Session]) -> None:
        """Keep the client ids of sessions that live longer than their time on Redis."""
        live = list(sessions)
        for start in range(0, len(live), CHUNK):
            holds = [(session, held_seconds(session)) for session in live[start : start + CHUNK] if not session.ended]
            if holds:
                self._node.store.send(_command(CLAIM, holds))
            await asyncio.sleep(GATHER)

    def release(self, session: Session) -> None:
        """The connection is gone: the client id stays with the username while the broker keeps the session."""
        if session.taking is not None and not session.taking.done():
            session.taking.add_done_callback(lambda _: self.release(session))
            return
        key = keys.client(session.org.id, session.client_id)
        self._released.setdefault(key, []).append((session, session_lifetime(session)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self.give_back)

    def give_back(self) -> None:
        """Give back what was released, without waiting for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        released, self._released = self._released, {}
        holds = [hold for each in released.values() for hold in each]
        for start in range(0, len(holds), CHUNK):
            self._node.store.send(_command(RELEASE, holds[start : start + CHUNK]))


def _command(script: str, holds: list[tuple[Session, int]]) -> Command:
    """Run ``script`` for these sessions, each with its seconds."""
    names: list[str] = []
    values: list[str | bytes | int] = []
    for session, seconds in holds:
        names += keys.client(session.org.id, session.client_id), keys.filters(session.org.id, session.client_id)
        taking = session.taking
        displaced = taking.result() if taking is not None and taking.done() and not taking.exception() else None
        values += session.username, session.id, seconds, displaced or b""
    return ("EVAL", script, len(names), *names, *values)

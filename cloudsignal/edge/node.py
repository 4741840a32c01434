"""One edge process: everything wired together, and the register of its live sessions."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from audit.kinds import LIMIT_REACHED, TLS_FAILED, AuthReason, CloseCause
from cloudsignal.config import Upstream
from cloudsignal.edge.admission import Admission, session_capacity
from cloudsignal.edge.beat import Beat
from cloudsignal.edge.follow import Follower
from cloudsignal.edge.gate import Gate
from cloudsignal.edge.housekeeping import COUNTING, Housekeeping, HousekeepingError
from cloudsignal.edge.journal import Journal
from cloudsignal.edge.limits import Limits
from cloudsignal.edge.link import Client
from cloudsignal.edge.orders import Orders
from cloudsignal.edge.organization import Organization
from cloudsignal.edge.reports import Reports
from cloudsignal.edge.retained import Ledger
from cloudsignal.edge.retention import settle_will
from cloudsignal.edge.session import Phase, Session
from cloudsignal.edge.settings import Settings
from cloudsignal.edge.ship import Shipper
from cloudsignal.edge.signin import session_end
from cloudsignal.edge.snapshot import Snapshot
from cloudsignal.edge.store import Store, UnavailableError
from cloudsignal.edge.stored import LIVE_TTL
from cloudsignal.edge.trail import Origin, make_event
from cloudsignal.edge.turns import Turns
from cloudsignal.edge.upstream import Dialer
from cloudsignal.edge.wheel import Wheel
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.change import Change
from cloudsignal.wire.said import node_key

logger = logging.getLogger("cloudsignal.edge")

CONNECT_WITHIN = 10.0
"""Seconds from the TLS handshake to CONNECT."""

SIGN_IN_WITHIN = 20.0
"""Seconds from the TLS handshake to CONNACK."""

LOOK_EVERY = 60.0
"""Seconds between two looks at a session that asks for none."""

PING_EVERY = 30.0
"""Seconds between pings to a distant broker, at most."""

DRAIN = 2.0
"""Seconds clients may take to read the last words of a stopping edge."""

JUMP = 2.0
"""Seconds the wall clock may be put forward or back unnoticed."""

SLICE = 0.002
"""Seconds spent on judging sessions anew before everything else gets its turn."""


class Node:
    """The process. ``Client`` objects call it; it calls them back when something changes from outside."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.node
        self.upstream: Upstream = settings.upstream
        self.incarnation = uuid7()
        self.started_at = time.time()
        self.draining = False
        self.clients: dict[str, Client] = {}
        """Every connection past its TLS handshake, by session id."""
        self.counters: dict[str, int] = {}
        self.key = node_key(settings.pepper)
        """Seals what this node says of itself."""
        self.store = Store(settings.redis_url)
        self.journal = Journal(
            settings.data / "journal", node=self.name, incarnation=self.incarnation, limit=settings.journal_bytes
        )
        self._confirming = Store(settings.redis_url)
        """A connection of its own for the shipper's question, which blocks."""
        self.shipper = Shipper(self.journal, self.store, self._confirming, self.name, self.key)
        self.limits = Limits(connections=settings.address_connections, failures=settings.login_failures)
        self.capacity = session_capacity()
        self.admission = Admission(self.limits.shut_out, capacity=self.capacity)
        self.dialer = Dialer(settings.upstream)
        self.housekeeping = Housekeeping(settings.upstream, self.store)
        self.ledger = Ledger(self.store, now=time.time, recount=lambda org: self._spawn(self._recount(org)))
        self.orders = Orders(
            self.store,
            self.housekeeping,
            node=self.name,
            verify_key=settings.verify_key,
            cleared=self.ledger.cleared,
        )
        self.gate = Gate(self)
        self.turns = Turns()
        self.reports = Reports(self.store, self.key)
        self.snapshot = Snapshot(
            store=self.store,
            trail=self.journal,
            node=self.name,
            folder=settings.data,
            verify_key=settings.verify_key,
            pepper=settings.pepper,
            changed=self.organization_changed,
            report=self.reports.put,
        )
        self.follower = Follower(
            self.store,
            self.snapshot,
            identities=self._identities,
            credentials_changed=self.credentials_changed,
            close=self.close_asked,
            reconnected=self._redis_is_back,
        )
        self.beat = Beat(self)
        self._wheel: Wheel[str] = Wheel(self._look)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life of the process -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Enforce what is on disk, then follow Redis."""
        self._end_lost_sessions()
        await self.snapshot.load_disk()
        for part in (self.follower, self.shipper, self.reports, self.beat, self.orders):
            self._spawn(part.run())
        self._spawn(self.snapshot.watch_heads())
        self._spawn(self.shipper.trim())
        self._spawn(self._turn())

    def _end_lost_sessions(self) -> None:
        """End what the process before this one held when it was killed."""
        ends = list(self.journal.sessions.ends())
        for event in ends:
            self.journal.record(event)
        if ends:
            logger.warning("the process before this one was killed: its %d sessions ended then", len(ends))
        self._flush()

    async def stop(self) -> None:
        """End every session (MQTT 5: server shutting down), ship the trail, say goodbye."""
        self.draining = True
        for client in list(self.clients.values()):
            client.session.end(CloseCause.DRAINING)
            client.pump()
        end = time.monotonic() + DRAIN
        while self.clients and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for client in list(self.clients.values()):
            client.abort()
        await asyncio.sleep(0)
        await self._cancel_tasks()
        if not await self.shipper.drain(seconds=5.0):
            logger.warning("redis is away: the audit journal is kept and sent at the next start")
        with suppress(UnavailableError):
            await self.reports.flush()
        self.gate.give_back()
        await self.beat.farewell()
        self._save_floors()
        self.journal.close()
        await self.store.close()
        await self._confirming.close()

    async def _cancel_tasks(self) -> None:
        """Cancel until it is heard: a library may turn the first cancellation into an error of its own."""
        for _ in range(20):
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=0.25)
        logger.error("%d tasks did not end", len(self._tasks))

    def count(self, name: str, by: int = 1) -> None:
        """Raise a counter of the heartbeat and the metrics."""
        self.counters[name] = self.counters.get(name, 0) + by

    # --- what clients call ---------------------------------------------------------------------------------------

    def opened(self, client: Client) -> None:
        """A TLS handshake is done."""
        self.clients[client.session.id] = client
        self._wheel.add(client.session.id, time.time() + CONNECT_WITHIN)

    async def sign_in(self, client: Client) -> None:
        """A CONNECT has arrived."""
        await self.gate.sign_in(client)

    def register(self, client: Client) -> None:
        """The credential is good: changes of organization and identity concern this session from now on."""
        session = client.session
        session.org.sessions[session.id] = session
        held = session.org.clients.get(session.client_id)
        session.before = held if held is None or held.live else held.before
        session.org.clients[session.client_id] = session

    def signed_in(self, client: Client) -> None:
        """The client has its CONNACK."""
        self.count("connects")
        again = self._look(client.session.id)
        if again is not None:
            self._wheel.add(client.session.id, again)
        self.beat.add(client.session)

    def broker_lost(self, client: Client) -> None:
        """The broker has closed a session that had not ended: taken over, or the broker is gone."""
        self._spawn(self._broker_lost(client))

    def closed(self, client: Client, ip: str) -> None:
        """The client's socket is gone."""
        self.limits.release(ip)
        session = client.session
        if self.clients.pop(session.id, None) is None:
            return
        self._wheel.drop(session.id)
        if session.refusal is AuthReason.PROTOCOL:
            self.limits.failed(ip, "")
        if not hasattr(session, "org"):
            return
        org = session.org
        settle_will(session)
        if org.sessions.pop(session.id, None) is not None:
            self.count("messages_in", session.messages_in)
            self.count("messages_out", session.messages_out)
            if org.clients.get(session.client_id) is session:
                del org.clients[session.client_id]
                if session.before is not None and session.before.live:
                    org.clients[session.client_id] = session.before
            self.gate.release(session)
            self.beat.remove(session)

    def tls_failed(self, origin: Origin, reason: str) -> None:
        """A handshake failed."""
        self.count("tls_failed")
        self._fold_origin(TLS_FAILED, origin, reason)

    def turned_away(self, origin: Origin, limit: str) -> None:
        """A connection was closed before its handshake because a limit was reached."""
        self.count("turned_away")
        self._fold_origin(LIMIT_REACHED, origin, limit)

    def _fold_origin(self, kind: str, origin: Origin, reason: str) -> None:
        event = make_event(
            kind, node=self.name, ip=origin.ip, port=origin.port, transport=origin.transport, reason=reason
        )
        self.journal.fold((kind, origin.ip, origin.transport, reason), event)
        self._flush()

    # --- what the control plane changes --------------------------------------------------------------------------

    def organization_changed(self, org: Organization) -> None:
        """A new bundle is in force. Sessions notice at their next byte; this sees to what they hold already."""
        gone = org.id not in self.snapshot.organizations
        self._spawn(self._forget(org) if gone else self._rejudge(org))

    async def credentials_changed(self, names: Iterable[tuple[str, str]], committed_at: float) -> None:
        """Re-read these records and apply them to live sessions: end, extend, or take over claims."""
        wanted = set(names)
        records = await self.snapshot.fetch_credentials(wanted)
        now = time.time()
        for org_id in {org for org, _ in records}:
            org = self.snapshot.organizations.get(org_id)
            for session in list(org.sessions.values()) if org is not None else ():
                record = records.get((org_id, session.username))
                if record is None or session.ended:
                    continue
                end, reason = session_end(record, session.token_id, now=now)
                if reason is not None:
                    cause = CloseCause.EXPIRED if reason is AuthReason.EXPIRED else CloseCause.REVOKED
                    session.end(cause, **_since(committed_at))
                else:
                    if end and not 0 < session.expires_at <= end:
                        self._wheel.add(session.id, now)  # it ends sooner than it was to be looked at
                    if session.expires_at != end:
                        session.expires_at = end
                        self.beat.add(session)  # the list of live sessions says when the credential ends
                    if dict(record.claims) != dict(session.identity.claims):
                        session.adopt(claims=record.claims)
                        self._rejudge_session(session)
                self._pump(session.id)

    def close_asked(self, change: Change) -> None:
        """Somebody asked for one session to be closed."""
        client = self.clients.get(change.session)
        if client is None or getattr(client.session, "org", None) is None or client.session.org.id != change.org:
            return
        details = {"asked": change.cause} if change.cause else {}
        since = _since(change.committed_at)
        client.session.end(CloseCause.KICKED, **details, **since)
        client.pump()

    def _redis_is_back(self) -> None:
        """What was said meanwhile did not arrive, or was forgotten."""
        self.reports.again()
        self.ledger.again()
        self._spawn(self.gate.renew(self._sessions()))

    async def _recount(self, org: str) -> None:
        """Compare the ledger of retained messages with the broker, again when this try no longer stands in the way."""
        while org in self.snapshot.organizations:
            try:
                counted = await self.housekeeping.recount(org)
            except (HousekeepingError, UnavailableError) as error:
                logger.warning("retained messages of %s could not be counted: %s", org, error)
                await asyncio.sleep(COUNTING)
                continue
            if counted:
                self.ledger.counted(org)
            return

    async def _forget(self, org: Organization) -> None:
        """An organization was deleted: its sessions end, and the journal keeps nothing of it once that is shipped."""
        self.ledger.detach(org.id)
        await self._rejudge(org)
        end = time.monotonic() + SIGN_IN_WITHIN
        while org.sessions and time.monotonic() < end:
            await asyncio.sleep(0.05)
        try:
            self.journal.sweep()
        except OSError as error:
            logger.warning("the audit journal cannot be begun anew: %s", error)

    async def _rejudge(self, org: Organization) -> None:
        force = org.force
        pause = time.perf_counter() + SLICE
        for session in list(org.sessions.values()):
            if org.force is not force:
                return
            if session.ended:
                continue
            if force.suspended:
                session.end(CloseCause.ORG_SUSPENDED, **_since(force.issued_at))
            else:
                session.adopt()
                self._rejudge_session(session)
            self._pump(session.id)
            if time.perf_counter() > pause:
                await asyncio.sleep(0)
                pause = time.perf_counter() + SLICE
        self._flush()

    def _rejudge_session(self, session: Session) -> None:
        """Judge what the session holds; it is looked at again when the first rule that mattered expires."""
        session.rejudge()
        now = time.time()
        if session.judge.until < now + LOOK_EVERY and not session.ended:
            self._wheel.add(session.id, now)  # that look finds out when the next is due

    async def _broker_lost(self, client: Client) -> None:
        session = client.session
        if hasattr(session, "org"):
            newest = session.org.clients.get(session.client_id)
            taken = newest is not None and newest is not session
            if not taken and session.phase is Phase.LIVE:
                taken = await self.beat.held_elsewhere(session)
            if not session.ended:
                session.broker_lost(taken_over=taken)
        client.pump()

    # --- time ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        renewed = turned = time.monotonic()
        ahead = time.time() - turned
        while True:
            await asyncio.sleep(1.0)
            now, steady = time.time(), time.monotonic()
            moved = now - steady - ahead
            if abs(moved) > JUMP:
                ahead += moved
                self._clock_moved(moved, now, since=now - (steady - turned))
            turned = steady
            self._wheel.turn(now)
            self._save_floors()
            self._say_alive()
            if steady - renewed > LIVE_TTL / 2:
                renewed = steady
                self._spawn(self.gate.renew(self._sessions()))
            self._flush()

    def _clock_moved(self, by: float, now: float, *, since: float) -> None:
        """The wall clock was put forward or back: nobody counts as silent for it, but what holds must be judged anew.

        Who has connected after it, ``since`` the last turn, did so by the new clock.
        """
        logger.warning("the clock was put %s by %.0f seconds", "forward" if by > 0 else "back", abs(by))
        self._wheel = Wheel(self._look)
        for session_id, client in self.clients.items():
            session = client.session
            session.opened_at = session.heard_at = now
            if not since <= session.connected_at <= now:
                session.connected_at += by
            session.pinged_at = now
            session.outdated = True
            self._wheel.add(session_id, now)

    def _look(self, session_id: str) -> float | None:
        client = self.clients.get(session_id)
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
        elif session.outdated or now >= session.judge.until or session.org.remembered.scarce:
            session.forget()
            session.rejudge()
            client.pump()
        if session.ended:
            client.pump()
            return None
        again = min(now + LOOK_EVERY, session.judge.until)
        if session.expires_at:
            again = min(again, session.expires_at)
        if session.connect.keep_alive:
            again = min(again, session.heard_at + 1.5 * session.connect.keep_alive)
        every = self._ping_every(session)
        if now >= session.pinged_at + every:
            client.ping_broker()
            session.pinged_at = now
        return min(again, session.pinged_at + every)

    def _ping_every(self, session: Session) -> float:
        """Seconds between pings to the broker: half of what it bears of silence, and less where it is far away."""
        borne = session.broker_keep_alive / 2 or math.inf
        return borne if self.dialer.local else min(borne, PING_EVERY)

    def _look_early(self, client: Client, now: float) -> float | None:
        session = client.session
        due = session.opened_at + (CONNECT_WITHIN if session.phase is Phase.NEW else SIGN_IN_WITHIN)
        if now < due:
            return due
        if session.phase is Phase.NEW:
            client.give_up()
        else:
            session.refuse(AuthReason.UNAVAILABLE, details={"text": "no answer in time"})
            client.pump()
        return None

    # --- small things --------------------------------------------------------------------------------------------

    def _sessions(self) -> Iterator[Session]:
        for org in self.snapshot.organizations.values():
            yield from org.sessions.values()

    def _identities(self) -> Iterator[tuple[str, str]]:
        for session in self._sessions():
            yield session.org.id, session.username

    def _pump(self, session_id: str) -> None:
        client = self.clients.get(session_id)
        if client is not None:
            client.pump()

    def _flush(self) -> None:
        try:
            self.journal.flush()
        except OSError as error:
            logger.warning("the audit journal cannot be written: %s", error)
            self.count("journal_failures")

    def _say_alive(self) -> None:
        with suppress(OSError):
            self.journal.sessions.alive()

    def _save_floors(self) -> None:
        try:
            self.snapshot.floors.save()
        except OSError as error:
            logger.warning("the revisions seen cannot be kept on disk: %s", error)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the edge failed", exc_info=task.exception())


def _since(committed_at: float) -> dict[str, float]:
    """How long a change took from its commit to here, for the event; nothing when the commit is not known."""
    return {"seconds_since_commit": round(time.time() - committed_at, 3)} if committed_at else {}

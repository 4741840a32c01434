"""One edge process: everything wired together, and the register of its live sessions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress

from audit.kinds import LIMIT_REACHED, TLS_FAILED, AuthReason, CloseCause
from cloudsignal.config import Upstream
from cloudsignal.edge.audit.events import Origin, make_event
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.audit.shipper import Shipper
from cloudsignal.edge.broker.dialer import Dialer
from cloudsignal.edge.broker.housekeeping import Housekeeping
from cloudsignal.edge.broker.orders import Orders
from cloudsignal.edge.broker.pool import BrokerPool
from cloudsignal.edge.broker.probes import Probes
from cloudsignal.edge.broker.splits import Splits
from cloudsignal.edge.broker.wills import Wills
from cloudsignal.edge.changes import Changes
from cloudsignal.edge.control.bundle_status import BundleStatus
from cloudsignal.edge.control.change_stream import ChangeConsumer
from cloudsignal.edge.control.desired_state import DesiredState
from cloudsignal.edge.control.heartbeat import HeartbeatSender
from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.edge.session.context import Phase
from cloudsignal.edge.session.register import Register
from cloudsignal.edge.session.retained import Ledger
from cloudsignal.edge.settings import Settings
from cloudsignal.edge.signin.flow import SignInFlow
from cloudsignal.edge.signin.renewal import Renewal
from cloudsignal.edge.timeouts import Timeouts
from cloudsignal.edge.transport.address_limits import Limits
from cloudsignal.edge.transport.admission import Admission, session_capacity
from cloudsignal.edge.transport.connection import Client
from cloudsignal.edge.transport.turns import Turns
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.sealed import node_key

logger = logging.getLogger("cloudsignal.edge")

RESTART = 1.0
"""Seconds until a part that failed begins again."""

DRAIN = 2.0
"""Seconds clients may take to read the last bytes of a stopping edge."""


class Node:
    """The process. ``Client`` objects call it; it calls them back when something changes from outside."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.node
        self.upstream: Upstream = settings.upstream
        self.incarnation = uuid7()
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
        self.brokers = BrokerPool(settings.upstream)
        self.dialer = Dialer(self.brokers)
        self.housekeeping = Housekeeping(self.brokers, self.store)
        self.ledger = Ledger(self.store, now=time.time, recount=lambda org: self.spawn(self._recount(org)))
        self.orders = Orders(
            self.store,
            self.housekeeping,
            node=self.name,
            verify_key=settings.verify_key,
            cleared=self.ledger.cleared,
        )
        self.sessions = Register()
        """Every session that has signed in."""
        self.timeouts = Timeouts(self.clients)
        self.changes = Changes(self)
        self.turns = Turns()
        self.reports = BundleStatus(self.store, self.key)
        self.desired = DesiredState(
            store=self.store,
            sink=self.journal,
            node=self.name,
            folder=settings.data,
            verify_key=settings.verify_key,
            pepper=settings.pepper,
            levels=settings.topic_levels,
            changed=self.changes.organization_changed,
            report=self.reports.put,
        )
        self.sign_in_flow = SignInFlow(
            store=self.store,
            desired=self.desired,
            sessions=self.sessions,
            dialer=self.dialer,
            limits=self.limits,
            ledger=self.ledger,
            journal=self.journal,
            pepper=settings.pepper,
            failure_floor=settings.failure_floor,
        )
        self.renewal = Renewal(self.store, self.sessions, self.pump)
        self.wills = Wills(self.housekeeping, self.store, self.journal, self.sessions, self.changes.claims_now)
        self.splits = Splits(self.desired.organizations, self.sessions, self.pump)
        self.consumer = ChangeConsumer(
            self.store,
            self.desired,
            identities=self._identities,
            credentials_changed=self.changes.credentials_changed,
            close=self.changes.close_asked,
            reconnected=self._redis_is_back,
        )
        self.probes = Probes(self.brokers, edge=self.name, sink=self.journal, changed=self._brokers_changed)
        self.heartbeat_sender = HeartbeatSender(
            self.store,
            self.journal,
            self.counters,
            name=self.name,
            incarnation=self.incarnation,
            address=str(settings.mqtts or settings.wss or ""),
            key=self.key,
            brokers=self.probes.states,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life of the process -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Enforce what is on disk, then follow Redis."""
        self._end_lost_sessions()
        await self.desired.load_disk()
        for part in (self.consumer, self.shipper, self.reports, self.heartbeat_sender, self.orders, self.probes):
            self.spawn(self._forever(part.run))
        for work in (self.desired.watch_heads, self.shipper.trim, self.wills.run, self._turn, self.renewal.run):
            self.spawn(self._forever(work))

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the process, and start it again whenever it fails."""
        while True:
            try:
                await work()
            except Exception:
                logger.exception("a part of the edge failed; it begins again")
            await asyncio.sleep(RESTART)

    def _end_lost_sessions(self) -> None:
        """End what the process before this one held when it was killed."""
        ends = list(self.journal.sessions.ends())
        for event in ends:
            self.journal.record(event)
        if ends:
            logger.warning("the process before this one was killed: its %d sessions ended then", len(ends))
        self.flush()

    async def stop(self) -> None:
        """Stop: end every session (MQTT 5: server shutting down), ship the journal, remove the heartbeat."""
        self.sign_in_flow.closed = True
        for client in list(self.clients.values()):
            client.session.end(CloseCause.DRAINING)
            client.pump()
        end = time.monotonic() + DRAIN
        while self.clients and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for client in list(self.clients.values()):
            client.abort()
        await asyncio.sleep(0)
        self.wills.stop()
        await self._cancel_tasks()
        if not await self.shipper.drain(seconds=5.0):
            logger.warning("redis is unavailable: the audit journal is kept and sent at the next start")
        with suppress(UnavailableError):
            await self.reports.flush()
        self.sign_in_flow.give_back()
        await self.heartbeat_sender.farewell()
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
        self.timeouts.opened(client.session.id)

    async def sign_in(self, client: Client) -> None:
        """A CONNECT has arrived."""
        await self.sign_in_flow.sign_in(client)

    def signed_in(self, client: Client) -> None:
        """The client has its CONNACK."""
        self.count("connects")
        self.timeouts.signed_in(client.session.id)
        self.sign_in_flow.holds.forget(client.session.org.id, client.session.client_id)
        self.heartbeat_sender.add(client.session)
        self.wills.signed_in(client.session)

    def broker_lost(self, client: Client) -> None:
        """The broker has closed a session that had not ended: taken over, or the broker is gone."""
        self.spawn(self._broker_lost(client))

    def closed(self, client: Client, ip: str) -> None:
        """The client's socket is gone."""
        self.limits.release(ip)
        session = client.session
        if self.clients.pop(session.id, None) is None:
            return
        self.timeouts.closed(session.id)
        if session.refusal is AuthReason.PROTOCOL:
            self.limits.failed(ip, "")
        if session.grant is None:
            return
        self.wills.ended(session)
        if self.sessions.remove(session):
            self.count("messages_in", session.messages_in)
            self.count("messages_out", session.messages_out)
            self.sign_in_flow.release(session)
            self.heartbeat_sender.remove(session)

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
        self.flush()

    # --- what the control plane changes --------------------------------------------------------------------------

    def _brokers_changed(self) -> None:
        """Say at once that a broker node was lost or is back."""
        self.flush()
        self.heartbeat_sender.beat_soon()

    def _redis_is_back(self) -> None:
        """Send reports and client IDs again after Redis was unavailable."""
        self.reports.again()
        self.ledger.again()
        self.spawn(self.renewal.renew())

    async def _recount(self, org: str) -> None:
        """Compare the ledger of retained messages with the broker, again when this try no longer stands in the way."""
        if await self.housekeeping.recount_while(org, self.desired.organizations):
            self.ledger.counted(org)

    async def _broker_lost(self, client: Client) -> None:
        session = client.session
        if session.grant is not None:
            newest = self.sessions.holder(session.org, session.client_id)
            taken = newest is not None and newest is not session
            if not taken and session.phase is Phase.LIVE:
                taken = await self.heartbeat_sender.held_elsewhere(session)
            if not session.ended:
                session.broker_lost(taken_over=taken)
        client.pump()

    # --- time ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.timeouts.turn()
            self.splits.turn(self.probes.cluster)
            self._save_floors()
            self._say_alive()
            self.flush()

    # --- small things --------------------------------------------------------------------------------------------

    def _identities(self) -> Iterator[tuple[str, str]]:
        for session in self.sessions:
            yield session.org.id, session.username

    def pump(self, session_id: str) -> None:
        """Write what a session has to say."""
        client = self.clients.get(session_id)
        if client is not None:
            client.pump()

    def flush(self) -> None:
        """Write the journal, as far as the disk lets it be written."""
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
            self.desired.watermarks.save()
        except OSError as error:
            logger.warning("the revisions seen cannot be kept on disk: %s", error)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a task until it ends or the process does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the edge failed", exc_info=task.exception())

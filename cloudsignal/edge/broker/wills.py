"""Wills that nobody else publishes: those of clients whose broker node was killed or is frozen.

A node publishes a will when it notices that the client is gone. One that is gone itself never does, and no other node
of a cluster does it for it. The edge knows the will, so it publishes it through another node: when the node was lost
around the end of the session, the client has not come back to any edge meanwhile, and the policy allows it then. While
the node may still publish it, the edge does not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from acl.policy import Identity
from audit.kinds import WILL_LOST, WILL_PUBLISHED
from cloudsignal.edge.audit.events import AuditSink, shortened
from cloudsignal.edge.broker.housekeeping import Housekeeping, HousekeepingError
from cloudsignal.edge.broker.pool import NoBrokerError, Reached
from cloudsignal.edge.codec import Property, Publish, Reason, Will
from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.edge.session.authorizer import Authorizer
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.register import Register
from cloudsignal.edge.session.responses import mounted_will
from cloudsignal.edge.session.retention import settle_will
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.credential import ClaimValue

DECIDE = 6.0
"""Seconds after a session until it is decided whether its node was lost: by then probes have lost one that hangs."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the wills that wait."""

PATIENCE = 300.0
"""Seconds for which a will that is due is tried again while no broker node, or not Redis, is reachable."""

AGAIN = 2.0
"""Seconds until a will is tried again."""

WAITING_MAX = 10_000
"""Wills that wait at a time; one beyond is lost (``will_lost``, ``too_many``)."""

ORG_WAITING_MAX = WAITING_MAX // 4
"""Those of one organization, so that it cannot take the places of all others."""

DELAY_MAX = 3_600.0
"""Seconds of Will Delay Interval for which a will is kept; a longer one would keep its place for as long."""

ASK_WITHIN = 1.0
"""Seconds a node has to accept a connection after it has closed one."""

TOGETHER = 200
"""Wills whose clients and credentials are looked up on Redis with one call each."""

AT_ONCE = 8
"""Organizations whose wills are published at the same time."""


@dataclass(slots=True)
class Waiting:
    """A will that may have to be published."""

    session: Session
    will: Will
    node: str
    """The broker node that the session was connected to, as people read it."""
    ended_at: float
    """Seconds since the epoch, like all times here."""
    cut: bool
    """Whether the node closed the connection; otherwise the session ended for another reason."""
    due: float
    until: float
    """Time at which the edge gives the will up."""
    decided: bool = False
    """Whether the node is known to have been lost."""
    settled: bool = False
    """Whether the will needs no publishing any more: published, lost, or not wanted."""


@dataclass(slots=True)
class Loss:
    """The last time during which a node was unreachable."""

    since: float
    until: float
    """Time at which the node was last seen unreachable."""


class Wills:
    """Publishes the wills of sessions whose broker node was lost."""

    def __init__(
        self,
        housekeeping: Housekeeping,
        store: Store,
        sink: AuditSink,
        sessions: Register,
        claims_now: Callable[[Iterable[Session]], Awaitable[Mapping[str, Mapping[str, ClaimValue]]]],
    ) -> None:
        self._pool = housekeeping.pool
        self._housekeeping = housekeeping
        self._store = store
        self._sink = sink
        self._sessions = sessions
        self._claims_now = claims_now
        """By session ID, as Redis has them; those whose credential is gone or revoked are missing."""
        self._waiting: list[Waiting] = []
        self._of_org: Counter[str] = Counter()
        """How many wait, by organization."""
        self._back: dict[tuple[str, str], Session] = {}
        """The newest session of each client that signed in here since the last look, by organization and client ID."""
        self._under_way: list[Waiting] = []
        self._losses: dict[str, Loss] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}

    # --- what is noticed -----------------------------------------------------------------------------------------

    def ended(self, session: Session) -> None:
        """A session has ended: its node should publish the will, if there is one and it is not dropped."""
        settle_will(session)
        will = session.connect.will
        if will is None or not session.will_sent or not session.broker_node:
            return
        now = time.time()
        delay = min(will.properties.number(Property.WILL_DELAY, 0), session.session_expiry)
        due = now + max(DECIDE, delay)
        one = Waiting(session, will, session.broker_node, now, session.cut, due, due + PATIENCE)
        if len(self._waiting) >= WAITING_MAX or self._of_org[session.org.id] >= ORG_WAITING_MAX:
            if one.cut or was_lost(one, self._losses.get(one.node), now):
                self._lost(one, "too_many")
            return
        self._wait(one)
        if session.cut:
            self._ask(one.node)

    def _wait(self, one: Waiting) -> None:
        self._waiting.append(one)
        self._of_org[one.session.org.id] += 1

    def signed_in(self, session: Session) -> None:
        """Note that a client has signed in here: nobody publishes the will of an earlier session of it."""
        if self._waiting or self._under_way:
            self._back[session.org.id, session.client_id] = session

    def _is_back(self, one: Waiting) -> bool:
        """Whether a later session of the client is here, or has been since the last look."""
        session = one.session
        here = self._sessions.holder(session.org, session.client_id)
        later = self._back.get((session.org.id, session.client_id), session)
        return later is not session or not (here is None or here is session or not here.live)

    def _ask(self, label: str) -> None:
        """Find out whether a node that has closed a connection takes another: one that comes back fast was gone too."""
        if label not in self._asked:
            task = asyncio.get_running_loop().create_task(self._knock(label))
            self._asked[label] = task
            task.add_done_callback(lambda _: self._asked.pop(label, None))

    async def _knock(self, label: str) -> None:
        for last in (False, True):
            try:
                async with asyncio.timeout(ASK_WITHIN):
                    node = next((one for one in await self._pool.nodes() if one.label == label), None)
                    if node is not None:
                        transport, _ = await self._pool.connect(node, asyncio.Protocol)
                        transport.abort()
            except OSError as error:
                if isinstance(error, TimeoutError) and not error.errno and not last:
                    continue  # it may have been this edge that was busy
                now = time.time()
                self._note(label, now, now)
            break
        await asyncio.sleep(ASK_WITHIN)  # sessions of one node end together: one of them asks

    def _note(self, label: str, since: float, now: float) -> None:
        """Note that a node is unreachable; a loss that goes on keeps its beginning."""
        loss = self._losses.get(label)
        if loss is None or since > loss.until + DECIDE:
            self._losses[label] = Loss(since, now)
        else:
            loss.until = now

    async def _look_at_nodes(self, now: float) -> None:
        try:
            nodes = await self._pool.nodes()
        except NoBrokerError:
            return
        for node in nodes:
            state = self._pool.state(node)
            if state.reached is Reached.UNREACHABLE:
                self._note(node.label, state.since, now)

    # --- what is done --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the wills until canceled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._waiting:
                await self.look()

    async def look(self) -> None:
        """Decide whose node was lost, and publish what is due."""
        now = time.time()
        await self._look_at_nodes(now)
        kept: list[Waiting] = []
        due: list[Waiting] = []
        for one in self._waiting:
            if self._is_back(one) or not self._decide(one, now):
                one.settled = True
            else:
                (due if one.decided and now >= one.due else kept).append(one)
        self._waiting, self._under_way = kept, due
        self._of_org = Counter(one.session.org.id for one in kept)
        self._back.clear()
        if due:
            await self._publish(due, now)

    def _decide(self, one: Waiting, now: float) -> bool:
        """Whether a will waits on, as its node is known to be lost, or may turn out to be."""
        if one.decided or now < one.ended_at + DECIDE:
            return True
        if not was_lost(one, self._losses.get(one.node), now):
            return False
        one.decided = True
        if one.due > one.ended_at + DELAY_MAX:
            self._lost(one, "too_long")
        return not one.settled

    async def _publish(self, due: list[Waiting], now: float) -> None:
        """Publish the wills of clients that have not come back."""
        by_org: dict[str, list[Waiting]] = {}
        for start in range(0, len(due), TOGETHER):
            try:
                absent = await self._absent(due[start : start + TOGETHER])
                claims = await self._claims_now(one.session for one in absent)
            except UnavailableError:
                self._again((one for one in due[start:] if not one.settled), now, "Redis is unavailable")
                break
            for one in absent:
                one.settled = not self._allowed(one, claims.get(one.session.id))
                if not one.settled:
                    by_org.setdefault(one.session.org.id, []).append(one)
        together = list(by_org.items())
        for start in range(0, len(together), AT_ONCE):
            await asyncio.gather(*(self._publish_of(org, ones, now) for org, ones in together[start : start + AT_ONCE]))

    async def _absent(self, due: list[Waiting]) -> list[Waiting]:
        """The wills whose client ID no later session holds, on any edge. Raises :class:`UnavailableError`."""
        names = [keys.client(one.session.org.id, one.session.client_id) for one in due]
        (held,) = await self._store.call(("MGET", *names))
        absent: list[Waiting] = []
        for one, value in zip(due, held, strict=True):
            own = value is None or value.rpartition(b"\n")[2] == one.session.id.encode()
            one.settled = not own or self._is_back(one)
            if not one.settled:
                absent.append(one)
        return absent

    def _allowed(self, one: Waiting, claims: Mapping[str, ClaimValue] | None) -> bool:
        """Whether organization, credential (with these claims, or no more) and policy allow the will now."""
        session, will = one.session, one.will
        if session.org.active.suspended or claims is None:
            return False
        identity = Identity(session.org.id, session.username, session.client_id, claims)
        authorizer = Authorizer(session.org.active, identity, session.purse, session.mount.levels)
        decision = authorizer.publish(will.topic, will.qos, will.retain)
        authorizer.forget()
        if not decision.allowed:
            session.denied("will", will.topic, decision, qos=will.qos, retain=will.retain)
        elif not session.will_kept:
            self._lost(one, "too_large")
            return False
        return decision.allowed

    async def _publish_of(self, org: str, ones: list[Waiting], now: float) -> None:
        left = list(ones)
        try:
            async with self._housekeeping.publisher(org) as publish:
                while left:
                    code = await publish(_message(left[0]))
                    one = left.pop(0)
                    if code < Reason.UNSPECIFIED:
                        one.settled = True
                        self._sink.record(_event(one, WILL_PUBLISHED, ""))
                    else:
                        self._lost(one, "refused", reason_code=code)
        except HousekeepingError as error:
            self._again(left, now, str(error))

    def _again(self, ones: Iterable[Waiting], now: float, why: str) -> None:
        for one in ones:
            if now > one.until:
                self._lost(one, "unavailable", text=why)
            else:
                one.due = now + AGAIN
                self._wait(one)

    def _lost(self, one: Waiting, reason: str, **details: str | int) -> None:
        one.settled = True
        self._sink.record(_event(one, WILL_LOST, reason, **details))

    def stop(self) -> None:
        """Record every will that still waits as lost, because the process stops."""
        now = time.time()
        for one in [*self._waiting, *self._under_way]:
            if not one.settled and (one.decided or was_lost(one, self._losses.get(one.node), now)):
                self._lost(one, "stopped")
        self._waiting.clear()


def was_lost(one: Waiting, loss: Loss | None, now: float) -> bool:
    """Whether a session's node was lost with it, so that it does not publish the will.

    One that has closed the connection was lost when it was unreachable around that time. Without that, only one that
    has been unreachable ever since: a moment's trouble between edge and node stops no will there.
    """
    if loss is None or loss.since > one.ended_at + DECIDE:
        return False
    return loss.until >= one.ended_at - LOOK_EVERY if one.cut else loss.until >= now - 2 * LOOK_EVERY


def _message(one: Waiting) -> Publish:
    """The will as the broker gets it."""
    will = mounted_will(one.will, one.session.mount)
    properties = will.properties.without(Property.WILL_DELAY)
    return Publish(will.topic, will.payload, will.qos, will.retain, packet_id=1, properties=properties)


def _event(one: Waiting, kind: str, reason: str, **details: str | int) -> AuditEvent:
    topic, facts = shortened("topic", one.will.topic)
    said: dict[str, str | int] = {**facts, **details, "broker": one.node}
    return one.session.event(kind, reason=reason, topic=topic, qos=one.will.qos, retain=one.will.retain, details=said)

"""Probes of the broker nodes: each node every few seconds, one probe at a time, for one edge process.

Two failures in a row make a node lost and one success brings it back, so that a single lost packet changes nothing and
nothing flaps. A change is told once: an event in the platform's own log, a line in the edge's log, a heartbeat at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from audit.kinds import BROKER_BACK, BROKER_LOST, BROKERS_AGREE, BROKERS_DISAGREE
from cloudsignal.edge.audit.events import AuditSink, make_event
from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool, NoBrokerError
from cloudsignal.edge.broker.probe import ProbeResult, probe
from cloudsignal.edge.broker.status import ClusterView, NodeStatus, cluster_view, read_status
from cloudsignal.wire.report import BROKERS_MAX, LOST, REACHED, BrokerState

logger = logging.getLogger("cloudsignal.edge.broker.probes")

EVERY = 2.0
"""Seconds between two probes of a node, with up to a twentieth more or less."""

AGAIN = 0.25
"""Seconds until a probe that failed is repeated for certainty. A node that hangs is lost within 5.4 s at most: two
probes and the pauses before them; heartbeat, ingest and a page that renews itself add 4.5 s at most."""

FAILURES = 2
"""Failures in a row that make a node lost."""

CERTAIN = 2.0
"""Seconds that members must disagree before it is said: those that join or leave need a moment."""


class Watched:
    """One node: what probes found, and what counts of it."""

    def __init__(self, label: str) -> None:
        self.state = BrokerState(label, "unknown")
        self.probes = self.failures = 0
        """Probes so far, and how many failed."""
        self.status: NodeStatus | None = None
        """The last reading of the node's status pages."""
        self._bad: list[float] = []
        """Time of the first failure in the present row of failures."""
        self._slow = 0

    @property
    def doubtful(self) -> bool:
        """Whether a probe failed and one more is needed to be certain."""
        return 0 < len(self._bad) < FAILURES

    def note(self, found: ProbeResult, now: float) -> bool:
        """Take what a probe found; returns whether the node was lost or came back by it."""
        self.probes += 1
        if not found.answered:
            return self._failed(found, now)
        self._bad.clear()
        self._slow = self._slow + 1 if found.state == "slow" else 0
        slow = self._slow >= FAILURES
        was = self.state
        self.state = replace(
            was,
            state="slow" if slow else "reachable",
            why=found.why if slow else "",
            since=was.since if was.state in REACHED else now,
            at=now,
            latency_ms=found.latency_ms,
        )
        return was.state in LOST

    def _failed(self, found: ProbeResult, now: float) -> bool:
        self.failures += 1
        self._bad.append(now)
        was = self.state
        if len(self._bad) < FAILURES:
            self.state = replace(was, at=now)
            return False
        del self._bad[FAILURES:]
        down = was.state in LOST
        since = was.since if down else self._bad[0]
        self.state = replace(was, state=found.state, why=found.why, since=since, at=now, latency_ms=-1.0)
        return not down


class Probes:
    """Probes every broker node, and tells those who asked to be told."""

    def __init__(
        self,
        pool: BrokerPool,
        *,
        edge: str,
        sink: AuditSink,
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._edge = edge
        self._sink = sink
        self._changed = changed
        self._watched: dict[str, Watched] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.cluster = ClusterView("unknown")
        """The status pages of all nodes together, as of the last reading."""
        self._differ_since = 0.0
        self._disagree = False
        self._none_said = False

    @property
    def watched(self) -> Iterable[Watched]:
        """Every node, in the order in which it was met."""
        return self._watched.values()

    def troubles(self) -> list[str]:
        """A sentence for each node that is lost."""
        return [f"{state.label} is {state.state}: {state.why}" for state in self.states() if state.state in LOST]

    def states(self) -> tuple[BrokerState, ...]:
        """Every node as it is known now, for the heartbeat."""
        return tuple(each.state for each in self._watched.values())[:BROKERS_MAX]

    @property
    def reaches_one(self) -> bool:
        """Whether a broker node lets this edge in; false until the first probe has succeeded."""
        return any(each.state.state in REACHED for each in self._watched.values())

    async def run(self) -> None:
        """Probe until canceled."""
        try:
            while True:
                await self._follow()
                await asyncio.sleep(_jittered(EVERY))
        finally:
            for task in self._tasks.values():
                task.cancel()
            self._tasks.clear()

    async def _follow(self) -> None:
        """Watch the nodes that the addresses lead to now, and the names that lead to none."""
        try:
            nodes = {node.label: node for node in await self._pool.nodes()}
        except NoBrokerError:
            nodes = {}
        nameless = {label: why for label, why in self._pool.unresolved.items() if label not in nodes}
        for label in self._watched.keys() - nodes.keys() - nameless.keys():
            self._forget(label)
        for label, why in nameless.items():
            self._note(self._watched.setdefault(label, Watched(label)), ProbeResult("unreachable", why))
        for label, node in nodes.items():
            watched = self._watched.setdefault(label, Watched(label))
            task = self._tasks.get(label)
            if task is None or task.done():
                self._tasks[label] = asyncio.get_running_loop().create_task(self._watch(node, watched))

    def _forget(self, label: str) -> None:
        """Forget a node to which no address leads any more."""
        state = self._watched.pop(label).state
        if task := self._tasks.pop(label, None):
            task.cancel()
        if state.state in LOST:
            self._record(BROKER_BACK, "gone", {"broker": label, "why": "no configured address leads there any more"})
        self._tell_of_none()
        self._changed()

    async def _watch(self, node: BrokerNode, watched: Watched) -> None:
        while True:
            asked = probe(self._pool, node, edge=self._edge)
            if base := _status_url(self._pool.upstream.status, node):
                found, watched.status = await asyncio.gather(asked, read_status(base))
                self._compare()
            else:
                found = await asked
            self._note(watched, found)
            if found.answered:
                self._pool.succeeded(node)
            elif found.state == watched.state.state == "unreachable":
                self._pool.failed(node, found.why)  # one that only turns a probe away may go on with its sessions
            await asyncio.sleep(_jittered(AGAIN if watched.doubtful else EVERY))

    def _note(self, watched: Watched, found: ProbeResult) -> None:
        known = watched.state.state
        changed = watched.note(found, time.time())
        if changed:
            self._tell(watched.state)
        if changed or watched.state.state != known:
            self._tell_of_none()
            self._changed()

    def _tell(self, state: BrokerState) -> None:
        lost = state.state in LOST
        details: dict[str, str | int | float | bool] = {"broker": state.label}
        if lost:
            details["why"] = state.why
        self._record(BROKER_LOST if lost else BROKER_BACK, state.state, details)

    def _tell_of_none(self) -> None:
        """Say once that no broker is left, and once that there is one again."""
        states = self.states()
        lost = bool(states) and all(state.state in LOST for state in states)
        if lost and not self._none_said:
            said = "; ".join(self.troubles())
            logger.critical("no broker can be reached, so sign-ins are refused until one is back: %s", said)
        elif not lost and self._none_said:
            logger.warning("a broker can be reached again")
        self._none_said = lost

    def _compare(self) -> None:
        """Whether all nodes that say so see the same members, all of them running."""
        known = {label: each.status for label, each in self._watched.items() if each.status is not None}
        self.cluster = view = cluster_view(known)
        now = time.monotonic()
        self._differ_since = (self._differ_since or now) if view.state == "disagree" else 0.0
        disagree = bool(self._differ_since) and now - self._differ_since >= CERTAIN
        if self._disagree and view.state != "agree":
            disagree = True  # a page that no longer comes takes nothing back
        cluster = "disagree" if disagree else "agree" if view.state == "agree" else "unknown"
        for each in self._watched.values():
            each.state = _with_status(each.state, each.status, cluster)
        if disagree == self._disagree:
            return
        self._disagree = disagree
        kind = BROKERS_DISAGREE if disagree else BROKERS_AGREE
        self._record(kind, "disagree" if disagree else "agree", {"why": view.why} if view.why else {})
        if disagree:
            logger.critical("the broker's nodes disagree about their members: %s", view.why)
        else:
            logger.warning("the broker's nodes agree about their members again")
        self._changed()

    def _record(self, kind: str, reason: str, details: dict[str, str | int | float | bool]) -> None:
        self._sink.record(make_event(kind, node=self._edge, reason=reason, details=details))


def _with_status(state: BrokerState, status: NodeStatus | None, cluster: str) -> BrokerState:
    """A state with what the node's status pages say; unknown where they say nothing."""
    if status is None or not status.members:
        draining, drops = (status.draining, status.drops) if status is not None else (False, -1)
        return replace(state, members=(), missing=(), cluster="unknown", draining=draining, drops=drops)
    return replace(
        state,
        members=status.running,
        missing=status.missing,
        cluster=cluster,
        draining=status.draining,
        drops=status.drops,
    )


def _status_url(template: str, node: BrokerNode) -> str:
    """The URL below which the status pages of a node are; empty when none are configured."""
    where = node.ip or node.host
    return template.replace("{host}", f"[{where}]" if ":" in where else where)


def _jittered(seconds: float) -> float:
    """Seconds until the next probe: a twentieth more or less, so that edges started together do not probe together."""
    return seconds * random.uniform(0.95, 1.05)  # noqa: S311 - jitter

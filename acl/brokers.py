"""Broker nodes as edge nodes report them: for pages, API and readiness. Nothing calm is said that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from acl.models import Node
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.report import LOST

TONES = {"reachable": "good", "slow": "warning", "refused": "bad", "unreachable": "bad", "unknown": "neutral"}


class Condition(StrEnum):
    """Whether an edge node is alive and can do its work."""

    ONLINE = "online"
    SOME_BROKERS = "some_brokers"
    NO_BROKER = "no_broker"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class SeenBroker:
    """One broker node as one edge node finds it."""

    edge: str
    label: str
    state: str
    why: str
    since: datetime | None
    at: datetime | None
    latency_ms: float | None
    members: tuple[str, ...]
    missing: tuple[str, ...]
    cluster: str
    draining: bool
    drops: int | None

    @property
    def tone(self) -> str:
        """Tone in which pages show the state."""
        return TONES[self.state]

    @property
    def title(self) -> str:
        """The state as a word."""
        return self.state.capitalize()


@dataclass(frozen=True, slots=True)
class BrokerHealth:
    """The reports of all edge nodes of one cluster, or of all clusters, about their brokers."""

    online: int
    """Edge nodes that send heartbeats."""
    cut_off: tuple[str, ...]
    """Edge nodes that send heartbeats and reach no broker node."""
    lost: tuple[SeenBroker, ...]
    """Broker nodes that some edge node does not reach."""
    unknown: tuple[str, ...]
    """Edge nodes of which nobody knows whether they reach a broker."""
    disagree: bool
    """Whether broker nodes do not see the same members, all of them running."""

    @property
    def trouble(self) -> bool:
        """Whether an operator should look."""
        return bool(self.lost or self.disagree)

    @property
    def all_cut_off(self) -> bool:
        """Whether no edge node that is online reaches a broker."""
        return 0 < self.online == len(self.cut_off)

    @property
    def brokers(self) -> tuple[str, ...]:
        """The broker nodes that some edge node does not reach, by name."""
        return tuple(sorted({seen.label for seen in self.lost}))

    @property
    def words(self) -> str:
        """The state in a few words that name no node: who asks for readiness needs no sign-in."""
        if not self.online:
            return "no edge node is online"
        said = []
        if self.cut_off:
            said.append(f"{len(self.cut_off)} of {self.online} edge nodes reach no broker")
        elif self.lost:
            said.append(f"not every edge node reaches {len(self.brokers)} of the broker nodes")
        if self.disagree:
            said.append("broker nodes disagree about their members")
        if self.unknown:
            said.append(f"unknown to {len(self.unknown)} of {self.online} edge nodes")
        return "; ".join(said) or "ok"


def seen_brokers(node: Node) -> tuple[SeenBroker, ...]:
    """Each broker node as this edge node last found it; unknown while the edge node is offline."""
    return tuple(_seen(node, state) for state in node.brokers if isinstance(state, dict))


def condition(node: Node) -> Condition:
    """Whether an edge node is alive and reaches its brokers. One that says nothing of brokers counts as online."""
    if not node.online or node.retired_at is not None:
        return Condition.OFFLINE
    states = [seen.state for seen in seen_brokers(node)]
    down = sum(state in LOST for state in states)
    if not down:
        return Condition.ONLINE
    return Condition.NO_BROKER if down == len(states) else Condition.SOME_BROKERS


def health_of(nodes: Iterable[Node]) -> BrokerHealth:
    """Sum up what the nodes among them that are online say."""
    online = [node for node in nodes if node.online and node.retired_at is None]
    seen = {node.name: seen_brokers(node) for node in online}
    return BrokerHealth(
        online=len(online),
        cut_off=tuple(node.name for node in online if condition(node) is Condition.NO_BROKER),
        lost=tuple(each for brokers in seen.values() for each in brokers if each.state in LOST),
        unknown=tuple(name for name, brokers in seen.items() if not any(each.state != "unknown" for each in brokers)),
        disagree=any(each.cluster == "disagree" for brokers in seen.values() for each in brokers),
    )


def broker_health(cluster: int | None = None) -> BrokerHealth:
    """The health of a cluster's brokers, or of all clusters', as edge nodes see it. Holds nothing of a tenant."""
    with platform_scope():
        nodes = Node.objects.filter(retired_at=None, online=True).order_by("name")
        return health_of(nodes if cluster is None else nodes.filter(cluster=cluster))


def readiness() -> str:
    """The state of the brokers in ``/readyz``: ``ok``, or the trouble in numbers."""
    return broker_health().words


def _seen(node: Node, state: dict[str, Any]) -> SeenBroker:
    alive = node.online and node.retired_at is None
    latency, drops = float(state.get("latency_ms", -1)), int(state.get("drops", -1))
    return SeenBroker(
        edge=node.name,
        label=str(state.get("label", "")),
        state=str(state.get("state", "unknown")) if alive else "unknown",
        why=str(state.get("why", "")) if alive else "the edge node is offline",
        since=_moment(state.get("since", 0)) if alive else None,
        at=_moment(state.get("at", 0)),
        latency_ms=latency if alive and latency >= 0 else None,
        members=tuple(map(str, state.get("members", ()))) if alive else (),
        missing=tuple(map(str, state.get("missing", ()))) if alive else (),
        cluster=str(state.get("cluster", "unknown")) if alive else "unknown",
        draining=alive and bool(state.get("draining", False)),
        drops=drops if alive and drops >= 0 else None,
    )


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None

"""The reports of an edge process: bundle reports, heartbeat and live sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VERSION = 1

HEARTBEAT_SECONDS = 5.0
"""How often a heartbeat is written; it expires after three of them."""

SESSIONS_SECONDS = int(3 * HEARTBEAT_SECONDS)
"""Seconds until a heartbeat and a list of sessions expire that nobody renews."""


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A node has begun to enforce a bundle, or refuses it."""

    node: str
    org: str
    revision: int
    digest: str
    deployment: str
    status: Literal["enforcing", "refused"]
    reason: str
    """Empty when enforcing; else why the bundle was refused, in one sentence."""
    at: float
    """Seconds since the epoch, UTC."""
    v: int = VERSION


BROKERS_MAX = 32
"""Broker nodes one heartbeat speaks of, at most."""

BROKER_STATES = ("reachable", "slow", "refused", "unreachable", "unknown")
"""Values of :attr:`BrokerState.state`. A reader takes another one for ``unknown``."""

REACHED, LOST = frozenset({"reachable", "slow"}), frozenset({"refused", "unreachable"})
"""States in which an edge can, or cannot, work with a broker node; of ``unknown`` neither is said."""

CLUSTER_STATES = ("agree", "disagree", "unknown")
"""Values of :attr:`BrokerState.cluster`, read in the same way."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """One broker node, as one edge process sees it.

    Words are plain text here: a word of the next release must not make a heartbeat unreadable to this one.
    """

    label: str
    """Label of the broker node in logs and events: ``host:port``, with the IP address where a name has several."""
    state: str
    """One of :data:`BROKER_STATES`: it accepts an edge, does so slowly, refuses it, or does not answer."""
    why: str = ""
    """The trouble in a sentence; empty while the node is reachable."""
    since: float = 0.0
    """Time since which the node is in this state, seconds since the epoch; 0 when nobody knows."""
    at: float = 0.0
    """Time of the last probe, seconds since the epoch; 0 for never."""
    latency_ms: float = -1.0
    """From the start of the connection to the answer to the ping, in milliseconds; -1 when nothing was answered."""
    members: tuple[str, ...] = ()
    """The members of its cluster that run, as it sees them; empty without a status URL, or when that did not answer."""
    missing: tuple[str, ...] = ()
    """The members that do not run, as it sees them."""
    cluster: str = "unknown"
    """One of :data:`CLUSTER_STATES`: whether all nodes see the same members, all of them running."""
    draining: bool = False
    """Whether it asks to be left: its status page says that it takes no new clients."""
    drops: int = -1
    """Messages that its queues have dropped since it started; -1 when it does not say."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The heartbeat of an edge process. Counters are since its start."""

    node: str
    incarnation: str
    """UUIDv7 made at the start of the process."""
    sequence: int
    """Audit events written so far by this incarnation; a gap in what was ingested is therefore visible."""
    started_at: float
    at: float
    address: str
    """``host:port`` of the public TLS listener."""
    sessions: int
    counters: dict[str, int] = field(default_factory=dict)
    brokers: tuple[BrokerState, ...] = ()
    """Each broker node; empty from an edge of a release that did not probe them: nobody knows."""
    v: int = VERSION


@dataclass(frozen=True, slots=True)
class LiveSession:
    """The live session of one connected client."""

    session: str
    org: str
    username: str
    client_id: str
    node: str
    ip: str
    port: int
    transport: str
    mqtt_version: str
    tls_version: str
    tls_cipher: str
    token_id: str
    connected_at: float
    expires_at: int
    """When its credential ends, seconds since the epoch; 0 for a static one."""
    v: int = VERSION

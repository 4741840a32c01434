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

"""The options of ``cloudsignal up``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DATA_PARTS = ("postgres", "valkey", "mosquitto")
PARTS = (*DATA_PARTS, "migrate", "web", "worker", "beat", "ingest", "edge")


@dataclass(frozen=True, slots=True)
class Options:
    """Ports: None takes the usual one or the next free one, 0 any free one, a number exactly that one."""

    data: Path
    listen: str = "0.0.0.0"  # noqa: S104 - the public listener; it speaks TLS only
    """Address of the mqtts and wss listeners. The dashboard always listens on loopback (a proxy goes in front)."""
    web_port: int | None = None
    mqtts_port: int | None = None
    wss_port: int | None = None
    edges: int = 1
    parts: frozenset[str] = field(default_factory=lambda: frozenset(PARTS))
    """Which of :data:`PARTS` to run."""
    demo: bool = False

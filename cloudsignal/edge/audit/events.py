"""The audit trail as the session sees it: somewhere to record events, before their answer leaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from audit.bounds import TEXT_BYTES
from cloudsignal.wire.audit import AuditEvent, uuid7

CLIENT_TEXTS = ("topic", "client_id", "username")
"""Fields whose length a client chooses."""


class AuditSink(Protocol):
    """Where events go. ``journal.Journal`` is the real one."""

    taken: int
    """Rises with everything that is taken."""

    def record(self, event: AuditEvent) -> None:
        """Keep an event as one of its own, whatever the budget."""

    def note(self, event: AuditEvent) -> None:
        """Keep an event; beyond the budget of its organization it may only be counted."""

    def again(self, key: Hashable) -> bool:
        """Raise the count of the event of the last minute with this ``key``; ``False`` when there is none."""

    def fold(self, key: Hashable, event: AuditEvent) -> None:
        """Keep an event, or raise the count of an equal one (same ``key``) of the last minute."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from."""

    ip: str
    port: int
    transport: str
    """``mqtts``, ``wss`` or ``mqtt``."""
    tls_version: str = ""
    tls_cipher: str = ""


def make_event(kind: str, **values: object) -> AuditEvent:
    """An event that happens now. Long texts that a client chose are cut; ``details`` has their length and a hash."""
    now = time.time()
    event = AuditEvent(id=uuid7(now), ts=int(now * 1_000_000), kind=kind, **values)  # type: ignore[arg-type]
    if max(len(event.topic), len(event.client_id), len(event.username)) * 4 <= TEXT_BYTES:
        return event
    for name in CLIENT_TEXTS:
        text = getattr(event, name)
        if len(text) * 4 > TEXT_BYTES:
            short, facts = shortened(name, text.encode())
            if facts:
                event.details = {**event.details, **facts}
                setattr(event, name, short)
    return event


def shortened(name: str, text: bytes) -> tuple[str, dict[str, str | int]]:
    """``text`` as an event keeps it in its field ``name``; its details have length and hash of one that is cut."""
    if len(text) <= TEXT_BYTES:
        return text.decode(), {}
    facts: dict[str, str | int] = {f"{name}_bytes": len(text), f"{name}_sha256": hashlib.sha256(text).hexdigest()}
    return text[:TEXT_BYTES].decode(errors="ignore"), facts

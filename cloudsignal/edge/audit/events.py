"""Audit events, and the sink that a session records them in before its answer is sent."""

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
    """Interface for recording audit events; ``journal.Journal`` implements it."""

    taken: int
    """How many events were taken, repeats included; never falls."""

    def record(self, event: AuditEvent) -> None:
        """Record an event of its own, whatever the budget."""

    def note(self, event: AuditEvent) -> None:
        """Record an event; beyond the budget of its organization only count it."""

    def again(self, key: Hashable) -> bool:
        """Count a repetition with this ``key``; ``False`` when :meth:`fold` needs an event to count it in."""

    def fold(self, key: Hashable, event: AuditEvent) -> None:
        """Record an event, or count it as a repetition of an equal one (same ``key``) of the last minute."""


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
    """Make an audit event with the current time; long texts of a client are cut (:func:`shortened`)."""
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
    """Cut ``text`` to what the field ``name`` may hold; returns it with details: length and hash when it was cut."""
    if len(text) <= TEXT_BYTES:
        return text.decode(), {}
    facts: dict[str, str | int] = {f"{name}_bytes": len(text), f"{name}_sha256": hashlib.sha256(text).hexdigest()}
    return text[:TEXT_BYTES].decode(errors="ignore"), facts

"""Audit actors for events without a person or API key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemActor:
    """CloudSignal itself, for an organization or (``org_id`` None) for the platform; or on behalf of ``actor``."""

    org_id: str | None = None
    actor: str = "system"
    ip: str = ""


PLATFORM = SystemActor()
"""The actor of events of the installation, which belong to no organization."""

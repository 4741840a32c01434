"""Who acts when no person and no key does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemActor:
    """CloudSignal itself, for an organization or (``org_id`` None) for the platform; or on behalf of ``actor``."""

    org_id: str | None = None
    actor: str = "system"
    ip: str = ""


PLATFORM = SystemActor()
"""The platform's own doing; its events belong to no tenant."""

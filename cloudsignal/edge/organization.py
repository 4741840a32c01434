"""One organization at this edge: what is in force for it, its live sessions, and the quota they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from acl.policy import CompiledPolicy
from cloudsignal.edge.mount import Mount
from cloudsignal.wire.bundle import Quotas

if TYPE_CHECKING:
    from cloudsignal.edge.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class Force:
    """What is in force: replaced as a whole, never edited, so that no packet meets half of a change."""

    revision: int
    digest: str
    policy: CompiledPolicy
    quotas: Quotas
    suspended: bool
    issued_at: float


@dataclass(slots=True, eq=False)
class Organization:
    """The live side of an organization."""

    id: str
    mount: Mount
    force: Force
    sessions: dict[str, Session] = field(default_factory=dict)
    """Signed-in sessions by session id."""
    clients: dict[str, Session] = field(default_factory=dict)
    """The newest session of each client id."""
    _minute: int = 0
    _spent: int = 0

    def over_quota(self, now: float) -> bool:
        """Whether this minute's messages are used up. ``now`` is seconds since the epoch."""
        limit = self.force.quotas.messages_per_minute
        if not limit:
            return False
        minute = int(now) // 60
        if minute != self._minute:
            self._minute, self._spent = minute, 0
        return self._spent >= limit

    def spend(self, messages: int) -> None:
        """Count messages of clients against this minute."""
        self._spent += messages

    def full(self) -> bool:
        """Whether no further connection fits."""
        limit = self.force.quotas.connections
        return bool(limit) and len(self.sessions) >= limit

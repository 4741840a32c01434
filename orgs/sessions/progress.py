"""What a revocation has closed, and how long after it was asked for: read from what the edges report.

Times are an edge's clock against ours; on several machines they are as good as the clocks are synchronized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from audit.kinds import SESSION_CLOSED, CloseCause
from audit.models import Event
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.permissions import Permission

WITHIN = timedelta(seconds=60)
"""Sessions that close later than this were not closed by it."""
SKEW = timedelta(milliseconds=250)
"""How far an edge's clock may be behind ours."""
SHOWN = 20
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Closed:
    """One session that was closed. ``seconds`` is from the click."""

    username: str
    client_id: str
    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Closings:
    """What has been closed by now: how many, the slowest, and the last :data:`SHOWN` of them, slowest first."""

    count: int
    slowest: float
    rows: Sequence[Closed]


def closings(access: Access, *, cause: CloseCause, clicked_at: datetime, username: str = "") -> Closings:
    """Sessions of the organization (or of one username) that the edges closed for ``cause`` since ``clicked_at``."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = Event.objects.filter(
            org_id=access.org_id,
            kind=SESSION_CLOSED,
            reason=cause.value,
            ts__gte=clicked_at - SKEW,
            ts__lt=clicked_at + WITHIN,
        )
        if username:
            found = found.filter(username=username)
        events = list(found.order_by("-ts", "-id").values_list("ts", "username", "client_id", "node")[:COUNTED])
    rows = [Closed(name, client, node, _seconds(at, clicked_at)) for at, name, client, node in events]
    return Closings(len(rows), rows[0].seconds if rows else 0.0, rows[:SHOWN])


def _seconds(at: datetime, clicked_at: datetime) -> float:
    return max((at.astimezone(UTC) - clicked_at).total_seconds(), 0.0)

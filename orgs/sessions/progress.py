"""Progress of a revocation: the sessions it has closed and how fast, read from the audit events of the edges.

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
"""Sessions that close later than this are not counted to the revocation."""
SKEW = timedelta(milliseconds=250)
"""Allowed clock skew of an edge."""
SHOWN = 20
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed session. ``seconds`` is the time since the click."""

    username: str
    client_id: str
    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Closings:
    """The sessions closed so far: their number, the slowest, and the last :data:`SHOWN`, slowest first."""

    count: int
    slowest: float
    rows: Sequence[Closed]


def closings(access: Access, *, cause: CloseCause, clicked_at: datetime, username: str = "") -> Closings:
    """Read the sessions of the organization (or a username) that the edges closed for ``cause`` since the click."""
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

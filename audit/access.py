"""Searching the audit: always inside a time bound, newest first, widening window by window, paged by key.

The table is partitioned by day. A bound lets PostgreSQL plan and read a few partitions instead of all of them, and the
newest window usually fills the page; only a search that finds little reads further back. Text prefixes are ranges on
C-collated columns, because ``LIKE`` with a bound parameter cannot use an index.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db.models import QuerySet

from audit.kinds import KINDS
from audit.models import Event
from cloudsignal.errors import Invalid, NotFound
from orgs.access import Access
from orgs.models import User
from orgs.permissions import Permission
from orgs.tenancy import org_scope, platform_scope

PAGE = 50
PAGE_MAX = 500
SPAN_DEFAULT = timedelta(days=30)
SPAN_MAX = timedelta(days=400)
WINDOWS = (timedelta(hours=1), timedelta(hours=6), timedelta(days=1), timedelta(days=4), timedelta(days=15))
"""Sizes of the windows that are asked in turn; the last one repeats."""
OVERLAP = timedelta(seconds=10)
"""How far back a live view looks again: edges flush within a second of each other, and folded denials grow."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What to look for. Empty fields do not filter. Times are aware; ``until`` is exclusive."""

    kind: str = ""
    """One kind, or several separated by commas."""
    client_id: str = ""
    username: str = ""
    """The local part; a full ``local@org`` is cut."""
    topic_prefix: str = ""
    reason: str = ""
    ip: str = ""
    session: str = ""
    since: datetime | None = None
    until: datetime | None = None
    cursor: str = ""
    limit: int = PAGE


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events, newest first. ``next_cursor`` continues after the last; ``newest_cursor`` is where a live view starts."""

    events: tuple[Event, ...]
    next_cursor: str | None
    newest_cursor: str
    since: datetime
    """The beginning of the time that was asked for; older events are not part of the answer."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    since: datetime
    until: datetime
    cursor: tuple[datetime, uuid.UUID] | None = field(default=None)


def search(access: Access, query: AuditQuery) -> AuditPage:
    """The newest events of the organization that fit; raises :class:`Invalid` for a malformed filter."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        return _search(_filtered(Event.objects.filter(org_id=access.org_id), query), query)


def search_platform(operator: User, query: AuditQuery) -> AuditPage:
    """The same over what belongs to no organization. For operators; others get :class:`NotFound`."""
    if not operator.is_operator:
        raise NotFound()
    with platform_scope():
        return _search(_filtered(Event.objects.filter(org_id=None), query), query)


def newer_than(access: Access, query: AuditQuery, cursor: str, *, limit: int = PAGE_MAX) -> AuditPage:
    """Events for a live view: those after ``cursor``, and those of the :data:`OVERLAP` before it once more.

    The same event comes again while it may still change (a folded denial's count rises), and one may arrive behind a
    newer one; the caller replaces by id.
    """
    access.require(Permission.AUDIT_READ)
    at, _ = _parse_cursor(cursor)
    since = at - OVERLAP
    with org_scope(access.org_id):
        found = _filtered(Event.objects.filter(org_id=access.org_id, ts__gte=since), query)
        events = tuple(found.order_by("-ts", "-id")[: min(limit, PAGE_MAX)])
    newest = cursor_of(events[0]) if events and events[0].ts >= at else cursor
    return AuditPage(events, None, newest, since)


def get_event(access: Access, ts: datetime, event_id: uuid.UUID) -> Event:
    """One event by its key; raises :class:`NotFound`."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        found = Event.objects.filter(org_id=access.org_id, ts=ts, id=event_id).first()
    if found is None:
        raise NotFound("The event")
    return found


def count_up_to(access: Access, query: AuditQuery, cap: int = 1_000) -> int:
    """How many events fit, counting no further than ``cap`` (then the page says "1,000+")."""
    access.require(Permission.AUDIT_READ)
    bounds = _bounds(query)
    with org_scope(access.org_id):
        found = _filtered(Event.objects.filter(org_id=access.org_id), query)
        return found.filter(ts__gte=bounds.since, ts__lt=bounds.until).order_by()[:cap].count()


def cursor_of(event: Event) -> str:
    """The place of an event in the order: microseconds since the epoch and the id."""
    return f"{_microseconds(event.ts)}.{event.id}"


def prefix_range(prefix: str) -> tuple[str, str | None]:
    """``[low, high)`` of all texts that begin with ``prefix``, in code point order; high is None for "no end"."""
    rest = prefix
    while rest:
        code = ord(rest[-1]) + 1
        if 0xD800 <= code <= 0xDFFF:
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix, rest[:-1] + chr(code)
        rest = rest[:-1]
    return prefix, None


def _search(found: QuerySet[Event], query: AuditQuery) -> AuditPage:
    bounds = _bounds(query)
    limit = max(1, min(query.limit, PAGE_MAX))
    if bounds.cursor is not None:
        found = found.filter(pk__lt=bounds.cursor)
    events: list[Event] = []
    for low, high in _windows(bounds):
        rows = found.filter(ts__gte=low, ts__lt=high).order_by("-ts", "-id")
        events.extend(rows[: limit + 1 - len(events)])
        if len(events) > limit:
            break
    page = tuple(events[:limit])
    newest = cursor_of(page[0]) if page else f"{_microseconds(datetime.now(UTC))}.{uuid.UUID(int=0)}"
    return AuditPage(page, cursor_of(page[-1]) if len(events) > limit else None, newest, bounds.since)


def _filtered(found: QuerySet[Event], query: AuditQuery) -> QuerySet[Event]:
    if query.kind:
        kinds = [kind.strip() for kind in query.kind.split(",") if kind.strip()]
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise Invalid("unknown_kind", f"There is no event kind {unknown[0][:40]!r}.", field="kind")
        found = found.filter(kind__in=kinds) if len(kinds) > 1 else found.filter(kind=kinds[0])
    exact = {
        "client_id": query.client_id,
        "username": query.username.partition("@")[0],
        "reason": query.reason,
        "session": query.session,
    }
    found = found.filter(**{name: _clean(name, value) for name, value in exact.items() if value})
    if query.topic_prefix:
        low, high = prefix_range(_clean("topic_prefix", query.topic_prefix))
        found = found.filter(topic__gte=low, **({"topic__lt": high} if high else {}))
    if query.ip:
        try:
            found = found.filter(ip=str(ipaddress.ip_address(query.ip.strip())))
        except ValueError:
            raise Invalid("bad_ip", f"{query.ip[:45]!r} is not an IP address.", field="ip") from None
    return found


def _clean(name: str, value: str) -> str:
    if "\0" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise Invalid("bad_text", "The filter contains characters that no event can have.", field=name)
    return value


def _bounds(query: AuditQuery) -> _Bounds:
    cursor = _parse_cursor(query.cursor) if query.cursor else None
    # One minute ahead: the clocks of edges and database differ a little.
    until = query.until or datetime.now(UTC) + timedelta(minutes=1)
    since = query.since or until - SPAN_DEFAULT
    if since.tzinfo is None or until.tzinfo is None:
        raise Invalid("bad_time", "Times need a zone, such as 2026-01-31T12:00:00Z.", field="since")
    if since >= until:
        raise Invalid("bad_time", "The search would end before it begins.", field="since")
    since = max(since, until - SPAN_MAX)
    if cursor is not None:
        until = min(until, cursor[0] + timedelta(microseconds=1))
    return _Bounds(since, until, cursor)


def _windows(bounds: _Bounds) -> Iterator[tuple[datetime, datetime]]:
    high = bounds.until
    sizes = iter(WINDOWS)
    size = WINDOWS[-1]
    while high > bounds.since:
        size = next(sizes, WINDOWS[-1])
        low = max(high - size, bounds.since)
        yield low, high
        high = low


def _parse_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    at, _, event_id = cursor.partition(".")
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(at)), uuid.UUID(event_id)
    except (ValueError, OverflowError):
        raise Invalid(
            "bad_cursor", "The cursor is not one this search gave out; start from the first page.", field="cursor"
        ) from None


def _microseconds(at: datetime) -> int:
    delta = at - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds

"""Search the audit log: newest first, within a time bound, in widening windows, with keyset paging.

The table is partitioned by day. A bound lets PostgreSQL plan and read a few partitions instead of all of them, and the
newest window usually fills the page; only a search that finds little reads further back. Text prefixes are ranges on
C-collated columns, because ``LIKE`` with a bound parameter cannot use an index. Row-level security holds besides the
filter by organization, so a mistake here shows nobody else's events.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import OperationalError, connection
from django.db.models import Q, QuerySet, Sum
from psycopg.errors import QueryCanceled

from audit.bounds import EPOCH, LATEST_US, cut, microseconds, moment
from audit.kinds import KINDS
from audit.models import Event
from cloudsignal import ids
from cloudsignal.errors import Invalid, NotFound, Unavailable, quoted
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import User
from orgs.permissions import Permission

PAGE = 50
PAGE_MAX = 500
SPAN_DEFAULT = timedelta(days=30)
SPAN_MAX = timedelta(days=400)
WINDOWS = (timedelta(days=1), timedelta(days=7), timedelta(days=31), SPAN_MAX)
"""How far back the windows reach that are asked in turn."""
AHEAD = timedelta(days=1)
"""How far the newest window reaches into the future: the clocks of edges differ from ours."""
FOLDED_WITHIN = timedelta(minutes=5)
"""Time after its first event within which a repetition lies; edges fold for a minute."""
SEARCH_SECONDS = 10
"""A search that takes longer is given up, with the advice to narrow it."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The filters of an audit search. Empty fields do not filter. Times are aware; ``until`` is exclusive."""

    kind: str = ""
    """One kind, or several separated by commas."""
    client_id: str = ""
    username: str = ""
    """The local part; a full ``local@org`` is cut."""
    topic_prefix: str = ""
    reason: str = ""
    ip: str = ""
    session: str = ""
    action: str = ""
    """``publish``, ``subscribe``, ``receive`` or ``will``."""
    rule: str = ""
    """Id of the deciding rule, or ``none``."""
    since: datetime | None = None
    until: datetime | None = None
    cursor: str = ""
    limit: int = PAGE
    folded: bool = True
    """Show the rows that repeat one within a minute in its line, with the exact sum; else each row as it is stored."""


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
    start: datetime
    """Where the first window is measured from: the end of the search, or now when that is later."""
    cursor: tuple[datetime, uuid.UUID] | None = None


def search(access: Access, query: AuditQuery) -> AuditPage:
    """The newest events of the organization that fit; raises :class:`Invalid` for a malformed filter."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id), _patience():
        return _search(access.org_id, query)


def search_platform(operator: User, query: AuditQuery) -> AuditPage:
    """The newest matching events of the platform's own log. For operators; others get :class:`NotFound`."""
    if not operator.is_operator:
        raise NotFound()
    with platform_scope(), _patience():
        return _search(PLATFORM_ORG, query)


def get_event(access: Access, ts: datetime, event_id: uuid.UUID) -> Event:
    """One event by its key; raises :class:`NotFound`."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        event = get_or_404(Event, access.org_id, "The event", ts=ts, id=event_id)
        _add_repeated([event], Event.objects.filter(org_id=access.org_id, ts__gte=ts, ts__lt=ts + FOLDED_WITHIN))
    return event


def first_of(access: Access, event: Event) -> Event | None:
    """The event that ``event`` repeats; None when it repeats none, or that has not arrived yet."""
    access.require(Permission.AUDIT_READ)
    if event.repeats is None:
        return None
    since = event.ts - FOLDED_WITHIN
    with org_scope(access.org_id):
        return Event.objects.filter(org_id=access.org_id, ts__gte=since, ts__lte=event.ts, id=event.repeats).first()


def count_up_to(access: Access, query: AuditQuery, cap: int = 1_000) -> int:
    """The number of times an event happened, repetitions included, counting no further than ``cap`` ("1,000+")."""
    access.require(Permission.AUDIT_READ)
    bounds = _bounds(query)
    with org_scope(access.org_id), _patience():
        found = _filtered(Event.objects.filter(org_id=access.org_id), query)
        rows = found.filter(ts__gte=bounds.since, ts__lt=bounds.until).order_by()[:cap]
        return min(cap, rows.aggregate(total=Sum("count"))["total"] or 0)


def cursor_of(event: Event) -> str:
    """The place of an event in the order: microseconds since the epoch and the id."""
    return f"{microseconds(event.ts)}.{event.id}"


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


@contextmanager
def _patience() -> Iterator[None]:
    """Limit a search to :data:`SEARCH_SECONDS`; raises :class:`Unavailable` with what to do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{SEARCH_SECONDS}s"])
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        raise Unavailable(
            "search_too_long", "The search took too long. Choose a shorter time range, or add a filter."
        ) from error


def _search(org_id: str, query: AuditQuery) -> AuditPage:
    bounds = _bounds(query)
    found = _filtered(Event.objects.filter(org_id=org_id), query)
    limit = max(1, min(query.limit, PAGE_MAX))
    if bounds.cursor is not None:
        found = found.filter(pk__lt=(org_id, *bounds.cursor))
    # Rows that repeat one have all filters in common with it but these two; then only what the page holds is folded.
    apart = bool(query.session or query.client_id)
    firsts = found
    if query.folded and not apart:
        # What began before the time that was asked for has no line there: its repetitions have lines of their own.
        firsts = found.filter(Q(repeats__isnull=True) | Q(repeats__lt=_first_id(bounds.since)))
    events: list[Event] = []
    for low, high in _windows(bounds):
        rows = firsts.filter(ts__gte=low, ts__lt=high).order_by("-ts", "-id")
        events.extend(rows[: limit + 1 - len(events)])
        if len(events) > limit:
            break
    page = events[:limit]
    newest = cursor_of(page[0]) if page else f"{microseconds(datetime.now(UTC))}.{uuid.UUID(int=0)}"
    next_cursor = cursor_of(page[-1]) if len(events) > limit else None
    if query.folded and apart:
        page = _folded(page)
    elif query.folded and page:
        until = min(_until(query, bounds), page[0].ts + FOLDED_WITHIN)
        _add_repeated(page, Event.objects.filter(org_id=org_id, ts__gte=page[-1].ts, ts__lt=until))
    return AuditPage(tuple(page), next_cursor, newest, bounds.since)


def _until(query: AuditQuery, bounds: _Bounds) -> datetime:
    """The end of the time that was asked for, whatever the cursor."""
    return query.until or max(bounds.until, datetime.now(UTC) + AHEAD)


def _first_id(at: datetime) -> uuid.UUID:
    """The lowest UUIDv7 of the millisecond of ``at``: ids of events begin with their time."""
    return uuid.UUID(int=max(0, microseconds(at) // 1_000) << 80)


def _add_repeated(page: list[Event], found: QuerySet[Event]) -> None:
    """Add to each event of ``page`` the occurrences in the rows that repeat it."""
    sums = dict(
        found.filter(repeats__in=[event.id for event in page]).values_list("repeats").annotate(Sum("count")).order_by()
    )
    for event in page:
        event.repeated = sums.get(event.id, 0)


def _folded(page: list[Event]) -> list[Event]:
    """Newest first, one event for all rows of the page that repeat one another: the oldest of them, with the sum."""
    oldest: dict[uuid.UUID, Event] = {}
    for event in reversed(page):
        first = oldest.setdefault(event.repeats or event.id, event)
        if first is not event:
            first.repeated += event.count
    return [event for event in page if oldest[event.repeats or event.id] is event]


def _filtered(found: QuerySet[Event], query: AuditQuery) -> QuerySet[Event]:
    kinds = [kind.strip() for kind in query.kind.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise Invalid("unknown_kind", f"There is no event kind {quoted(unknown[0][:40])}.", field="kind")
    if kinds:
        found = found.filter(kind__in=kinds) if len(kinds) > 1 else found.filter(kind=kinds[0])
    exact = {
        "client_id": query.client_id,
        "username": _local(query.username),
        "reason": query.reason,
        "session": query.session,
        "action": query.action,
        "rule": query.rule,
    }
    found = found.filter(**{name: _clean(name, value) for name, value in exact.items() if value})
    if query.topic_prefix:
        low, high = prefix_range(_clean("topic_prefix", query.topic_prefix))
        found = found.filter(topic__gte=low, **({"topic__lt": high} if high else {}))
    if query.ip:
        try:
            found = found.filter(ip=str(ipaddress.ip_address(query.ip.strip().partition("%")[0])))
        except ValueError:
            raise Invalid("bad_ip", f"{quoted(query.ip[:45])} is not an IP address.", field="ip") from None
    return found


def _local(username: str) -> str:
    local, _, org = username.rpartition("@")
    return local if local and ids.ORG.match(org) else username


def _clean(name: str, value: str) -> str:
    """A filter value cut and cleaned as ingest would have stored it."""
    if "\0" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise Invalid("bad_text", "The filter contains characters that no event can contain; remove them.", field=name)
    return cut(value)


def _bounds(query: AuditQuery) -> _Bounds:
    cursor = parse_cursor(query.cursor) if query.cursor else None
    now = datetime.now(UTC)
    for name, at in (("since", query.since), ("until", query.until)):
        if at is not None and at.tzinfo is None:
            raise Invalid("bad_time", "Times need a zone, such as 2026-01-31T12:00:00Z.", field=name)
    until = query.until or now + AHEAD
    start = min(until, max(now, query.since or now))
    since = query.since or max(start, EPOCH + SPAN_DEFAULT) - SPAN_DEFAULT
    if since >= until:
        raise Invalid("bad_time", "The end of the time range is before its beginning.", field="since")
    if start - since > SPAN_MAX:
        since = start - SPAN_MAX
    if cursor is not None:
        until = min(until, cursor[0] + timedelta(microseconds=1))
        start = min(start, until)
    return _Bounds(since, until, start, cursor)


def _windows(bounds: _Bounds) -> Iterator[tuple[datetime, datetime]]:
    high = bounds.until
    for reach in WINDOWS:
        if high <= bounds.since:
            return
        low = bounds.since if bounds.start - bounds.since <= reach else bounds.start - reach
        yield low, high
        high = low


_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})\.([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.ASCII)


def parse_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    """The key of the event a cursor names; raises :class:`Invalid` for one that no search gave out."""
    match = _CURSOR.fullmatch(cursor)
    if match is None or int(match[1]) > LATEST_US:
        raise Invalid(
            "bad_cursor", "The cursor is not valid for this search; start from the first page.", field="cursor"
        )
    return moment(int(match[1])), uuid.UUID(match[2])

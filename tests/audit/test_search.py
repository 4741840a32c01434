"""Searching: the right events, in order, page by page, of the own organization only."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from audit import access as audit
from audit.access import AuditQuery, cursor_of, get_event, prefix_range, search
from audit.models import Event
from cloudsignal.errors import DomainError, Forbidden, Invalid, NotFound, Unavailable
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.audit import AuditEvent
from orgs.access.grants import Access
from orgs.models import Organization
from orgs.permissions import Role
from tests.support.audit_events import access_to, event, events, keep, make_org, now, operator

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def pages(access: Access, query: AuditQuery) -> Iterator[tuple[Event, ...]]:
    """Every page from the newest on."""
    while True:
        page = search(access, query)
        yield page.events
        if page.next_cursor is None:
            return
        query = replace(query, cursor=page.next_cursor)


def test_events_come_newest_first(access: Access, org: Organization) -> None:
    keep(events(org, 5, before=now(), apart=timedelta(hours=7)))
    found = search(access, AuditQuery()).events
    assert len(found) == 5
    assert [row.pk for row in found] == sorted((row.pk for row in found), reverse=True)


def test_pages_hold_every_event_once(access: Access, org: Organization) -> None:
    """Some of the same microsecond, some days apart: neither a page's end nor a window's may lose or repeat one."""
    sent = events(org, 60, before=now(), apart=timedelta(hours=11))
    together = now() - timedelta(hours=30)
    sent += [event(org, at=together) for _ in range(25)]
    keep(sent)
    for limit in (1, 7, 25, 200):
        found = [str(row.id) for page in pages(access, AuditQuery(limit=limit)) for row in page]
        assert len(found) == len(set(found))
        assert set(found) == {one.id for one in sent}


def test_a_page_does_not_shift_when_events_arrive(access: Access, org: Organization) -> None:
    keep(events(org, 20, before=now(), apart=timedelta(minutes=1)))
    first = search(access, AuditQuery(limit=10))
    keep(events(org, 10, before=now(), apart=timedelta(milliseconds=1)))
    second = search(access, AuditQuery(limit=10, cursor=first.next_cursor or ""))
    assert not {row.id for row in first.events} & {row.id for row in second.events}
    assert len(second.events) == 10


FILTERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kind": ({"kind": "connect"}, {"kind": "connect"}),
    "kinds in one text": ({"kind": "connect, disconnect"}, {"kind": "disconnect"}),
    "client id": ({"client_id": "c-1"}, {"client_id": "c-1"}),
    "username": ({"username": "sensor"}, {"username": "sensor"}),
    "username with its organization": ({"username": "sensor@org_aaaaaaaaaaaa"}, {"username": "sensor"}),
    "username with another at sign": ({"username": "a@b"}, {"username": "a@b"}),
    "username that has no name": ({"username": "@org_aaaaaaaaaaaa"}, {"username": "@org_aaaaaaaaaaaa"}),
    "topic prefix": ({"topic_prefix": "plant/"}, {"topic": "plant/a"}),
    "topic prefix that is all of it": ({"topic_prefix": "plant/a"}, {"topic": "plant/a"}),
    "topic prefix with wildcards": ({"topic_prefix": "100%_/"}, {"topic": "100%_/x"}),
    "topic prefix beyond what is kept": ({"topic_prefix": "ä" * 1_500}, {"topic": "ä" * 1_600}),
    "reason": ({"reason": "bad_secret"}, {"reason": "bad_secret"}),
    "ip": ({"ip": "192.0.2.7"}, {"ip": "192.0.2.7"}),
    "ip in other words": ({"ip": " 2001:DB8:0::7 "}, {"ip": "2001:db8::7"}),
    "session": ({"session": "s-1"}, {"session": "s-1"}),
    "action": ({"action": "subscribe"}, {"action": "subscribe"}),
    "rule": ({"rule": "none"}, {"rule": "none"}),
    "two things": ({"reason": "r", "client_id": "c"}, {"reason": "r", "client_id": "c"}),
}


@pytest.mark.parametrize(("query", "values"), FILTERS.values(), ids=FILTERS)
def test_a_filter_finds_what_fits_and_nothing_else(
    access: Access, org: Organization, query: dict[str, Any], values: dict[str, Any]
) -> None:
    wanted = [event(org, at=now() - DAY * days, **values) for days in (0, 3, 20)]
    others = [event(org, at=now() - DAY * days, topic="100XY/plant", reason="x", client_id="c") for days in (0, 3, 20)]
    keep([*wanted, *others])
    found = search(access, AuditQuery(**query)).events
    assert [str(row.id) for row in found] == [one.id for one in wanted]


def test_a_search_stays_within_its_time(access: Access, org: Organization) -> None:
    base = now() - timedelta(hours=1)
    keep(events(org, 10, before=base, apart=timedelta(minutes=1)))
    found = search(access, AuditQuery(since=base - timedelta(minutes=5), until=base - timedelta(minutes=2))).events
    assert [row.ts for row in found] == [base - timedelta(minutes=minutes) for minutes in (3, 4, 5)]


def test_without_a_time_it_reaches_back_thirty_days_and_with_one_400(access: Access, org: Organization) -> None:
    keep([event(org, at=now() - DAY * days) for days in (1, 29, 31, 399, 402)])
    assert len(search(access, AuditQuery()).events) == 2
    assert len(search(access, AuditQuery(since=now() - DAY * 500)).events) == 4


def test_an_edge_whose_clock_is_ahead_is_heard(access: Access, org: Organization) -> None:
    keep([event(org, at=now() + timedelta(hours=5))])
    assert len(search(access, AuditQuery()).events) == 1


def test_a_full_newest_window_costs_one_query_and_one_for_the_sums(
    access: Access, org: Organization, django_assert_num_queries: Any
) -> None:
    keep(events(org, 60, before=now(), apart=timedelta(minutes=1)))
    with django_assert_num_queries(QUERIES_OF_A_SCOPE + 2):
        search(access, AuditQuery(limit=50))


def test_an_empty_search_costs_three(access: Access, org: Organization, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(QUERIES_OF_A_SCOPE + 3):
        search(access, AuditQuery(kind="critical"))


QUERIES_OF_A_SCOPE = 5
"""Inside a test's transaction: savepoint, settings, time limit, settings restored, savepoint released."""


# --- who may see what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_only_roles_with_the_permission_read_the_audit(org: Organization, role: Role) -> None:
    keep([event(org)])
    access = access_to(org, role)
    calls = [
        lambda: search(access, AuditQuery()).events,
        lambda: [audit.count_up_to(access, AuditQuery())],
        lambda: [get_event(access, event_of(org).ts, event_of(org).id)],
    ]
    for call in calls:
        if role in {Role.OWNER, Role.ADMIN, Role.AUDITOR}:
            assert call()
        else:
            with pytest.raises(Forbidden):
                call()


def test_another_tenants_events_are_invisible(access: Access, org: Organization) -> None:
    other = make_org("Other")
    keep([*events(other, 30, before=now(), apart=timedelta(hours=5), client_id="c", topic="t"), event("")])
    found = search(access, AuditQuery(client_id="c"))
    assert found.events == ()
    theirs = event_of(other)
    assert audit.count_up_to(access, AuditQuery()) == 0
    with pytest.raises(NotFound):
        get_event(access, theirs.ts, theirs.id)
    # Their cursor is a place in time and no more.
    mine = event(org, at=now() - DAY)
    keep([mine])
    assert [str(row.id) for row in search(access, AuditQuery(cursor=cursor_of(theirs))).events] == [mine.id]


def test_row_level_security_holds_without_the_filter(access: Access, org: Organization) -> None:
    keep([event(make_org("Other"))])
    with org_scope(org.pk):
        assert not Event.objects.exists()


def test_the_platforms_log_is_for_operators(org: Organization) -> None:
    keep([event(org), event("", kind="tls_failed", ip="192.0.2.9")])
    staff = operator()
    assert [row.kind for row in audit.search_platform(staff, AuditQuery()).events] == ["tls_failed"]
    assert audit.search_platform(staff, AuditQuery(ip="192.0.2.8")).events == ()
    staff.is_operator = False
    with pytest.raises(NotFound):
        audit.search_platform(staff, AuditQuery())


def event_of(org: Organization) -> Event:
    with org_scope(org.pk):
        found = Event.objects.order_by("-ts").first()
    assert found
    return found


# --- bad input ------------------------------------------------------------------------------------------------------

HERE = f"1700000000000000.{uuid.UUID(int=5)}"

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "nonsense"}, "kind"),
    "one unknown of several": ({"kind": "connect,x"}, "kind"),
    "no IP": ({"ip": "host.example"}, "ip"),
    "network": ({"ip": "10.0.0.0/8"}, "ip"),
    "NUL": ({"topic_prefix": "a\0"}, "topic_prefix"),
    "surrogate": ({"client_id": "\ud800"}, "client_id"),
    "NUL in the rule": ({"rule": "\0"}, "rule"),
    "naive time": ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 - the mistake this is about
    "naive end": ({"until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001
    "ends before it begins": (
        {"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)},
        "since",
    ),
    "cursor: text": ({"cursor": "x"}, "cursor"),
    "cursor: no id": ({"cursor": "1700000000000000."}, "cursor"),
    "cursor: cut": ({"cursor": HERE[:-1]}, "cursor"),
    "cursor: longer": ({"cursor": HERE + "0"}, "cursor"),
    "cursor: newline": ({"cursor": HERE + "\n"}, "cursor"),
    "cursor: negative": ({"cursor": f"-{HERE}"}, "cursor"),
    "cursor: leading zero": ({"cursor": f"0{HERE}"}, "cursor"),
    "cursor: other digits": ({"cursor": HERE.replace("7", "\u0667", 1)}, "cursor"),
    "cursor: underscore": ({"cursor": HERE.replace("17", "1_7")}, "cursor"),
    "cursor: beyond time": ({"cursor": f"{10**17 * 9}.{uuid.UUID(int=5)}"}, "cursor"),
    "cursor: endless": ({"cursor": f"{'9' * 5_000}.{uuid.UUID(int=5)}"}, "cursor"),
    "cursor: another form of id": ({"cursor": f"1.{{{uuid.UUID(int=5)}}}"}, "cursor"),
    "cursor: SQL": ({"cursor": "1'; DROP TABLE audit_event; --"}, "cursor"),
    "cursor: base64": ({"cursor": base64.urlsafe_b64encode(HERE.encode()).decode()}, "cursor"),
}


@pytest.mark.parametrize(("query", "field"), BAD.values(), ids=BAD)
def test_bad_input_is_named(access: Access, query: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        search(access, AuditQuery(**query))
    assert refused.value.field == field


@given(
    cursor=st.one_of(
        st.text(max_size=80),
        st.builds(lambda us, i: f"{us}.{uuid.UUID(int=i)}", st.integers(), st.integers(0, 2**128 - 1)),
    )
)
def test_any_cursor_is_either_good_or_invalid(cursor: str) -> None:
    try:
        at, _ = audit.parse_cursor(cursor)
    except Invalid:
        return
    assert audit._bounds(AuditQuery(cursor=cursor)).until <= at + timedelta(microseconds=1)


@pytest.mark.parametrize("us", [0, 1, 253_402_128_000_000_000])
def test_the_ends_of_time_are_good_cursors(access: Access, org: Organization, us: int) -> None:
    cursor = f"{us}.{uuid.UUID(int=2**128 - 1)}"
    keep([event(org)])
    assert len(search(access, AuditQuery(cursor=cursor)).events) == (1 if us > 1 else 0)


@pytest.mark.parametrize(("limit", "got"), [(-5, 1), (0, 1), (1, 1), (10, 10), (10**9, 500)])
def test_a_limit_is_brought_into_bounds(access: Access, org: Organization, limit: int, got: int) -> None:
    keep(events(org, 520, before=now(), apart=timedelta(seconds=1)))
    assert len(search(access, AuditQuery(limit=limit)).events) == got


def test_a_search_that_takes_too_long_says_what_to_do(
    access: Access, org: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SEARCH_SECONDS", 0.05)

    def slow(*_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")

    monkeypatch.setattr(audit, "_search", slow)
    with pytest.raises(Unavailable, match="shorter time") as refused:
        search(access, AuditQuery())
    assert isinstance(refused.value, DomainError)


# --- prefixes -------------------------------------------------------------------------------------------------------


@given(prefix=st.text(max_size=4), text=st.text(max_size=6))
def test_a_prefix_is_exactly_its_range(prefix: str, text: str) -> None:
    low, high = prefix_range(prefix)
    within = low.encode() <= text.encode() and (high is None or text.encode() < high.encode())
    assert within == text.startswith(prefix)


@pytest.mark.parametrize("prefix", ["\ud7ff", "\U0010ffff", "a\U0010ffff", "\U0010ffff\U0010ffff", "\u007f", "a/"])
def test_the_end_of_a_range_is_text(prefix: str) -> None:
    _, high = prefix_range(prefix)
    assert high is None or high.encode() > prefix.encode()


# --- repetitions ----------------------------------------------------------------------------------------------------


def repeated(first: AuditEvent, counts: dict[int, int], **more: str) -> list[AuditEvent]:
    """Repetitions of ``first``: seconds after it -> how many."""
    at = datetime.fromtimestamp(first.ts / 1_000_000, UTC)
    same = {name: getattr(first, name) for name in ("kind", "username", "client_id", "session", "topic")} | more
    return [
        event(first.org, at=at + timedelta(seconds=seconds), count=count, repeats=first.id, **same)
        for seconds, count in counts.items()
    ]


def test_a_fold_is_one_line_with_the_exact_sum_and_its_rows_stand_behind_it(access: Access, org: Organization) -> None:
    at = now() - timedelta(minutes=10)
    first, other = event(org, at=at, topic="a"), event(org, at=at + timedelta(seconds=9), topic="b")
    rows = repeated(first, {1: 40, 2: 41, 59: 2})
    keep([first, other, *rows])
    found = search(access, AuditQuery()).events
    assert [(str(row.id), row.total) for row in found] == [(other.id, 1), (first.id, 84)]
    unfolded = search(access, AuditQuery(folded=False)).events
    assert sorted(row.total for row in unfolded) == [1, 1, 2, 40, 41]
    assert audit.count_up_to(access, AuditQuery()) == 85
    assert audit.count_up_to(access, AuditQuery(), cap=50) == 50
    assert get_event(access, found[1].ts, found[1].id).total == 84
    last = get_event(access, unfolded[0].ts, unfolded[0].id)
    assert (last.total, audit.first_of(access, last)) == (2, found[1])


def test_the_sum_is_of_the_time_that_was_asked_for_whatever_its_ends_cut_off(access: Access, org: Organization) -> None:
    """A fold whose first event lies before the window has a line of its own."""
    at = now() - timedelta(minutes=10)
    first = event(org, at=at)
    keep([first, *repeated(first, {10: 2, 20: 3, 30: 4, 40: 5})])
    for begin, end, sums in (
        (0, 60, [15]), (0, 25, [6]), (5, 60, [5, 4, 3, 2]), (15, 35, [4, 3]), (0, 5, [1]), (45, 60, []),
    ):  # fmt: skip
        query = AuditQuery(since=at + timedelta(seconds=begin - 0.5), until=at + timedelta(seconds=end))
        assert [row.total for row in search(access, query).events] == sums
        assert audit.count_up_to(access, query) == sum(sums)


@pytest.mark.parametrize("asked", [{"client_id": "c2"}, {"session": "s2"}])
def test_a_search_for_one_client_of_a_storm_finds_it_though_another_began_it(
    access: Access, org: Organization, asked: dict[str, str]
) -> None:
    """A fold follows the username and the address: its rows may be of other sessions and client IDs."""
    first = event(org, at=now() - timedelta(minutes=10), client_id="c1", session="s1")
    mine = repeated(first, {1: 2, 2: 3}, client_id="c2", session="s2")
    keep([first, *mine, *repeated(first, {3: 40})])
    [found] = search(access, AuditQuery(**asked)).events  # type: ignore[arg-type]
    assert (str(found.id), found.total) == (mine[0].id, 5)


def test_pages_of_folds_hold_every_denial_once(access: Access, org: Organization) -> None:
    at = now() - timedelta(hours=1)
    for number in range(30):
        first = event(org, at=at + timedelta(seconds=number), topic=f"t/{number}")
        keep([first, *repeated(first, {7: 2, 8: 3})])
    for query in (AuditQuery(limit=7), AuditQuery(limit=7, kind="acl_denied"), AuditQuery(limit=7, folded=False)):
        total, cursor = 0, ""
        while True:
            found = search(access, replace(query, cursor=cursor))
            total += sum(row.total for row in found.events)
            if not (cursor := found.next_cursor or ""):
                break
        assert total == 180


def test_a_count_goes_no_further_than_its_cap(access: Access, org: Organization) -> None:
    keep(events(org, 30, before=now(), apart=timedelta(seconds=1)))
    assert audit.count_up_to(access, AuditQuery()) == 30
    assert audit.count_up_to(access, AuditQuery(), cap=20) == 20

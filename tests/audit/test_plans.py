"""How PostgreSQL answers a search of sealed days: by index, and in the partitions of the window only."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit import access as audit
from audit.access import AuditQuery
from audit.bounds import microseconds
from audit.services import partitions
from cloudsignal.tenancy.scopes import org_scope
from orgs.models import Organization
from tests.support.audit_events import access_to, event, keep, make_org, now, operator
from tests.support.databases import Databases

pytestmark = pytest.mark.django_db(transaction=True)

DAYS = (3, 4)
"""Days ago that hold rows, and are sealed."""


@dataclass
class Node:
    """One node of a plan that reads a table or an index."""

    kind: str
    relation: str
    index: str
    condition: str


@pytest.fixture
def filled(databases: Databases, transactional_db: None) -> Organization:
    """20 organizations with 500 events on each of the days, sealed and analysed; returns one of them."""
    chance = random.Random(5)
    orgs = [make_org(f"org {number}") for number in range(20)]
    partitions.ensure((now() - timedelta(days=day)).date() - timedelta(days=more) for day in DAYS for more in (0, 1))
    for day in DAYS:
        keep(
            event(
                org,
                at=now() - timedelta(days=day, seconds=chance.randrange(3_600)),
                kind=chance.choice(["connect", "disconnect", "subscribe", "acl_denied"]),
                client_id=f"c-{chance.randrange(200)}",
                username=f"u-{chance.randrange(100)}",
                ip=f"192.0.2.{chance.randrange(250)}",
                reason=chance.choice(["", "", "", "bad_secret", "expired"]),
                topic=f"plant/{chance.randrange(100):03}/state",
            )
            for org in orgs
            for _ in range(500)
        )
    partitions.seal_past()
    with databases.admin() as admin:
        admin.execute("ANALYZE audit_event")
    return orgs[7]


def plan(org: Organization, call: Callable[[], object]) -> list[Node]:
    """The nodes of the plans of every query of the table that ``call`` makes."""
    with CaptureQueriesContext(
        connection,
    ) as caught:
        call()
    found: list[Node] = []
    with org_scope(org.pk), connection.cursor() as cursor:
        for query in caught:
            if "audit_event" in query["sql"]:
                cursor.execute("EXPLAIN (FORMAT JSON) " + query["sql"])
                found += nodes(plan_of(cursor.fetchone()[0]))
    assert found
    return found


def plan_of(answer: Any) -> dict[str, Any]:
    parsed = json.loads(answer) if isinstance(answer, str) else answer
    return parsed[0]["Plan"]  # type: ignore[no-any-return]


def nodes(tree: dict[str, Any]) -> Iterator[Node]:
    if "Relation Name" in tree or "Index Name" in tree:
        yield Node(
            tree["Node Type"], tree.get("Relation Name", ""), tree.get("Index Name", ""), tree.get("Index Cond", "")
        )
    for child in tree.get("Plans", ()):
        yield from nodes(child)


QUERIES = {
    "nothing": ({}, ""),
    "kind": ({"kind": "critical"}, "_kind"),
    "client id": ({"client_id": "c-7"}, "_client_id"),
    "username": ({"username": "u-7"}, "_username"),
    "ip": ({"ip": "192.0.2.7"}, "_ip"),
    "reason": ({"reason": "revoked"}, "_reason"),
    "topic prefix": ({"topic_prefix": "plant/007/"}, "_topic"),
    "action": ({"action": "publish"}, ""),
    "rule": ({"rule": "none"}, ""),
}


def test_no_sealed_day_is_read_from_end_to_end(filled: Organization) -> None:
    access = access_to(filled)
    for name, (query, index) in QUERIES.items():
        asked = AuditQuery(**query, since=now() - timedelta(days=6), until=now() - timedelta(days=2))  # type: ignore[arg-type]
        read = sealed(plan(filled, lambda asked=asked: audit.search(access, asked)))  # type: ignore[misc]
        assert read, name
        assert not [node for node in read if node.kind == "Seq Scan"], name
        assert all(filled.pk in node.condition for node in read if node.index), name
        assert any(node.index.endswith(index) for node in read), name


def sealed(read: list[Node]) -> list[Node]:
    days = [f"{now() - timedelta(days=day):%Y%m%d}" for day in DAYS]
    return [node for node in read if any(day in node.relation + node.index for day in days)]


def test_the_newest_window_reads_three_days_at_most(filled: Organization) -> None:
    partitions.ensure_ahead()
    access = access_to(filled)
    keep(event(filled) for _ in range(60))
    read = plan(filled, lambda: audit.search(access, AuditQuery(limit=50)))
    days = {node.relation for node in read if node.relation} - {"audit_event_default"}
    assert len(days) <= 3
    assert f"audit_event_{now():%Y%m%d}" in days


def test_a_further_page_starts_at_its_cursor(filled: Organization) -> None:
    """The cursor is part of the index condition: page 100 costs what page 1 does."""
    access = access_to(filled)
    since = now() - timedelta(days=6)
    first = audit.search(access, AuditQuery(since=since, limit=100))
    assert first.next_cursor
    read = plan(
        filled, lambda: audit.search(access, AuditQuery(since=since, limit=100, cursor=first.next_cursor or ""))
    )
    conditions = [node.condition for node in read if node.index and "repeats" not in node.index]
    assert conditions
    assert all("ROW((org_id)::text, ts, id) <" in condition for condition in conditions)


def test_a_further_page_looks_for_repetitions_near_its_own_events_only(filled: Organization) -> None:
    """And not in every day between the page and now."""
    partitions.ensure_ahead()
    access = access_to(filled)
    cursor = f"{microseconds(now() - timedelta(days=DAYS[1]))}.{uuid.UUID(int=0)}"
    read = plan(filled, lambda: audit.search(access, AuditQuery(cursor=cursor)))
    assert [node for node in read if "repeats" in node.index]
    assert not [node for node in read if f"{now():%Y%m%d}" in node.relation]


def test_the_platforms_log_is_not_read_from_end_to_end(filled: Organization) -> None:
    staff = operator()
    bounds = {"since": now() - timedelta(days=6), "until": now() - timedelta(days=2)}
    read = sealed(plan(filled, lambda: audit.search_platform(staff, AuditQuery(**bounds))))  # type: ignore[arg-type]
    assert read
    assert not [node for node in read if node.kind == "Seq Scan"]

"""Sessions of a node that never comes back end, each once, whatever arrives late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from audit.ingest.lost import LOOK_SECONDS, Heard, LostNodes
from audit.ingest.rows import row_of
from audit.ingest.store import store
from audit.models import Event, Journal, OpenSession
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.audit import AuditEvent, uuid7
from orgs.models import Organization
from tests.support.audit_events import INCARNATION, NODE, event, make_org, now

pytestmark = pytest.mark.django_db

SEEN = now() - timedelta(minutes=20)
GONE = {NODE: Heard(INCARNATION, SEEN, SEEN - timedelta(hours=1))}


class Clock:
    """Seconds that pass when told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def org() -> Organization:
    return make_org()


def arrive(*events: AuditEvent, incarnation: str = INCARNATION) -> int:
    return store([row_of(one, node=NODE, incarnation=incarnation) for one in events])


def begin(org: Organization, count: int, *, at: datetime = SEEN - timedelta(minutes=1)) -> list[AuditEvent]:
    return [event(org, at=at, kind="connect", session=f"s{n}", client_id=f"c{n}") for n in range(count)]


def end(begun: AuditEvent, reason: str = "clean") -> AuditEvent:
    kind = "disconnect" if reason == "clean" else "session_closed"
    return replace(begun, id=uuid7(), ts=begun.ts + 1_000_000, kind=kind, reason=reason)


def ask(heard: Mapping[str, Heard] | None = GONE, *, drained: bool = True) -> int:
    """What a look finds; ingest has been able to read heartbeats for long enough unless ``heard`` is None."""
    clock = Clock()
    lost = LostNodes(after=0, clock=clock)
    clock.seconds = LOOK_SECONDS

    def told(*, steady: float) -> Mapping[str, Heard] | None:
        return heard

    return lost.check(told, drained=lambda: drained)


def counts() -> tuple[Counter[str], Counter[str]]:
    """Beginnings and ends, by session."""
    with platform_scope():
        rows = list(Event.objects.exclude(session="").values_list("kind", "session"))
    begun = Counter(session for kind, session in rows if kind == "connect")
    return begun, Counter(session for kind, session in rows if kind in {"disconnect", "session_closed"})


def test_what_a_node_that_never_came_back_held_ends_when_it_was_last_heard_of(org: Organization) -> None:
    begun = begin(org, 5)
    arrive(*begun, end(begun[0]))
    assert ask() == 4
    assert ask() == 0
    started, ended = counts()
    assert started == ended
    with platform_scope():
        row = Event.objects.get(session="s1", kind="session_closed")
    assert (row.reason, row.org_id, row.client_id, row.node, row.username) == (
        "node_lost", org.id, "c1", NODE, begun[1].username,
    )  # fmt: skip
    assert row.ts == SEEN
    assert row.details == {"seconds": 60.0}


def test_a_node_that_lives_or_may_come_back_keeps_its_sessions(org: Organization) -> None:
    arrive(*begin(org, 2))
    later = now() + timedelta(hours=1)
    assert ask(None) == 0, "heartbeats could not be read all the time"
    assert ask(drained=False) == 0, "its ends may be on the stream"
    assert ask({NODE: Heard(INCARNATION, later, SEEN)}) == 0, "it lives"
    assert ask({NODE: Heard("next", later, later)}) == 0, "its successor has only just begun to end them"
    assert ask({NODE: Heard("next", later, SEEN)}) == 2, "its successor has not ended them: another disk"


def test_an_end_that_comes_late_is_no_second_one_and_no_gap(org: Organization) -> None:
    begun = begin(org, 3)
    arrive(*begun)
    assert ask() == 3
    assert arrive(end(begun[0]), end(begun[1], "node_lost"), replace(begun[2], kind="subscribe", id=uuid7())) == 1
    started, ended = counts()
    assert started == ended
    with platform_scope():
        assert Journal.objects.get(node=NODE, incarnation=INCARNATION).stored == 6, "all that it recorded has arrived"


def test_an_end_that_is_stored_before_its_beginning_leaves_nothing_open(org: Organization) -> None:
    """Two ingest processes may share the entries of one node."""
    begun = begin(org, 2)
    over = end(begun[0])
    arrive(over)
    arrive(*begun)
    arrive(*begun, over)
    with platform_scope():
        assert list(OpenSession.objects.values_list("session", "ended")) == [("s1", False)]
    assert ask() == 1
    started, ended = counts()
    assert started == ended


def test_what_has_ended_is_remembered_from_then_on_and_forgotten_in_time(org: Organization) -> None:
    arrive(*begin(org, 1, at=now() - timedelta(days=40)))
    assert ask() == 1
    ask()
    with platform_scope():
        assert OpenSession.objects.filter(lost=True).update(ts=now() - timedelta(days=32)) == 1
    ask()
    with platform_scope():
        assert not OpenSession.objects.exists()

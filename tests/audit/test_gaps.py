"""A node that recorded more than has arrived: told once, and only when it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from audit.ingest.gaps import Gaps
from audit.ingest.rows import row_of
from audit.ingest.store import store
from audit.models import Event, Journal
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.report import Heartbeat
from tests.support.audit_events import INCARNATION, NODE, event, now

pytestmark = pytest.mark.django_db

BEGAN = now() - timedelta(minutes=20)
AT = now() - timedelta(minutes=10)


class Clock:
    """Seconds that pass when told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gaps(clock: Clock) -> Gaps:
    return Gaps(settle=60, clock=clock)


def beat(sequence: int, *, incarnation: str = INCARNATION, minutes: float = 0) -> Heartbeat:
    at = (AT + timedelta(minutes=minutes)).timestamp()
    return Heartbeat(NODE, incarnation, sequence, BEGAN.timestamp(), at, "", 0)


def arrive(count: int, *, minutes: float = -1, incarnation: str = INCARNATION) -> list[AuditEvent]:
    sent = [event(at=AT + timedelta(minutes=minutes), kind="connect") for _ in range(count)]
    store([row_of(one, node=NODE, incarnation=incarnation) for one in sent])
    return sent


def told() -> list[int]:
    with platform_scope():
        return [(row.details or {})["missing"] for row in Event.objects.filter(kind="audit.gap", org_id="platform")]


def check(
    gaps: Gaps, clock: Clock, beats: Sequence[Heartbeat] = (), *, seconds: float = 0, drained: bool = True
) -> int:
    clock.seconds += seconds
    return gaps.check(beats, drained=lambda: drained)


def test_events_that_never_arrive_are_told_once(gaps: Gaps, clock: Clock) -> None:
    arrive(7)
    check(gaps, clock, [beat(10)])
    assert check(gaps, clock, seconds=61) == 0, "it waits to see whether they are still coming"
    assert check(gaps, clock, seconds=61) == 1
    assert told() == [3]
    check(gaps, clock, [beat(10, minutes=1)])
    check(gaps, clock, seconds=61)
    check(gaps, clock, seconds=61)
    assert told() == [3]


def test_a_second_gap_is_told_besides(gaps: Gaps, clock: Clock) -> None:
    arrive(7)
    for sequence, minutes in ((10, 0.0), (15, 2.0)):
        check(gaps, clock, [beat(sequence, minutes=minutes)])
        check(gaps, clock, seconds=61)
        check(gaps, clock, seconds=61)
    assert sorted(told()) == [3, 5]
    assert Journal.objects.get().lost == 8


def test_when_all_has_arrived_nothing_is_told(gaps: Gaps, clock: Clock) -> None:
    arrive(10)
    check(gaps, clock, [beat(10)])
    assert [check(gaps, clock, seconds=61) for _ in range(3)] == [0, 0, 0]
    assert told() == []


def test_what_happened_after_the_heartbeat_does_not_hide_a_gap(gaps: Gaps, clock: Clock) -> None:
    arrive(7)
    check(gaps, clock, [beat(10)])
    arrive(500, minutes=0.5)
    check(gaps, clock, seconds=61)
    arrive(500, minutes=0.7)
    check(gaps, clock, seconds=61)
    assert told() == [3]


def test_events_that_arrive_late_are_no_gap(gaps: Gaps, clock: Clock) -> None:
    """A node whose journal waited for Redis catches up for longer than a minute."""
    check(gaps, clock, [beat(10)])
    for _ in range(10):
        check(gaps, clock, seconds=61)
        arrive(1)
    check(gaps, clock, seconds=61)
    assert told() == []


def test_events_that_come_twice_do_not_hide_a_gap(gaps: Gaps, clock: Clock) -> None:
    sent = arrive(7)
    store([row_of(replace(one, count=2), node=NODE, incarnation=INCARNATION) for one in sent])
    check(gaps, clock, [beat(10)])
    check(gaps, clock, seconds=61)
    check(gaps, clock, seconds=61)
    assert told() == [3]


def test_while_entries_wait_in_the_stream_nothing_is_told(gaps: Gaps, clock: Clock) -> None:
    check(gaps, clock, [beat(10)])
    for _ in range(5):
        check(gaps, clock, seconds=61, drained=False)
    assert told() == []


def test_a_new_run_begins_anew(gaps: Gaps, clock: Clock) -> None:
    """The killed one's last events may be on its disk still; the new one ships them under the old name."""
    arrive(7)
    check(gaps, clock, [beat(10)])
    check(gaps, clock, [beat(2, incarnation="another", minutes=1)], seconds=30)
    arrive(2, minutes=0.5, incarnation="another")
    check(gaps, clock, seconds=61)
    check(gaps, clock, seconds=61)
    assert told() == []


def test_a_node_at_the_end_of_time_holds_nobody_up(gaps: Gaps, clock: Clock) -> None:
    check(gaps, clock, [replace(beat(3), at=253_402_300_798.0)])
    assert sum(check(gaps, clock, seconds=61) for _ in range(3)) == 1


def test_two_processes_tell_a_gap_once(clock: Clock) -> None:
    both = [Gaps(settle=60, clock=clock), Gaps(settle=60, clock=clock)]
    arrive(7)
    for gaps in both:
        gaps.check([beat(10)], drained=lambda: True)
    for _ in range(2):
        clock.seconds += 61
        for gaps in both:
            gaps.check([], drained=lambda: True)
    assert told() == [3]
    assert Journal.objects.get().lost == 3

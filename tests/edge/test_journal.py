"""The audit journal: what was flushed survives anything, counts stay exact, and nothing grows without bound."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from audit import bounds as module_bounds
from cloudsignal.edge.audit import budget
from cloudsignal.edge.audit import journal as module
from cloudsignal.edge.audit.events import make_event
from cloudsignal.edge.audit.framing import frame
from cloudsignal.edge.audit.journal import SEGMENT_BYTES, Journal, SegmentReader, segments
from cloudsignal.wire.audit import AuditEvent
from tests.support.journal import read_all


def test_a_flushed_event_is_in_the_file_before_anything_else_happens(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    event = make_event("connect", org="o")
    journal.record(event)
    journal.flush()
    assert read_all(tmp_path) == {event.id: event}
    assert journal.sequence == 1


def test_an_event_that_was_not_flushed_is_not_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    journal.record(make_event("connect"))
    assert read_all(tmp_path) == {}


class Clock:
    """Stands in for the time of the journal's folds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def denied(journal: Journal, topic: str = "a", **values: str) -> None:
    """Deny as a session does, and answer."""
    if not journal.again(topic):
        journal.fold(topic, make_event("acl_denied", topic=topic, **values))
    journal.flush()


def told(events: Iterable[AuditEvent]) -> list[tuple[str, int, bool]]:
    return sorted((event.topic, event.count, bool(event.repeats)) for event in events)


def test_the_first_of_equal_denials_is_an_event_at_once_and_each_second_of_repetitions_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(40):
        clock.now = number / 16  # 1 and 15 in the first second, 16 in the next, 8 in the third
        denied(journal)
    denied(journal, "b")
    found = read_all(tmp_path)
    assert told(found.values()) == [("a", 1, False), ("a", 7, True), ("a", 16, True), ("a", 16, True), ("b", 1, False)]
    [first] = [event.id for event in found.values() if event.topic == "a" and not event.repeats]
    assert {event.repeats for event in found.values()} == {"", first}
    assert journal.sequence == 5


def test_no_event_is_sent_before_its_count_is_final_and_none_changes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored can never change: an event that went out with 3 must not come again with 5."""
    clock = Clock(monkeypatch)
    journal = Journal(tmp_path, node="n", incarnation="i")
    ((number, path), *_) = segments(tmp_path)
    reader = SegmentReader(number, path)
    sent: dict[str, int] = {}
    for step in range(400):
        clock.now = step / 50
        denied(journal, f"t/{step % 3}")
        events, reader.offset = reader.read(limit=2, ended=False)
        assert not sent.keys() & events.keys()
        sent |= {event.id: event.count for event in events.values()}
    assert sum(sent.values()) > 300
    journal.settle()
    while found := reader.read(limit=2, ended=False):
        events, reader.offset = found
        if not events:
            break
        assert not sent.keys() & events.keys()
        sent |= {event.id: event.count for event in events.values()}
    assert sum(sent.values()) == 400


def test_what_a_killed_process_counted_is_read_from_its_segment_to_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    killed = Journal(tmp_path, node="n", incarnation="i")
    for _ in range(7):
        denied(killed)
    ((number, path), *_) = segments(tmp_path)
    alive, _ = SegmentReader(number, path).read(limit=100, ended=False)
    assert told(alive.values()) == [("a", 1, False)], "while it lives, more may come"
    Journal(tmp_path, node="n", incarnation="j")
    for _ in range(2):
        assert told(read_all(tmp_path).values()) == [("a", 1, False), ("a", 6, True)], "the same however often"


def test_counts_of_a_segment_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for _ in range(3):
        denied(journal)
    ((number, path), *_) = segments(tmp_path)
    journal.rotate()
    reader = SegmentReader(number, path)
    events, reader.offset = reader.read(limit=100, ended=True)
    assert told(events.values()) == [("a", 1, False), ("a", 2, True)]
    journal.delete(number)
    for _ in range(2):
        denied(journal)
    assert told(read_all(tmp_path).values()) == [("a", 2, True)]


def test_a_repetition_that_is_not_equal_to_the_first_stands_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for its username must find it, though it was folded with others."""
    clock = Clock(monkeypatch)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number, name in enumerate(("one", "two", "two")):
        clock.now = 2.0 * number
        journal.fold("address", make_event("auth_failed", username=name))
        journal.flush()
    found = [event for event in read_all(tmp_path).values() if event.username == "two"]
    assert [event.repeats == event.id for event in found] == [True, True]


def test_a_segment_of_the_release_before_still_raises_counts(tmp_path: Path) -> None:
    event = make_event("acl_denied", topic="a")
    frames = [frame(b"H", ("n", "i")), frame(b"E", event), frame(b"C", (event.id, 9))]
    path = tmp_path / "0000000001.log"
    path.write_bytes(b"".join(frames))
    assert read_all(tmp_path)[event.id].count == 9


def test_folding_ends_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    journal = Journal(tmp_path, node="n", incarnation="i")
    denied(journal)
    clock.now = 61.0
    denied(journal)
    assert told(read_all(tmp_path).values()) == [("a", 1, False), ("a", 1, False)]


@pytest.mark.parametrize(("bound", "size"), [("FOLD_MAX", 10), ("FOLD_BYTES", 10 * 1_500)])
def test_the_watch_for_repeats_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, size: int
) -> None:
    """In number, and in what a client can make long: 20,000 topics of 64 KiB would be more than a gigabyte."""
    monkeypatch.setattr(module, bound, size)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(100):
        journal.fold(number, make_event("acl_denied", topic="t" * 1_500))
    assert len(journal._folds) == 10
    for number in (99, 89):
        journal.fold(number, make_event("acl_denied", topic="t" * 1_500))
    journal.flush()
    found = read_all(tmp_path).values()
    assert [bool(event.repeats) for event in found].count(True) == 1, "the 89th was let go"
    assert len(found) == 102


class Counted:
    """A key that counts how often it is looked up."""

    asked = 0

    def __hash__(self) -> int:
        Counted.asked += 1
        return id(self)


def test_watching_for_repeats_costs_no_more_when_there_are_too_many_to_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new one going through all the others, one client with many topics would keep every other one waiting."""
    monkeypatch.setattr(module, "FOLD_MAX", 1_000)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for _ in range(2_000):
        journal.fold(Counted(), make_event("acl_denied"))
    assert Counted.asked < 20_000


def test_what_is_watched_anew_is_let_go_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "FOLD_BYTES", 2)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for key in ("a", "b"):
        journal.fold(key, make_event("acl_denied", topic=key))
    now[0] = 61.0
    for key in ("a", "c"):
        journal.fold(key, make_event("acl_denied", topic=key))
    assert list(journal._folds) == ["a", "c"]


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_torn_last_write_loses_only_itself(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    kept, torn = make_event("connect"), make_event("connect")
    journal.record(kept)
    journal.flush()
    journal.record(torn)
    journal.flush()
    (_, path), *_ = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(read_all(tmp_path)) == {kept.id}
    again = Journal(tmp_path, node="n", incarnation="j")
    later = make_event("connect")
    again.record(later)
    again.flush()
    assert set(read_all(tmp_path)) == {kept.id, later.id}


def test_segments_are_closed_when_large_and_their_size_is_known(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    for _ in range(4):
        journal.record(make_event("connect", details={"text": "x" * 400_000}))
        journal.flush()
    assert len(segments(tmp_path)) >= 2
    assert journal.size == sum(path.stat().st_size for _, path in segments(tmp_path))


def test_a_full_disk_is_reported_and_nothing_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    event = make_event("connect")
    journal.record(event)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            journal.flush()
        assert journal.full
    journal.flush()
    assert not journal.full
    assert set(read_all(tmp_path)) == {event.id}


def test_what_another_version_wrote_ends_the_reading_of_its_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    first = make_event("connect")
    journal.record(first)
    journal.flush()
    (_, path), *_ = segments(tmp_path)
    with path.open("ab") as file:
        file.write(frame(b"Z", {"what": "nobody knows"}))
    assert set(read_all(tmp_path)) == {first.id}


def test_long_events_are_read_in_portions(tmp_path: Path) -> None:
    """What is read at once becomes one entry of the stream, and ingest holds many entries in memory."""
    journal = Journal(tmp_path, node="n", incarnation="i")
    for _ in range(60):
        journal.record(make_event("acl_denied", details={"text": "t" * 65_000}))
    journal.flush()
    ((number, path), *_) = segments(tmp_path)
    events, behind = SegmentReader(number, path).read(limit=100, ended=True)
    assert 10 < len(events) < 18
    assert behind < module.READ_BYTES + 70_000
    assert len(read_all(tmp_path)) == 60


def test_a_journal_above_its_limit_is_full(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i", limit=1000)
    assert not journal.full
    journal.record(make_event("connect", details={"text": "x" * 1000}))
    journal.flush()
    assert journal.full


def test_when_no_segment_can_be_begun_the_old_one_goes_on_and_no_other_file_is_written_to(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "journal", tmp_path / "elsewhere"
    journal = Journal(folder, node="n", incarnation="i")
    events = [make_event("connect", details={"text": "x" * size}) for size in (SEGMENT_BYTES, 1, 1)]
    folder.rename(elsewhere)  # the file that is open can still be written, a new one cannot be made
    journal.record(events[0])
    journal.flush()
    assert journal.full
    pair = socket.socketpair()  # takes the lowest descriptor that is free
    journal.record(events[1])
    journal.flush()
    for end in pair:
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(1)
    elsewhere.rename(folder)
    journal.record(events[2])
    journal.flush()
    assert not journal.full
    assert len(segments(folder)) == 2
    assert set(read_all(folder)) == {event.id for event in events}


def total(events: dict[str, AuditEvent], **wanted: object) -> int:
    """Occurrences of events with these field values."""
    return sum(e.count for e in events.values() if all(getattr(e, name) == value for name, value in wanted.items()))


@pytest.mark.parametrize("name", ["topic", "client_id", "username"])
@pytest.mark.parametrize("text", ["t" * 60_000, "\u20ac" * 20_000], ids=["ascii", "wide"])
def test_what_a_client_chose_is_cut_and_a_hash_of_the_whole_tells_it_from_others(name: str, text: str) -> None:
    one, other = (make_event("acl_denied", **{name: text + end, "details": {"text": "kept"}}) for end in "ab")
    assert text.startswith(getattr(one, name))
    assert len(getattr(one, name).encode()) in range(module_bounds.TEXT_BYTES - 3, module_bounds.TEXT_BYTES + 1)
    assert one.details == {
        "text": "kept",
        f"{name}_bytes": len(text.encode()) + 1,
        f"{name}_sha256": hashlib.sha256((text + "a").encode()).hexdigest(),
    }
    assert other.details[f"{name}_sha256"] != one.details[f"{name}_sha256"]
    short = make_event("acl_denied", **{name: "\u20ac" * 500})
    assert (len(getattr(short, name)), short.details) == (500, {})


def test_beyond_its_budget_an_organization_is_counted_to_the_last_event_and_others_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MINUTE_BYTES", 50_000)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(5_000):
        event = make_event("acl_denied", org="loud", action="publish", topic=f"t/{number}", reason=f"why {number}")
        journal.fold(("loud", number), event)
        journal.note(make_event("subscribe", org="loud", topic=f"t/{number}"))
        journal.note(make_event("auth_failed", org="loud", reason="bad_secret", username=f"u{number}"))
        if not number % 500:
            journal.fold(("quiet", number), make_event("acl_denied", org="quiet", topic=f"t/{number}"))
            journal.record(make_event("connect", org="loud", client_id=f"c{number}"))
        journal.flush()
    found = read_all(tmp_path)
    for kind in ("acl_denied", "subscribe", "auth_failed"):
        assert total(found, org="loud", kind=kind) == 5_000
    assert len([e for e in found.values() if e.org == "quiet"]) == 10
    assert len([e for e in found.values() if e.kind == "connect"]) == 10, "connects and ends stand each for itself"
    assert len([e for e in found.values() if e.org == "loud"]) < 700
    beyond = {e.kind: e for e in found.values() if e.details.get("beyond")}
    assert beyond.keys() == {"acl_denied", "subscribe", "auth_failed"}
    assert (beyond["acl_denied"].topic, beyond["acl_denied"].action) == ("", "publish")
    assert beyond["auth_failed"].reason == "bad_secret"
    assert total(found, kind="auth_failed", username="") < 5_000, "strangers have a budget of their own"
    assert journal.sequence == len(found)


def test_a_new_minute_is_a_new_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(budget, "MINUTE_BYTES", 10_000)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(300):
        now[0] = 60.0 * (number // 150)
        journal.note(make_event("subscribe", org="o", topic=f"t/{number}"))
    journal.flush()
    found = read_all(tmp_path).values()
    assert [e.count > 1 for e in found].count(True) == 2
    assert sum(e.count for e in found) == 300


def test_no_flood_fills_the_journal_however_long_nothing_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MINUTE_BYTES", 1 << 40)
    journal = Journal(tmp_path, node="n", incarnation="i", limit=400_000)
    for number in range(20_000):
        for org in ("loud", "louder"):
            journal.fold((org, number), make_event("acl_denied", org=org, topic=f"t/{number}/{'x' * 100}"))
        journal.flush()
    assert not journal.full
    assert journal.size < 300_000, "counts that rise take room too"
    assert journal.share_full("loud")
    assert journal.share_full("louder")
    assert not journal.share_full("quiet")
    journal.close()
    found = read_all(tmp_path)
    assert [total(found, org=org) for org in ("loud", "louder")] == [20_000, 20_000]


def test_what_is_shipped_makes_room_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i", limit=100_000)
    while not journal.share_full("loud"):
        journal.note(make_event("subscribe", org="loud", topic="t" * 100))
        journal.flush()
    journal.rotate()
    journal.delete(journal.current - 1)
    assert not journal.share_full("loud")

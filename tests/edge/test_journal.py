"""The audit journal: what was flushed survives anything, counts stay exact, and nothing grows without bound."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloudsignal.edge import journal as module
from cloudsignal.edge.framing import frame
from cloudsignal.edge.journal import SEGMENT_BYTES, Journal, SegmentReader, segments
from cloudsignal.edge.trail import make_event
from cloudsignal.wire.audit import AuditEvent


def read_all(folder: Path) -> dict[str, AuditEvent]:
    """Every event in every segment with its highest count, as ingest would end up with."""
    found: dict[str, AuditEvent] = {}
    for number, path in segments(folder):
        reader = SegmentReader(number, path)
        while True:
            events, reader.offset = reader.read(limit=7)
            if not events:
                break
            for event in events.values():
                old = found.get(event.id)
                if old is None or event.count > old.count:
                    found[event.id] = event
    return found


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


def test_repeats_raise_a_count_and_another_key_does_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    first, other = make_event("acl_denied", topic="a"), make_event("acl_denied", topic="b")
    for _ in range(40):
        journal.fold("a", first if journal.sequence == 0 else make_event("acl_denied", topic="a"))
    journal.fold("b", other)
    journal.flush()
    assert {event.id: event.count for event in read_all(tmp_path).values()} == {first.id: 40, other.id: 1}
    assert journal.sequence == 2


def test_a_count_is_exact_after_its_first_segment_was_shipped_and_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    event = make_event("acl_denied", topic="a")
    for _ in range(3):
        journal.fold("a", event if journal.sequence == 0 else make_event("acl_denied"))
    journal.rotate()
    journal.delete(journal.current - 1)
    for _ in range(2):
        journal.fold("a", make_event("acl_denied"))
    journal.flush()
    found = read_all(tmp_path)[event.id]
    assert (found.count, found.topic) == (5, "a")


def test_folding_ends_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    journal = Journal(tmp_path, node="n", incarnation="i")
    journal.fold("a", make_event("acl_denied"))
    now[0] = 61.0
    journal.fold("a", make_event("acl_denied"))
    journal.flush()
    assert sorted(event.count for event in read_all(tmp_path).values()) == [1, 1]


@pytest.mark.parametrize(("bound", "size"), [("FOLD_MAX", 10), ("FOLD_BYTES", 10 * 5_000)])
def test_the_watch_for_repeats_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, size: int
) -> None:
    """In number, and in what a client can make long: 20,000 topics of 64 KiB would be more than a gigabyte."""
    monkeypatch.setattr(module, bound, size)
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(100):
        journal.fold(number, make_event("acl_denied", topic="t" * 5_000))
    assert len(journal._folds) == 10
    assert journal.again(99)
    assert not journal.again(89)
    journal.flush()
    assert len(read_all(tmp_path)) == 100


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
        journal.record(make_event("acl_denied", topic="t" * 65_000))
    journal.flush()
    ((number, path), *_) = segments(tmp_path)
    events, behind = SegmentReader(number, path).read(limit=100)
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

"""An edge that is killed cannot end its sessions: its successor does, each once, when it was last alive."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from audit.kinds import CONNECT, DISCONNECT, SESSION_CLOSED
from cloudsignal.edge.audit import open_sessions
from cloudsignal.edge.audit.events import make_event
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.audit.open_sessions import NAME, OpenSessions
from cloudsignal.edge.codec import Connect, Properties, encode_connect
from cloudsignal.wire.audit import AuditEvent
from tests.support.journal import read_all
from tests.support.parts import Issued, wait_for
from tests.support.rig import Rig

MakeRig = Callable[..., Rig]


def sessions(events: list[AuditEvent]) -> tuple[Counter[str], Counter[str]]:
    """Sessions that began and that ended, each with how often."""
    begun = Counter(event.session for event in events if event.kind == CONNECT)
    ended = Counter(event.session for event in events if event.kind in {DISCONNECT, SESSION_CLOSED})
    return begun, ended


def succeed(folder: Path) -> Journal:
    """A process after one that was killed, as far as the journal is concerned."""
    journal = Journal(folder, node="n", incarnation="next")
    for event in journal.sessions.ends():
        journal.record(event)
    journal.flush()
    return journal


@pytest.mark.parametrize("seed", range(6))
def test_killed_between_any_two_writes_each_session_ends_once(tmp_path: Path, seed: int) -> None:
    """The list of open sessions is a segment behind the journal at most: also when the kill comes before its write."""
    chance = random.Random(seed)
    journal = Journal(tmp_path / "0", node="n", incarnation="i")
    open_now: list[str] = []
    for step in range(1, 60):
        behind = (tmp_path / "0" / NAME).read_bytes()
        for _ in range(chance.randint(1, 4)):
            if open_now and chance.random() < 0.5:
                session = open_now.pop(chance.randrange(len(open_now)))
                journal.record(make_event(chance.choice([DISCONNECT, SESSION_CLOSED]), session=session))
            else:
                open_now.append(f"session-{journal.taken}")
                journal.record(make_event(CONNECT, session=open_now[-1]))
        journal.flush()
        if chance.random() < 0.3:
            journal.rotate()
        if step % 6:
            continue
        copy = tmp_path / str(step)
        shutil.copytree(tmp_path / "0", copy)
        newest = max(copy.glob("*.log"))
        if newest.stat().st_size:
            (copy / NAME).write_bytes(behind)  # killed before the list was written
        if chance.random() < 0.5:
            with newest.open("ab") as file:
                file.write(b"\0\0\1\0half of a record")
        for _ in range(2):
            succeed(copy)  # killed as well, later
        begun, ended = sessions(list(read_all(copy).values()))
        assert begun == ended
        assert set(begun.values()) == {1}


def test_a_successor_that_is_killed_while_it_ends_sessions_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(20):
        journal.record(make_event(CONNECT, session=str(number)))
    journal.flush()
    second = Journal(tmp_path, node="n", incarnation="ii")
    for event, _ in zip(second.sessions.ends(), range(7), strict=False):
        second.record(event)
    second.flush()
    third = Journal(tmp_path, node="n", incarnation="iii")
    assert len(list(third.sessions.ends())) == 13
    succeed(tmp_path)
    begun, ended = sessions(list(read_all(tmp_path).values()))
    assert begun == ended
    assert set(ended.values()) == {1}


def test_the_list_of_open_sessions_outlives_the_journal_that_was_shipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    journal.record(make_event(CONNECT, session="old", org="o", username="u", client_id="c"))
    journal.flush()
    journal.rotate()
    journal.delete(journal.current - 1)
    (end,) = Journal(tmp_path, node="n", incarnation="next").sessions.ends()
    assert (end.kind, end.reason, end.session, end.org) == (SESSION_CLOSED, "node_lost", "old", "o")


def test_the_list_of_open_sessions_stays_as_small_as_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_sessions, "COMPACT_BYTES", 4_096)
    journal = Journal(tmp_path, node="n", incarnation="i")
    journal.record(make_event(CONNECT, session="stays"))
    for number in range(500):
        journal.record(make_event(CONNECT, session=str(number)))
        journal.rotate()
        journal.record(make_event(DISCONNECT, session=str(number)))
    journal.rotate()
    assert (tmp_path / NAME).stat().st_size < 2 * 4_096
    assert [event.session for event in OpenSessions(tmp_path).ends()] == ["stays"]


def test_a_session_that_begins_and_ends_within_a_segment_costs_the_list_of_open_sessions_nothing(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(100):
        journal.record(make_event(CONNECT, session=str(number)))
        journal.flush()
        journal.record(make_event(DISCONNECT, session=str(number)))
        journal.flush()
    journal.rotate()
    assert (tmp_path / NAME).stat().st_size == 0
    assert not list(OpenSessions(tmp_path).ends())


class Crowd:
    """Clients that come, stay a while and go as clients do, over and over, whatever becomes of the edge."""

    def __init__(self, rig: Rig, issued: Issued, *, clients: int, stay: float) -> None:
        self._rig, self._issued, self._stay = rig, issued, stay
        self._count = clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self.signed_in = 0

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(self._count)))

    async def _one(self, number: int) -> None:
        chance = random.Random(number)
        context = self._rig.authority.client_context()
        secret = self._issued.password.encode()
        hello = encode_connect(Connect(5, f"c{number}", True, 600, self._issued.username, secret, None, Properties()))
        await asyncio.sleep(chance.random() * self._stay)
        while not self._stop.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._rig.edge.port, ssl=context)
                writer.write(hello)
                head = await reader.readexactly(2)
                if head[0] == 0x20 and not (await reader.readexactly(head[1]))[1]:
                    self.signed_in += 1
                    until = time.monotonic() + self._stay * (1 if chance.random() < 0.5 else 1_000)
                    while time.monotonic() < until and not self._stop.is_set() and not reader.at_eof():
                        await asyncio.sleep(0.05)
                if chance.random() < 0.5:
                    writer.write(b"\xe0\0")
                writer.transport.abort() if chance.random() < 0.5 else writer.close()
            await asyncio.sleep(0.05 + 0.2 * chance.random())


def ends_equal_connects(make_rig: MakeRig, *, clients: int, kills: int, stay: float) -> tuple[int, int]:
    """Kill the edge at random under a crowd; returns how many sessions there were, and how many ends were lost."""
    rig = make_rig()
    org = rig.org()
    issued = rig.plane.issue(org)
    with Crowd(rig, issued, clients=clients, stay=stay) as crowd:
        for kill in range(kills):
            before = crowd.signed_in
            wait_for(lambda before=before: crowd.signed_in >= before + clients * 0.8, seconds=120, what="the crowd")
            time.sleep(random.Random(kill).random() * stay)
            rig.edge.stop(kill=True)
            rig.edge.start()
        wait_for(lambda: crowd.signed_in >= before + clients, seconds=120, what="the crowd")
    rig.edge.stop()
    begun, ended = sessions(rig.plane.events(org=org))
    assert begun == ended
    assert set(begun.values()) == {1}
    lost = rig.plane.events(org=org, reason="node_lost")
    assert len(begun) >= crowd.signed_in
    return len(begun), len(lost)


def test_ends_equal_connects_though_the_edge_is_killed_at_random(make_rig: MakeRig) -> None:
    _, lost = ends_equal_connects(make_rig, clients=30, kills=3, stay=0.4)
    assert lost > 30


@pytest.mark.soak
def test_ends_equal_connects_with_a_thousand_clients_and_five_kills(make_rig: MakeRig) -> None:
    begun, lost = ends_equal_connects(make_rig, clients=1_000, kills=5, stay=4.0)
    print(f"{begun} sessions, {lost} of them ended as node_lost")
    assert lost > 1_000


def test_the_end_of_a_session_of_a_killed_edge_says_who_it_was_and_when_it_was_last_alive(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    client = rig.client(rig.plane.issue(org), client_id="sensor")
    begun = rig.plane.event(org=org, kind="connect")
    client.ping()
    time.sleep(1.2)
    rig.edge.stop(kill=True)
    killed_at = time.time()
    time.sleep(0.5)
    rig.edge.start()
    end = rig.plane.event(org=org, kind="session_closed")
    assert (end.reason, end.session, end.username, end.client_id) == ("node_lost", begun.session, "dev", "sensor")
    assert (end.ip, end.transport, end.tls_version) == (begun.ip, begun.transport, begun.tls_version)
    assert begun.ts < end.ts <= killed_at * 1_000_000
    assert end.details["seconds"] == round((end.ts - begun.ts) / 1_000_000, 3)


def test_a_drained_edge_leaves_nothing_for_its_successor_to_end(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    client = rig.client(rig.plane.issue(org))
    rig.edge.stop()
    client.close()
    rig.edge.start()
    assert rig.plane.event(org=org, kind="session_closed").reason == "draining"

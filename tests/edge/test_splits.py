"""Organizations that refuse publishes while broker nodes are split: nothing is acknowledged that may be lost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.broker import splits
from cloudsignal.edge.broker.splits import CERTAIN, FRESH, Splits
from cloudsignal.edge.broker.status import ClusterView
from cloudsignal.edge.codec import Kind, Publish, Reason
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.context import Phase
from cloudsignal.edge.session.register import Register
from tests.support.parts import Broker, metrics, wait_for
from tests.support.rig import Rig
from tests.support.session_bench import BOTH, Bench
from tests.support.vernemq_status import StatusPages
from tests.support.wire import Wire

SPLIT = ClusterView("disagree", (("a",), ("b",)), split=True)
AGREE = ClusterView("agree", (("a", "b"),))
ONE_SIDED = ClusterView("disagree", (("a",), ("b",)))
UNKNOWN = ClusterView("unknown")


def publish(bench: Bench, topic: str, qos: int, packet_id: int = 7) -> tuple[bytes, bytes]:
    return bench.publish(topic, qos=qos, packet_id=packet_id if qos else 0)


def answer(data: bytes) -> tuple[int, int]:
    """Kind and code of an acknowledgement."""
    packet = codec.decode_acknowledgement(data[0], data[2:], 5)
    return data[0] & 0xF0, packet.code


def test_mqtt_5_hears_of_each_message_that_it_is_refused_and_why() -> None:
    bench = Bench()
    assert publish(bench, "a/b", 1)[1], "the topic is in the hot loop from now on"
    bench.org.refusing = True
    before = TALLY.refused["in", "split"]
    to_client, to_broker = publish(bench, "a/b", 1)
    assert (answer(to_client), to_broker) == ((Kind.PUBACK, Reason.QUOTA_EXCEEDED), b"")
    assert b"split" in to_client, "it says why"
    to_client, to_broker = publish(bench, "a/b", 2)
    assert (answer(to_client), to_broker) == ((Kind.PUBREC, Reason.QUOTA_EXCEEDED), b"")
    assert publish(bench, "a/b", 0) == (b"", b"")
    assert publish(bench, "new/topic", 0) == (b"", b"")
    assert TALLY.refused["in", "split"] - before == 4
    assert bench.session.live
    events = [event for event in bench.sink.events if event.kind == "limit_reached"]
    assert {event.reason for event in events} == {"nodes_split"}
    bench.org.refusing = False
    assert publish(bench, "a/b", 1)[1]


def test_mqtt_3_1_1_hears_nothing_so_that_it_keeps_the_message_and_is_ended_when_the_split_is_over() -> None:
    bench = Bench(version=4)
    assert publish(bench, "a/b", 1)[1]
    bench.org.refusing = True
    for qos in (0, 1, 2):
        assert publish(bench, "a/b", qos) == (b"", b"")
    assert bench.session.live
    assert bench.session.unanswered
    bench.session.client_received(bytes([Kind.PINGREQ, 0]))
    assert bench.broker() == bytes([Kind.PINGREQ, 0]), "everything else goes on"


@BOTH
def test_messages_that_arrive_in_one_read_are_refused_one_by_one(version: int) -> None:
    bench = Bench(version=version)
    publish(bench, "a/b", 0)
    bench.org.refusing = True
    before = TALLY.refused["in", "split"]
    bench.session.client_received(50 * codec.encode_publish(Publish(b"a/b", b"payload"), version))
    assert (bench.broker(), TALLY.refused["in", "split"] - before) == (b"", 50)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [time.monotonic()]
    monkeypatch.setattr(splits.time, "monotonic", lambda: now[0])

    def ahead(seconds: float) -> None:
        now[0] += seconds

    return ahead


class Scene:
    """An organization with a session, and the splits of its edge."""

    def __init__(self, version: int = 5, *, refuse: bool = True) -> None:
        self.bench = Bench(version=version)
        self.org = self.bench.org
        self.org.active = replace(self.org.active, refuse_while_split=refuse)
        self.bench.session.adopt()
        self.sessions = Register()
        self.sessions.add(self.bench.session)
        self.pumped: list[str] = []
        self.splits = Splits({self.org.id: self.org}, self.sessions, self.pumped.append)

    def see(self, view: ClusterView) -> bool:
        """Take a view; returns whether publishes are refused after the next turn."""
        self.splits.turn(replace(view))
        return self.org.refusing


def test_a_split_counts_once_it_has_been_seen_for_two_seconds_and_ends_when_nodes_agree(
    clock: Callable[[float], None],
) -> None:
    scene = Scene()
    assert not scene.see(SPLIT)
    clock(CERTAIN)
    assert scene.see(SPLIT)
    assert not scene.see(AGREE)
    assert not scene.see(SPLIT), "it begins anew"


def test_pages_that_say_nothing_keep_a_known_split_for_a_while_and_begin_none(clock: Callable[[float], None]) -> None:
    scene = Scene()
    for _ in range(9):
        assert not scene.see(UNKNOWN)
        clock(CERTAIN)
    scene.see(SPLIT)
    clock(CERTAIN)
    scene.see(SPLIT)
    clock(FRESH)
    assert scene.see(UNKNOWN)
    clock(0.1)
    assert not scene.see(UNKNOWN)


def test_one_reading_counts_once_however_often_it_is_looked_at(clock: Callable[[float], None]) -> None:
    scene = Scene()
    for _ in range(9):
        scene.splits.turn(SPLIT)
        clock(CERTAIN)
    assert not scene.org.refusing


def test_a_page_that_another_contradicts_refuses_nothing(clock: Callable[[float], None]) -> None:
    scene = Scene()
    for _ in range(9):
        assert not scene.see(ONE_SIDED)
        clock(CERTAIN)


def test_only_organizations_that_ask_for_it_refuse_and_the_setting_may_change_during_a_split(
    clock: Callable[[float], None],
) -> None:
    scene = Scene(refuse=False)
    scene.see(SPLIT)
    clock(CERTAIN)
    assert not scene.see(SPLIT)
    scene.org.active = replace(scene.org.active, refuse_while_split=True)
    assert scene.see(SPLIT)
    scene.org.active = replace(scene.org.active, refuse_while_split=False)
    assert not scene.see(SPLIT)


def test_after_a_split_only_sessions_that_wait_for_an_answer_are_ended(clock: Callable[[float], None]) -> None:
    waiting, quiet = Scene(version=4), Scene(version=4)
    for scene in (waiting, quiet):
        scene.see(SPLIT)
    clock(CERTAIN)
    for scene in (waiting, quiet):
        scene.see(SPLIT)
    publish(waiting.bench, "a", 1)
    for scene in (waiting, quiet):
        scene.see(AGREE)
    assert (waiting.bench.session.phase, waiting.pumped) == (Phase.CLOSED, [waiting.bench.session.id])
    assert waiting.bench.sink.events[-1].reason == "split_over"
    assert (quiet.bench.session.live, quiet.pumped) == (True, [])


# --- a whole edge ----------------------------------------------------------------------------------------------------

A, B = "VerneMQ@a", "VerneMQ@b"


@pytest.fixture
def pages() -> Iterator[StatusPages]:
    made = StatusPages(A)
    made.members = {A: True, B: True}
    yield made
    made.stop()


def acknowledged(wire: Wire) -> int:
    """The code of the PUBACK of a message."""
    return wire.publish("a", qos=1)


def test_an_edge_that_knows_of_a_split_acknowledges_nothing_of_who_asked_for_that(
    workdir: Path, make_rig: Callable[..., Rig], pages: StatusPages
) -> None:
    broker = Broker(Path(tempfile.mkdtemp(dir=workdir)))
    rig = make_rig(broker=broker, MQTT_UPSTREAM_URL=f"unix://{broker.socket}?status={pages.url}")
    careful, other = rig.org(publish_while_split="refuse"), rig.org()
    issued = rig.plane.issue(careful)
    five = rig.client(issued, client_id="five", version=5)
    four = rig.client(issued, client_id="four", version=4)
    indifferent = rig.client(rig.plane.issue(other), version=5)
    assert [acknowledged(wire) & 0x80 for wire in (five, four, indifferent)] == [0, 0, 0]
    pages.members[B] = False
    wait_for(lambda: acknowledged(five) == Reason.QUOTA_EXCEEDED, what="the refusal")
    assert acknowledged(indifferent) & 0x80 == 0
    four.send(four.message("a", b"kept", 1, packet_id=9))
    four.ping()
    late = rig.client(issued, client_id="late", version=4)
    assert late.subscribe("a") == [0]
    pages.members[B] = True
    four.closed()
    wait_for(lambda: acknowledged(five) & 0x80 == 0, what="acknowledgements")
    assert rig.plane.event(org=careful, kind="session_closed").reason == "split_over"
    event = next(one for one in rig.plane.events(org=careful, kind="limit_reached") if one.client_id == "four")
    assert (event.reason, event.count) == ("nodes_split", 1)
    assert rig.plane.events(org=other, kind="limit_reached") == []
    again = rig.client(issued, client_id="four", version=4)
    assert again.publish("a", b"kept", qos=1, packet_id=9) == 0
    wait_for(lambda: b"kept" in [late.delivery().payload], what="the message that was kept")
    refused = metrics(rig.edge)['cloudsignal_edge_messages_total{direction="in",verdict="split"}']
    assert refused >= 2
    # A page that hangs is no split, and no sign-in waits for it.
    pages.lies = dict.fromkeys(("/health", "/status.json", "/metrics"), pages.hang)
    asked = pages.asked
    wait_for(lambda: pages.asked > asked + 3, what="another reading")
    assert acknowledged(rig.client(issued, client_id="five", version=5)) & 0x80 == 0

"""What a packet may hold: decided while it is read, so that none costs more than its share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from acl.policy.engine import index
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import (
    Connect,
    Kind,
    Properties,
    Property,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from cloudsignal.edge.codec.packets import FILTERS_MAX
from cloudsignal.edge.codec.properties import EARLY_USER_PROPERTIES_MAX, USER_PROPERTIES_MAX
from cloudsignal.edge.session import downlink
from cloudsignal.edge.session.frames import TURN_MAX
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import BLOCKS_BYTES, Organization
from cloudsignal.edge.transport.turns import Turns
from tests.support import attacks
from tests.support.rig import Rig
from tests.support.session_bench import ALL, ORG, Bench, active
from tests.support.trail import ListSink

BOTH = pytest.mark.parametrize("version", [4, 5])


def users(count: int) -> Properties:
    return Properties([(Property.USER_PROPERTY, (b"name", b"%d" % number)) for number in range(count)])


def closed(bench: Bench, text: str) -> None:
    """The session has ended with 0x97, and the event says which limit."""
    assert bench.session.ended
    event = bench.sink.events[-1]
    assert (event.kind, event.reason, event.details["reason_code"]) == ("session_closed", "protocol", 0x97)
    assert event.details["text"] == text


def test_user_properties_of_a_message_are_limited() -> None:
    bench = Bench(5)
    _, upstream = bench.publish("a", properties=users(USER_PROPERTIES_MAX))
    assert upstream
    assert bench.publish("a", properties=users(USER_PROPERTIES_MAX + 1)) == (
        codec.disconnect(0x97, "a packet has more than 256 user properties"),
        b"",
    )
    closed(bench, "a packet has more than 256 user properties")


@pytest.mark.parametrize("place", ["connect", "will"])
def test_user_properties_before_sign_in_are_limited_far_lower(place: str) -> None:
    def come(count: int) -> tuple[Session, ListSink]:
        sink = ListSink()
        session = Session(Origin("127.0.0.1", 1, "mqtts"), sink)
        connect = Connect(5, "c", properties=users(count))
        if place == "will":
            connect = Connect(5, "c", will=Will(b"w", b"", properties=users(count)))
        session.client_received(codec.encode_connect(connect))
        return session, sink

    assert not come(EARLY_USER_PROPERTIES_MAX)[0].ended
    session, sink = come(EARLY_USER_PROPERTIES_MAX + 1)
    answer = codec.decode_connack(session.to_client[0][2:], 5)
    text = b"a packet has more than 32 user properties"
    assert (answer.code, answer.properties.string(Property.REASON_STRING)) == (0x97, text)
    assert (sink.events[0].reason, sink.events[0].details["text"]) == (
        "protocol",
        "a packet has more than 32 user properties",
    )


@BOTH
@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_filters_of_one_packet_are_limited(version: int, kind: str) -> None:
    def ask(count: int) -> bytes:
        if kind == "subscribe":
            return codec.encode_subscribe(Subscribe(1, [Subscription(b"a", 0)] * count), version)
        return codec.encode_unsubscribe(Unsubscribe(1, [b"a"] * count), version)

    bench = Bench(version)
    bench.session.client_received(ask(FILTERS_MAX))
    assert bench.broker()
    bench.session.client_received(ask(FILTERS_MAX + 1))
    assert bench.broker() == b""
    closed(bench, "a packet has more than 2,000 topic filters")


@pytest.mark.parametrize(
    ("packet", "most"),
    [
        (attacks.publish("a"), 2 * USER_PROPERTIES_MAX),
        (attacks.subscribe(), 0),
        (attacks.unsubscribe(), 0),
    ],
    ids=["publish", "subscribe", "unsubscribe"],
)
def test_what_is_beyond_a_limit_is_not_even_looked_at(
    packet: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: how many texts of the packet are read before it is refused."""
    read = 0
    text = codec.Reader.text

    def counting(reader: codec.Reader, *options: object) -> bytes:
        nonlocal read
        read += 1
        return text(reader, *options)  # type: ignore[arg-type]

    bench = Bench(5)
    monkeypatch.setattr(codec.Reader, "text", counting)
    bench.session.client_received(packet)
    assert bench.session.ended
    assert most <= read <= most + 2


def test_properties_that_need_no_change_go_on_as_the_bytes_they_came_in() -> None:
    """Also the odd ones: they are read, but not written anew."""
    bench = Bench(5)
    block = Properties([*users(3), (Property.CONTENT_TYPE, b"t"), *users(2), (Property.PAYLOAD_FORMAT, 1)])
    raw = block.encode()
    _, upstream = bench.publish("a", properties=block)
    assert raw in upstream
    down, _ = bench.deliver(f"{ORG}/t/a".encode(), properties=block)
    assert raw in down


def test_properties_of_one_message_are_worked_out_once_for_all_its_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty sessions of one organization, one message with as many user properties as may be."""
    calls = 0
    decode = downlink.decode_properties

    def counting(*given: object) -> Properties:
        nonlocal calls
        calls += 1
        return decode(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(downlink, "decode_properties", counting)
    benches = [Bench(5) for _ in range(attacks.SUBSCRIBERS)]
    for bench in benches:
        bench.session.org = benches[0].org
    answer = f"{ORG}/t/answers".encode()
    block = Properties(
        [*users(USER_PROPERTIES_MAX - 1), (Property.RESPONSE_TOPIC, answer), (Property.CONTENT_TYPE, b"t")]
    )
    seen = Properties(
        [*users(USER_PROPERTIES_MAX - 1), (Property.RESPONSE_TOPIC, b"answers"), (Property.CONTENT_TYPE, b"t")]
    )
    for number, bench in enumerate(benches, 1):
        down, up = bench.deliver(f"{ORG}/t/a".encode(), qos=1, packet_id=number, properties=block)
        assert down == codec.encode_publish(Publish(b"a", b"payload", 1, packet_id=number, properties=seen), 5)
        assert up == b""
    assert calls == 1


def test_what_is_remembered_of_properties_is_bounded_in_bytes() -> None:
    bench = Bench(5)
    for number in range(200):
        block = Properties([(Property.CONTENT_TYPE, b"%d" % number * 10_000)])
        assert bench.deliver(f"{ORG}/t/a".encode(), properties=block)[0]
        kept = sum(len(before) + len(after) for before, after in bench.org._blocks.items())
        assert kept == bench.org._blocks_bytes <= BLOCKS_BYTES


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_stored_message_that_nobody_could_send_today_is_kept_back_and_the_session_goes_on(qos: int) -> None:
    """Retained before the limits were there, or let in by another broker."""
    bench = Bench(5)
    unfit = [
        Publish(f"{ORG}/t/a".encode(), b"x", qos, packet_id=1, properties=users(USER_PROPERTIES_MAX + 1)),
        Publish(f"{ORG}/t/a".encode(), b"x", qos, packet_id=2, properties=Properties([(Property.CONTENT_TYPE, b"\n")])),
        Publish(f"{ORG}/t/a\x01".encode(), b"x", qos, packet_id=3),
    ]
    for message in unfit:
        bench.session.broker_received(codec.encode_publish(message, 5))
        assert bench.client() == b""
        kind = {1: Kind.PUBACK, 2: Kind.PUBREC}.get(qos)
        assert bench.broker() == (codec.acknowledgement(kind, message.packet_id, 5) if kind else b"")
    assert bench.session.live
    assert bench.deliver(f"{ORG}/t/a".encode(), qos=qos, packet_id=4)[0]
    [told] = [event for event in bench.sink.events if event.kind == "limit_reached"]
    assert (told.reason, told.count) == ("unfit_delivery", 3)


def test_deliveries_that_cost_much_take_turns() -> None:
    """As many in one read as fit, none by heart: each turn works off its share, and nothing is lost or mixed up."""
    bench = Bench(5)
    wanted = 3_000
    stream = b"".join(
        codec.encode_publish(Publish(f"{ORG}/t/a/{number}".encode(), b"x", properties=users(1)), 5)
        for number in range(wanted)
    )
    bench.session.broker_received(stream)
    turns = [bench.client()]
    while bench.session.owed:
        bench.session.broker_received(b"")
        turns.append(bench.client())
    expected = [
        codec.encode_publish(Publish(b"a/%d" % number, b"x", properties=users(1)), 5) for number in range(wanted)
    ]
    assert b"".join(turns) == b"".join(expected)
    assert len(turns) >= wanted // TURN_MAX
    assert max(turn.count(b"name") for turn in turns) <= TURN_MAX


@BOTH
@pytest.mark.parametrize("way", ["up", "denied", "down"])
def test_a_long_topic_is_a_turn_of_its_own(version: int, way: str) -> None:
    """It is looked through from end to end, several times: several in one read would hold up everybody."""
    bench = Bench(version, policy="version: '3'\nrules: []" if way == "denied" else ALL)
    mount = f"{ORG}/t/".encode() if way == "down" else b""
    names = [mount + b"%d/".ljust(40_000, b"x") % number for number in range(4)]
    receive = bench.session.broker_received if way == "down" else bench.session.client_received
    receive(b"".join(codec.encode_publish(Publish(name, b"p"), version) for name in names))
    turns = []
    while bench.session.unread or bench.session.owed:
        passed = (bench.client() + bench.broker()).count(b"x" * 30_000)
        turns.append((passed, bench.kinds().count("acl_denied")))
        receive(b"")
    assert turns == ([(0, number) for number in (1, 2, 3, 4)] if way == "denied" else [(1, 0)] * 4)


@BOTH
def test_a_topic_is_looked_through_once_in_each_direction(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the codec; the policy takes its word for it."""
    monkeypatch.setattr(index, "plain_topic", lambda _: 1 // 0)
    bench = Bench(version)
    for topic in ("a/b", "$app/b", "a/".ljust(60_000, "x")):
        _, up = bench.publish(topic)
        assert topic.removeprefix("$").encode() in up
        assert topic.encode() in bench.deliver(bench.session.mount.topic(topic.encode()))[0]


@BOTH
def test_a_delivery_on_the_mountpoint_itself_is_kept_back(version: int) -> None:
    """Its topic would be empty for the client, and no client can have published it."""
    bench = Bench(version)
    assert bench.deliver(f"{ORG}/t/".encode()) == (b"", b"")
    assert bench.kinds()[-1] == "acl_denied"


def test_organizations_take_turns_however_many_sessions_each_has_waiting() -> None:
    order: list[str] = []
    crowd, single = (Organization(name, Mount.of(name), active(ALL)) for name in ("crowd", "single"))

    async def play() -> None:
        turns = Turns()

        def worker(org: Organization, left: int) -> Callable[[], None]:
            def go_on() -> None:
                order.append(org.id)
                if left > 1:
                    turns.wait(org, worker(org, left - 1))

            return go_on

        for _ in range(50):
            turns.wait(crowd, worker(crowd, 4))
        turns.wait(single, worker(single, 4))
        while crowd.waiting or single.waiting:
            await asyncio.sleep(0)

    asyncio.run(play())
    assert (order.count("crowd"), order.count("single")) == (200, 4)
    assert [index for index, name in enumerate(order) if name == "single"] == [1, 3, 5, 7]


@pytest.mark.parametrize("attack", ["publish", "connect", "subscribe", "unsubscribe", "small"])
def test_dear_packets_of_one_organization_cost_another_nothing(rig: Rig, attack: str) -> None:
    """A few of each attack on a running edge: who sends them is cut off or waits, another client's session goes on."""
    org, other = rig.org(), rig.org()
    issued = rig.plane.issue(org, attack)
    bystander = rig.client(rig.plane.issue(other), client_id="bystander")
    if attack == "connect":
        for will in (False, True):
            wire = rig.dial()
            wire.version = 5
            wire.send(attacks.connect(will=will, user_properties=15_000))  # more would make it too large
            assert wire.connack().code == 0x97
            wire = rig.dial()
            wire.send(attacks.connect(will=will))
            assert all(first != Kind.CONNACK or body[1] for first, body in wire.closed())
    elif attack == "small":
        reader = rig.client(issued, client_id="reader")
        reader.subscribe("a/#")
        rig.client(issued, client_id="writer").send(attacks.small("a/x", count=2_000))
        assert len([reader.delivery() for _ in range(1_000)]) == 1_000
    else:
        packet = {"publish": attacks.publish("a/x"), "subscribe": attacks.subscribe()}.get(
            attack, attacks.unsubscribe()
        )
        wire = rig.client(issued, client_id="dear")
        wire.send(packet)
        assert [body[:1] for first, body in wire.closed() if first == Kind.DISCONNECT] == [b"\x97"]
        event = rig.plane.event(org=org, kind="session_closed")
        assert (event.reason, event.details["reason_code"]) == ("protocol", 0x97)
    bystander.ping()

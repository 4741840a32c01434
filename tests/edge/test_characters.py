"""Characters that MQTT leaves to the server (MQTT 5 s1.5.4): what Mosquitto refuses, nobody gets past the edge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acl.policy import Identity, Request, compile_policy, explain, parse
from acl.policy.engine.topics import MAX_LEVELS, unfit_character
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
from cloudsignal.edge.codec.primitives import binary, packet, u16
from cloudsignal.edge.session.machine import Session
from tests.support.parts import ALLOW_ALL, Broker
from tests.support.rig import Rig
from tests.support.session_bench import Bench
from tests.support.trail import ListSink
from tests.support.wire import ClosedError, dial_unix

UNFIT = [*range(0x01, 0x20), *range(0x7F, 0xA0), 0xFDD0, 0xFDDF, 0xFDEF]
UNFIT += [plane << 16 | end for plane in range(17) for end in (0xFFFE, 0xFFFF)]
FIT = [0x20, 0x7E, 0xA0, 0xAD, 0x202E, 0xD7FF, 0xE000, 0xFDCF, 0xFDF0, 0xFEFF, 0xFFFD, 0x1FFFD, 0x1F600, 0x10FFFD]
BOTH = pytest.mark.parametrize("version", [4, 5])

CONNECTS = {
    "client id": (0x85, 2, lambda text: Connect(0, text)),
    "username": (0x81, 4, lambda text: Connect(0, "c", username=text)),
    "will": (0x90, 5, lambda text: Connect(0, "c", will=Will(text.encode(), b""))),
}
"""What is answered in MQTT 5 and in 3.1.1."""

PACKETS = {
    "topic": (0x90, lambda v, t: codec.encode_publish(Publish(t.encode(), b""), v)),
    "topic of QoS 1": (0x90, lambda v, t: codec.encode_publish(Publish(t.encode(), b"", 1, packet_id=1), v)),
    "filter": (0x8F, lambda v, t: codec.encode_subscribe(Subscribe(1, [Subscription(t.encode(), 0)]), v)),
    "shared filter": (
        0x8F,
        lambda v, t: codec.encode_subscribe(Subscribe(1, [Subscription(f"$share/{t}/a".encode(), 0)]), v),
    ),
    "filter given up": (0x8F, lambda v, t: codec.encode_unsubscribe(Unsubscribe(1, [t.encode()]), v)),
}
PROPERTIES = {
    "response topic": (0x90, lambda t: (Property.RESPONSE_TOPIC, t)),
    "content type": (0x81, lambda t: (Property.CONTENT_TYPE, t)),
    "user property": (0x81, lambda t: (Property.USER_PROPERTY, (b"k", t))),
    "name of a user property": (0x81, lambda t: (Property.USER_PROPERTY, (t, b"v"))),
}


def text(code: int) -> str:
    return f"a{chr(code)}b"


def taken(broker: Broker, version: int, code: int) -> bool:
    """Whether the bare broker takes a message on a topic with this character."""
    wire = dial_unix(broker.socket)
    assert wire.connect(version=version, client_id=f"c{version}", username="org").code == 0
    try:
        wire.publish(f"org/{text(code)}", qos=1)
    except (ClosedError, AssertionError, OSError):
        return False
    finally:
        wire.close()
    return True


def test_the_edge_refuses_exactly_what_mosquitto_refuses(broker: Broker) -> None:
    assert [hex(code) for code in UNFIT if taken(broker, 4, code)] == []
    assert [hex(code) for code in FIT if not taken(broker, 4, code)] == []
    assert [hex(code) for code in UNFIT if unfit_character(text(code)) != f"U+{code:04X}"] == []
    assert [hex(code) for code in FIT if unfit_character(text(code))] == []


@BOTH
@pytest.mark.parametrize("place", CONNECTS)
@pytest.mark.parametrize("code", [0x01, 0x7F, 0x85, 0xFDD0, 0xFFFF, 0x1FFFE], ids=hex)
def test_a_connect_with_such_a_character_is_refused_by_name(place: str, version: int, code: int) -> None:
    five, three, make = CONNECTS[place]
    connect = make(text(code))
    connect.version = version
    sink = ListSink()
    session = Session(Origin("127.0.0.1", 1, "mqtts"), sink)
    session.client_received(codec.encode_connect(connect))
    assert session.ended
    assert codec.decode_connack(b"".join(session.to_client)[2:], version).code == (five if version == 5 else three)
    assert session.to_broker == []
    [event] = sink.events
    assert (event.kind, event.reason) == ("auth_failed", "protocol")
    assert "control character" in str(event.details["text"])


@BOTH
@pytest.mark.parametrize("place", PACKETS)
@pytest.mark.parametrize("code", [0x01, 0x7F, 0x85, 0xFDD0, 0xFFFF, 0x1FFFE], ids=hex)
def test_a_packet_with_such_a_character_ends_the_session_with_its_code(place: str, version: int, code: int) -> None:
    reason, make = PACKETS[place]
    bench = Bench(version)
    bench.session.client_received(make(version, text(code)))
    said = bench.client()
    assert (said[:1] + said[2:3], bench.broker()) == (bytes([0xE0, reason]) if version == 5 else b"", b"")
    told(bench, reason)


@pytest.mark.parametrize("place", PROPERTIES)
@pytest.mark.parametrize("code", [0x0A, 0x9F, 0x10FFFF], ids=hex)
def test_a_property_with_such_a_character_ends_the_session_with_its_code(place: str, code: int) -> None:
    reason, make = PROPERTIES[place]
    bench = Bench(5)
    said, upstream = bench.publish("a", properties=Properties([make(text(code).encode())]))
    assert (said[:1] + said[2:3], upstream) == (bytes([0xE0, reason]), b"")
    told(bench, reason)


@BOTH
def test_such_a_character_never_reaches_the_broker_over_a_topic_known_by_heart(version: int) -> None:
    bench = Bench(version)
    for _ in range(3):
        bench.publish("a b")
    assert bench.publish("a\x01b")[1] == b""
    told(bench, 0x90)


@BOTH
def test_a_filter_deeper_than_any_can_be_is_not_handed_on_to_be_given_up(version: int) -> None:
    """Mosquitto closes the connection over it."""
    bench = Bench(version)
    deepest = b"$share/g" + b"/a" * MAX_LEVELS
    bench.session.client_received(codec.encode_unsubscribe(Unsubscribe(1, [deepest]), version))
    assert bench.broker()
    bench.session.client_received(codec.encode_unsubscribe(Unsubscribe(2, [deepest + b"/a"]), version))
    assert bench.broker() == b""
    told(bench, 0x8F)


@BOTH
@pytest.mark.parametrize("kind", [Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP])
def test_an_acknowledgement_of_packet_0_ends_the_session(version: int, kind: Kind) -> None:
    bench = Bench(version)
    bench.session.client_received(packet(kind | (2 if kind == Kind.PUBREL else 0), u16(0)))
    assert bench.broker() == b""
    told(bench, 0x82)


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 2)], ids=["known by heart", "another size"])
def test_a_message_of_packet_0_ends_the_session(version: int, qos: int, sizes: tuple[int, int]) -> None:
    bench = Bench(version)
    properties = b"\0" if version == 5 else b""
    for packet_id, size in ((1, 1), (2, 1), (0, sizes[1])):
        head = packet(Kind.PUBLISH | qos << 1, binary(b"a"), u16(packet_id), properties, b"x" * size)
        bench.session.client_received(head)
        sent = bench.broker()
        assert bool(sent) is bool(packet_id)
    told(bench, 0x82)


def told(bench: Bench, reason: int) -> None:
    """The session has ended, and the audit blames the client."""
    assert bench.session.ended
    event = bench.sink.events[-1]
    assert (event.kind, event.reason) == ("session_closed", "protocol")
    assert event.details["reason_code"] == reason


@pytest.mark.parametrize("action", ["pub", "sub", "receive"])
@pytest.mark.parametrize("code", [0x01, 0x85, 0xFDD0, 0x1FFFE], ids=hex)
def test_the_simulator_says_the_same(action: str, code: int) -> None:
    policy = parse(ALLOW_ALL).policy
    assert policy is not None
    identity = Identity("org_aaaaaaaaaaaa", "dev", "c", {})
    now = datetime.now(UTC)
    request = Request(identity, action, text(code), 0, False)  # type: ignore[arg-type]
    decision = explain(policy, request, now=now).decision
    noun = "topic filter" if action == "sub" else "topic"
    assert (decision.allowed, decision.reason) == (False, f"the {noun} contains the character U+{code:04X}")
    compiled = compile_policy(policy)
    answers = {
        "pub": lambda: compiled.publish(identity, text(code), qos=0, retain=False, now=now),
        "sub": lambda: compiled.subscribe(identity, text(code), now=now),
        "receive": lambda: compiled.receive(identity, text(code), now=now),
    }
    assert answers[action]() == decision


@BOTH
def test_the_broker_is_not_blamed_for_it(rig: Rig, version: int) -> None:
    """On the wire: an answer to each, an event of the right kind, and the others go on."""
    org = rig.org()
    issued = rig.plane.issue(org, f"v{version}")
    bystander = rig.client(issued, version=version, client_id="bystander")
    wire = rig.dial()
    answer = wire.connect(version=version, client_id="a\x7f", username=issued.username, password=issued.password)
    assert answer.code == (0x85 if version == 5 else 2)
    rig.client(issued, version=version, client_id="talker").send(codec.encode_publish(Publish(b"a\x01", b""), version))
    closed = rig.plane.event(org=org, kind="session_closed", client_id="talker")
    assert (closed.reason, closed.details["reason_code"]) == ("protocol", 0x90)
    bystander.ping()
    assert rig.plane.events(org=org, reason="upstream_lost") == []

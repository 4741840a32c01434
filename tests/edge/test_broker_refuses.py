"""Refusals of the broker that the policy does not explain are told: what, how often, which code, by which node."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.codec import Kind, Properties, Property, Publish, Subscribe, Subscription, Unsubscribe
from cloudsignal.edge.session.sent import NOTED_MAX, RECENT_BYTES
from cloudsignal.wire.audit import AuditEvent
from tests.support.parts import Broker, wait_for
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.session_bench import BOTH, ORG, Bench, active
from tests.support.wire import ClosedError

NODE = "broker.internal (10.0.0.5:8883)"
REASON = Properties([(Property.REASON_STRING, f"{ORG}/t/a is closed".encode())])


def bench(version: int = 5) -> Bench:
    """A session on a named node."""
    made = Bench(version)
    made.session.broker_node = NODE
    return made


def of(made: Bench, kind: str) -> list[AuditEvent]:
    return [event for event in made.sink.events if event.kind == kind]


def publish(made: Bench, *topics: str, qos: int = 1) -> None:
    """Send messages in one read, numbered from 1."""
    messages = (Publish(topic.encode(), b"x", qos, packet_id=number) for number, topic in enumerate(topics, 1))
    made.session.client_received(b"".join(codec.encode_publish(message, made.version) for message in messages))


def subscribe(made: Bench, *filters: str) -> None:
    entries = [Subscription(one.encode(), 1) for one in filters]
    made.session.client_received(codec.encode_subscribe(Subscribe(1, entries), made.version))
    made.broker()


@pytest.mark.parametrize("kind", [Kind.PUBACK, Kind.PUBREC])
@pytest.mark.parametrize("properties", [b"", b"\0", REASON.encode()], ids=["bare", "no property", "a reason"])
def test_a_message_the_broker_refuses_is_an_event_with_topic_code_and_node(kind: Kind, properties: bytes) -> None:
    made = bench()
    qos = 1 if kind is Kind.PUBACK else 2
    publish(made, "a", "b/c", "d", qos=qos)
    made.session.broker_received(bytes([kind, 3 + len(properties), 0, 2, 0x87]) + properties)
    assert made.client()[:1] + made.client()[4:] in {bytes([kind])}, "the client is told, and not in the broker's words"
    [event] = of(made, "broker_refused")
    assert (event.topic, event.action, event.reason) == ("b/c", "publish", "not_authorized")
    assert event.details == {"code": "0x87", "packet": kind.name, "broker": NODE}
    assert made.session.live


def test_what_the_broker_refuses_again_and_again_is_one_event_with_an_exact_count() -> None:
    """A broker that reloads its script: 168 messages in six seconds, most of them on the hot path before."""
    made = bench()
    publish(made, *["a"] * 40)
    made.broker()
    for _ in range(4):
        publish(made, *["a"] * 42)
        made.session.broker_received(b"".join(bytes([0x40, 3, 0, number, 0x87]) for number in range(1, 43)))
    [event] = of(made, "broker_refused")
    assert (event.topic, event.count) == ("a", 168)


def test_after_the_first_refusal_the_topics_of_all_messages_under_way_are_known() -> None:
    made = bench()
    long = "x" * RECENT_BYTES
    publish(made, "a", long)
    made.session.broker_received(bytes([0x40, 3, 0, 1, 0x87]))
    publish(made, "a", "b", long)
    publish(made, *[f"t/{number}" for number in range(1, 4)])
    publish(made, long)  # a long read, so that nothing can be looked up in it
    made.session.broker_received(bytes([0x40, 3, 0, 2, 0x87, 0x40, 3, 0, 3, 0x87]))
    assert [event.topic for event in of(made, "broker_refused")] == ["", "t/2", "t/3"]
    publish(made, *["m"] * (2 * NOTED_MAX))
    assert len(made.session.sent._noted or {}) == NOTED_MAX


def test_a_limit_of_the_broker_is_told_from_a_refusal_and_what_the_client_causes_from_both() -> None:
    made = bench()
    publish(made, "a", "b", "c", "d", "e")
    made.session.broker_received(bytes([0x40, 3, 0, 1, 0x97, 0x40, 3, 0, 2, 0x91, 0x40, 3, 0, 3, 0x10, 0x40, 2, 0, 4]))
    made.session.broker_received(bytes([0x70, 3, 0, 9, 0x92, 0x40, 3, 0, 5, 0x99]))
    assert of(made, "broker_refused") == []
    [event] = of(made, "limit_reached")
    assert (event.reason, event.topic, event.details["code"]) == ("broker_quota", "a", "0x97")
    assert made.client().count(b"\x40") == 5, "the client hears everything"


@BOTH
def test_a_subscription_the_broker_refuses_is_an_event_for_each_filter(version: int) -> None:
    made = bench(version)
    subscribe(made, "a/#", "b", "$share/g/c")
    code = 0x87 if version == 5 else 0x80
    made.session.broker_received(codec.suback(1, [1, code, code], version))
    assert made.client() == codec.suback(1, [1, code, code], version)
    told = [(event.topic, event.action, event.reason, event.details["packet"]) for event in of(made, "broker_refused")]
    why = "not_authorized" if version == 5 else "unspecified"
    assert told == [("b", "subscribe", why, "SUBACK"), ("$share/g/c", "subscribe", why, "SUBACK")]
    assert [event.topic for event in of(made, "subscribe")] == ["a/#"]


def test_a_subscription_that_comes_back_and_is_refused_is_an_event_too() -> None:
    made = bench()
    subscribe(made, "a")
    made.session.broker_received(codec.suback(1, [1], 5))
    for policy in ("version: '3'\nrules: []", "version: '3'\nrules: [{id: all, topic: '#'}]"):
        made.org.active = active(policy)
        made.session.adopt()
        made.session.rejudge()
    made.session.broker_received(codec.unsuback(65_535, [0], 5) + codec.suback(65_534, [0x87], 5))
    assert [event.topic for event in of(made, "broker_refused")] == ["a"]
    assert list(made.session.subscriptions.withheld) == [b"a"]


def test_a_subscription_the_broker_refuses_to_end_is_not_reported_as_ended() -> None:
    made = bench()
    subscribe(made, "a", "b")
    made.session.broker_received(codec.suback(1, [1, 1], 5))
    made.session.client_received(codec.encode_unsubscribe(Unsubscribe(2, [b"a", b"b", b"c"]), 5))
    made.session.broker_received(codec.unsuback(2, [0x87, 0, 0x11], 5))
    [event] = of(made, "broker_refused")
    assert (event.topic, event.action, event.details["packet"]) == ("a", "unsubscribe", "UNSUBACK")
    assert [event.topic for event in of(made, "unsubscribe")] == ["b"]
    assert list(made.session.subscriptions.live) == [b"a"]


@BOTH
def test_a_session_whose_broker_closes_names_the_node_and_the_one_packet_before(version: int) -> None:
    made = bench(version)
    publish(made, "a/b", qos=0)
    made.session.broker_lost()
    [event] = of(made, "session_closed")
    assert (event.reason, event.topic) == ("upstream_lost", "a/b")
    assert (event.details["broker"], event.details["after_packet"]) == (NODE, "PUBLISH")


@pytest.mark.parametrize("code", [0x80, 0x8B, 0x95])
def test_a_disconnect_of_the_broker_names_the_node_and_the_packet_too(code: int) -> None:
    made = bench()
    subscribe(made, "x/#", "y")
    made.session.broker_received(bytes([0xE0, 2, code, 0]))
    [event] = of(made, "session_closed")
    assert (event.topic, event.details["after_packet"], event.details["broker"]) == ("x/#", "SUBSCRIBE", NODE)
    assert event.details["reason_code"] == code


@pytest.mark.parametrize("case", ["two packets", "a ping", "answered", "long ago", "taken over"])
def test_no_packet_is_named_that_need_not_be_the_cause(case: str) -> None:
    made = bench()
    publish(made, *["a", "b"][: 2 if case == "two packets" else 1])
    if case == "a ping":
        made.session.client_received(b"\xc0\0")
    if case == "answered":
        made.session.broker_received(b"\x40\2\0\1")
    if case == "long ago":
        made.session.heard_at -= 10
    made.session.broker_lost(taken_over=case == "taken over")
    [event] = of(made, "session_closed")
    assert (event.topic, "after_packet" in event.details) == ("", False)


def told(rig: Rig, org: str, packet: str, count: int) -> AuditEvent:
    """The first event about what was refused with ``packet``, once all of them stand for so many."""

    def found() -> list[AuditEvent]:
        events = rig.plane.events(org=org, kind="broker_refused")
        alike = [event for event in events if event.details.get("packet") == packet]
        return alike if sum(event.count for event in alike) == count else []

    return min(wait_for(found, what=f"{count} times {packet}"), key=lambda event: event.ts)  # type: ignore[no-any-return]


def test_a_real_broker_that_refuses_is_told_of_and_so_is_the_message_it_closes_for(tmp_path: Path) -> None:
    acl = "pattern readwrite %u/#\npattern deny %u/t/closed\n"
    rig = build_rig(tmp_path, broker=Broker(tmp_path, acl=acl, extra="max_packet_size 2000\n"))
    try:
        org = rig.org()
        issued = rig.plane.issue(org, "dev")
        wire, three = rig.client(issued, client_id="c1"), rig.client(issued, client_id="c2", version=4)
        assert [wire.publish(topic, qos=1, packet_id=7) for topic in ("open", "closed", "closed")] == [0x10, 0x87, 0x87]
        assert wire.publish("closed", qos=2, packet_id=8) == 0x87
        for packet, count in (("PUBACK", 2), ("PUBREC", 1)):
            event = told(rig, org, packet, count)
            assert (event.topic, event.details["code"]) == ("closed", "0x87")
            assert event.details["broker"] == str(rig.broker.socket)
        for client, name in ((wire, "c1"), (three, "c2")):
            with pytest.raises((ClosedError, AssertionError, OSError)):
                client.publish("large", b"x" * 4_000, qos=1, packet_id=9)
            event = rig.plane.event(org=org, kind="session_closed", client_id=name)
            assert (event.topic, event.details["after_packet"]) == ("large", "PUBLISH")
    finally:
        stop_rig(rig)

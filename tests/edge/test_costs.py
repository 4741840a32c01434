"""What a packet may hold: decided while it is read, so that none costs more than its share."""

from __future__ import annotations

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.codec import Connect, Properties, Property, Subscribe, Subscription, Unsubscribe, Will
from cloudsignal.edge.codec.packets import FILTERS_MAX
from cloudsignal.edge.codec.properties import EARLY_USER_PROPERTIES_MAX, USER_PROPERTIES_MAX
from cloudsignal.edge.session import Session
from cloudsignal.edge.trail import ListTrail, Origin
from tests.edge.test_session import ORG, Bench
from tests.support import attacks

BOTH = pytest.mark.parametrize("version", [4, 5])


def users(count: int) -> Properties:
    return Properties([(Property.USER_PROPERTY, (b"name", b"%d" % number)) for number in range(count)])


def closed(bench: Bench, text: str) -> None:
    """The session has ended with 0x97, and the event says which limit."""
    assert bench.session.ended
    event = bench.trail.events[-1]
    assert (event.kind, event.reason, event.details["reason_code"]) == ("session_closed", "protocol", 0x97)
    assert event.details["text"] == text


def test_user_properties_of_a_message_are_limited() -> None:
    bench = Bench(5)
    _, upstream = bench.publish("a", properties=users(USER_PROPERTIES_MAX))
    assert upstream
    assert bench.publish("a", properties=users(USER_PROPERTIES_MAX + 1)) == (b"\xe0\x01\x97", b"")
    closed(bench, "a packet has more than 256 user properties")


@pytest.mark.parametrize("place", ["connect", "will"])
def test_user_properties_before_sign_in_are_limited_far_lower(place: str) -> None:
    def come(count: int) -> tuple[Session, ListTrail]:
        trail = ListTrail()
        session = Session(Origin("127.0.0.1", 1, "mqtts"), trail)
        connect = Connect(5, "c", properties=users(count))
        if place == "will":
            connect = Connect(5, "c", will=Will(b"w", b"", properties=users(count)))
        session.client_received(codec.encode_connect(connect))
        return session, trail

    assert not come(EARLY_USER_PROPERTIES_MAX)[0].ended
    session, trail = come(EARLY_USER_PROPERTIES_MAX + 1)
    assert b"".join(session.to_client) == b"\x20\x03\0\x97\0"
    assert (trail.events[0].reason, trail.events[0].details["text"]) == (
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
    closed(bench, "a packet has more than 4096 topic filters")


@pytest.mark.parametrize(
    ("packet", "most"),
    [
        (attacks.publish("a"), 2 * USER_PROPERTIES_MAX),
        (attacks.subscribe(), FILTERS_MAX),
        (attacks.unsubscribe(), FILTERS_MAX),
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

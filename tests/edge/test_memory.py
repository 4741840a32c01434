"""What one session, and one organization, may make the edge hold: bounded in bytes."""

from __future__ import annotations

import sys

import pytest

from audit.kinds import LIMIT_REACHED
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import Connect, Kind, Properties, Property, Publish, Subscribe, Subscription
from cloudsignal.edge.session import memo, subscriptions
from cloudsignal.edge.session.context import CONNECT_MAX
from cloudsignal.edge.session.machine import CLIENT_ID_MAX, Session
from cloudsignal.edge.session.memo import SESSION_BYTES, Memo, Purse
from cloudsignal.edge.session.uplink import ALIAS_BYTES
from cloudsignal.wire.bundle import Quotas
from tests.support.session_bench import BOTH, ORG, Bench
from tests.support.trail import ListSink

PREFIX = f"{ORG}/t/".encode()


def held(bench: Bench) -> int:
    """Bytes of the texts in everything the session remembers, counted one by one."""
    session = bench.session
    memos: list[Memo[object, object]] = [
        getattr(part, name)
        for part, names in ((session.uplink, "_heads _topics"), (session.downlink, "_heads _topics"))
        for name in names.split()
    ]
    memos += [session.authorizer._publish, session.authorizer._receive]  # type: ignore[list-item]
    return sum(sys.getsizeof(text) for one in memos for text in (*one.known.keys(), *one.known.values()))


def chatter(bench: Bench, topics: int, size: int) -> None:
    """Publish and receive on so many topics, twice each."""
    for number in range(topics):
        topic = f"{number}/".encode().ljust(size, b"x")
        for length in (1, 2):
            bench.session.client_received(codec.encode_publish(Publish(topic, b"p" * length), bench.version))
            bench.session.broker_received(codec.encode_publish(Publish(PREFIX + topic, b"p" * length), bench.version))
            bench.client()
            bench.broker()


@BOTH
@pytest.mark.parametrize("size", [20, 1_000, 4_000, 60_000])
def test_a_session_remembers_topics_within_its_bytes(version: int, size: int) -> None:
    bench = Bench(version)
    chatter(bench, 600 if size < 5_000 else 40, size)
    assert held(bench) < SESSION_BYTES
    assert bench.session.purse.held <= SESSION_BYTES
    assert bench.session.messages_in == bench.session.messages_out


def test_ordinary_topics_are_remembered() -> None:
    bench = Bench(5)
    chatter(bench, 100, 40)
    assert bench.session.purse.held > 100 * 4 * 40
    asked = bench.session.authorizer.active.policy
    assert asked is not None
    assert len(bench.session.uplink._topics.known) == len(bench.session.downlink._topics.known) == 100


def test_sessions_of_one_organization_share_its_bytes_and_give_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (Bench(5) for _ in range(3))
    shared = Purse(100_000)
    for bench in (first, second, third):
        bench.session.purse.parent = shared
        bench.session.forget()
        chatter(bench, 300, 40)
        assert shared.held <= 100_000
    assert first.session.purse.held + second.session.purse.held + third.session.purse.held == shared.held
    assert shared.scarce
    first.session.forget()
    assert first.session.purse.held == 0
    second.session.release()
    assert shared.held == third.session.purse.held
    third.session.adopt()
    assert shared.held == 0


def test_a_packet_that_is_not_complete_counts_against_its_organization() -> None:
    one, other = Bench(5), Bench(5)
    other.session.org = one.org
    one.org.unfinished = Purse(300_000)
    packet = codec.encode_publish(Publish(b"a", bytes(200_000)), 5)
    one.session.client_received(packet[:100])
    assert one.org.unfinished.held == len(packet)
    other.session.client_received(packet[:100])
    assert other.client() == codec.disconnect(0x97, "the organization has too many unfinished packets")
    assert LIMIT_REACHED in other.kinds()
    one.session.client_received(packet[100:])
    assert one.broker()
    assert one.org.unfinished.held == 0
    one.session.client_received(packet[:-1])
    one.session.client_lost()
    one.session.release()
    assert one.org.unfinished.held == 0


def test_aliases_stand_for_so_many_bytes_of_topics() -> None:
    bench = Bench(5)
    size = ALIAS_BYTES // 4
    for alias in range(1, 5):
        properties = Properties([(Property.TOPIC_ALIAS, alias)])
        bench.session.client_received(codec.encode_publish(Publish(b"x" * size, b"", properties=properties), 5))
        assert not bench.session.ended
    properties = Properties([(Property.TOPIC_ALIAS, 5)])
    bench.session.client_received(codec.encode_publish(Publish(b"y", b"", properties=properties), 5))
    assert bench.client() == codec.disconnect(0x97, "topic aliases stand for more than 16384 bytes of topics")


@BOTH
def test_filters_of_a_session_have_so_many_bytes_together(version: int) -> None:
    bench = Bench(version, quotas=Quotas(subscriptions_per_session=100))
    over = 0x97 if version == 5 else 0x80
    long = [b"%d" % number + b"x" * 30_000 for number in range(4)]
    for number, topic_filter in enumerate(long, 1):
        packet = codec.encode_subscribe(Subscribe(number, [Subscription(topic_filter, 0)]), version)
        bench.session.client_received(packet)
    assert bench.client() == b"".join(codec.suback(number, [over], version) for number in (3, 4))
    short = [Subscription(b"%d" % number + b"x" * 200, 0) for number in range(90)]
    bench.broker()
    bench.session.client_received(codec.encode_subscribe(Subscribe(9, short), version))
    assert bench.broker(), "as many as the quota says have room when they are short"


@BOTH
@pytest.mark.parametrize("kind", [Kind.SUBSCRIBE, Kind.UNSUBSCRIBE])
def test_what_the_broker_has_not_answered_is_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, version: int, kind: Kind
) -> None:
    monkeypatch.setattr(subscriptions, "PENDING_BYTES", 100_000)
    bench = Bench(version)
    topic_filter = b"x" * 40_000
    sent = 0
    while not bench.session.ended:
        sent += 1
        bench.session.client_received(
            codec.encode_subscribe(Subscribe(sent, [Subscription(topic_filter, 0)]), version)
            if kind is Kind.SUBSCRIBE
            else codec.encode_unsubscribe(codec.Unsubscribe(sent, [topic_filter]), version)
        )
        assert sent < 10
    assert sent == 4
    assert bench.session.subscriptions._pending_bytes == 3 * 40_000


@BOTH
def test_answers_of_the_broker_make_room_again(version: int) -> None:
    bench = Bench(version)
    refused = Subscription(b"$nobody/" + b"x" * 10_000, 0)
    for number in range(1, 40):
        packet = Subscribe(number, [Subscription(b"x" * 40_000, 0), refused])
        bench.session.client_received(codec.encode_subscribe(packet, version))
        assert bench.session.subscriptions._pending_bytes == 40_000, "what is refused takes no room"
        bench.session.broker_received(codec.suback(number, [0], version))
        bench.session.client_received(
            codec.encode_unsubscribe(codec.Unsubscribe(number, [b"x" * 40_000]), version),
        )
        bench.session.broker_received(codec.unsuback(number, [0] if version == 5 else [], version))
    assert bench.session.subscriptions._pending_bytes == 0
    assert not bench.session.ended


@BOTH
def test_before_sign_in_little_is_taken(version: int) -> None:
    session = Session(Origin("::1", 1, "mqtts"), ListSink())
    session.client_received(b"\x10" + codec.varint(CONNECT_MAX + 1) + b"\0\4MQTT" + bytes([version]))
    assert session.ended
    answer = session.to_client[0] if version == 5 else codec.connack(5, 0x95)
    assert codec.decode_connack(answer[2:], 5).code == 0x95
    assert CONNECT_MAX < 100_000
    session = Session(Origin("::1", 1, "mqtts"), ListSink())
    session.client_received(codec.encode_connect(Connect(version, "c" * (CLIENT_ID_MAX + 1))))
    answer = codec.decode_connack(session.to_client[0][2:], version)
    assert answer.code == (0x85 if version == 5 else 2)
    text = b"the client ID is longer than 1024 bytes" if version == 5 else None
    assert answer.properties.string(Property.REASON_STRING) == text


def test_nothing_large_of_a_connect_is_kept() -> None:
    bench = Bench(5, connect={"properties": Properties([(Property.USER_PROPERTY, (b"k", b"v" * 1_000))] * 20)})
    assert not list(bench.session.connect.properties)
    session = Session(Origin("::1", 1, "mqtts"), ListSink())
    session.client_received(codec.encode_connect(Connect(5, "c", username="x" * 60_000)))
    session.forget_connect()
    assert not session.connect.username


def test_a_purse_holds_no_more_than_its_limit_and_its_parents() -> None:
    parent = Purse(10)
    one, other = Purse(8, parent), Purse(8, parent)
    assert one.take(7)
    assert not one.take(2)
    assert not other.take(4)
    assert other.take(3)
    one.give(7)
    assert (one.held, other.held, parent.held) == (0, 3, 3)
    assert memo.ENTRY > 0

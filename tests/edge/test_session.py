"""The session machine without sockets: bytes in, bytes out, events."""

from __future__ import annotations

import time

import pytest

from audit.kinds import AuthReason, CloseCause
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import Connect, Kind, Properties, Property, Publish, Subscribe, Subscription, Will
from cloudsignal.edge.session import responses
from cloudsignal.edge.session.context import Grant, Phase
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.mountpoint import MAX_TOPIC_BYTES, Mount, MountError, upstream_client_id
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.uplink import PUBLISH_DENIED
from cloudsignal.wire.bundle import Quotas
from tests.support.session_bench import ALL, BOTH, ORG, Bench, active, unpack
from tests.support.trail import ListSink


@BOTH
def test_connect_goes_upstream_as_the_organization_with_everything_mounted(version: int) -> None:
    will = Will(b"w/t", b"bye", 1, True, Properties([(Property.RESPONSE_TOPIC, b"r")] if version == 5 else []))
    bench = Bench(version, connect={"will": will, "username": "dev@x", "password": b"s", "keep_alive": 30})
    sent = codec.decode_connect(0x10, bench.sent_upstream[2 if bench.sent_upstream[1] < 128 else 3 :])
    assert (sent.username, sent.password, sent.client_id) == (ORG, None, f"{ORG}:c1")
    assert sent.will is not None
    assert (sent.will.topic, sent.will.qos, sent.will.retain) == (f"{ORG}/t/w/t".encode(), 1, True)
    if version == 5:
        assert sent.will.properties.string(Property.RESPONSE_TOPIC) == f"{ORG}/t/r".encode()
    assert bench.kinds() == ["connect"]


@BOTH
def test_publish_and_delivery_are_mounted_both_ways_for_every_size_and_topic(version: int) -> None:
    bench = Bench(version)
    for topic, mounted in (("a/b", f"{ORG}/t/a/b"), ("$app/x", f"{ORG}/s/app/x"), ("ü", f"{ORG}/t/ü")):
        for size in (0, 1, 90, 100, 127, 128, 200, 16_300, 16_400):
            for qos in (0, 1, 2):
                message = Publish(topic.encode(), b"p" * size, qos, packet_id=7 if qos else 0)
                raw = codec.encode_publish(message, version)
                expected = codec.encode_publish(
                    Publish(mounted.encode(), b"p" * size, qos, packet_id=message.packet_id), version
                )
                for _ in range(2):  # the second one takes the hot path
                    bench.session.client_received(raw)
                    assert bench.broker() == expected
                    bench.session.broker_received(expected)
                    assert bench.client() == raw


@BOTH
@pytest.mark.parametrize("step", [1, 3, 10])
def test_a_stream_cut_anywhere_gives_the_same_packets(version: int, step: int) -> None:
    whole, pieces = Bench(version), Bench(version)
    stream = (
        b"".join(
            codec.encode_publish(Publish(b"t/%d" % (n % 3), b"x" * n, n % 3, packet_id=n + 1 if n % 3 else 0), version)
            for n in range(150)
        )
        + b"\xc0\0"
    )
    whole.session.client_received(stream)
    for position in range(0, len(stream), step):
        pieces.session.client_received(stream[position : position + step])
    assert pieces.broker() == whole.broker()
    assert pieces.session.messages_in == whole.session.messages_in == 150


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_that_begin_alike_are_the_same_in_one_read_as_each_alone(version: int, qos: int) -> None:
    """One comparison does for a header that repeats: it must not pass over what differs behind it."""

    def stream(topic: str, response: str) -> list[bytes]:
        packets = []
        for n in range(1, 13):
            properties = Properties([(Property.RESPONSE_TOPIC, response.encode())] if version == 5 and n == 6 else [])
            payload = b"%060d" % n
            if properties:
                payload = payload[3 + len(response) :]  # of the same size: only the properties tell it apart
            message = Publish(topic.encode(), payload, qos, packet_id=n if qos else 0, properties=properties)
            packets.append(codec.encode_publish(message, version))
        assert len({packet[: 4 + len(topic)] for packet in packets}) == 1
        return packets

    up, down = stream("a/b", "r"), stream(f"{ORG}/t/a/b", f"{ORG}/t/r")
    alone, together = Bench(version), Bench(version)
    for packet in up:
        alone.session.client_received(packet)
    for packet in down:
        alone.session.broker_received(packet)
    for part in (up[:2], up[2:]):
        together.session.client_received(b"".join(part))
    whole = b"".join(down)
    for piece in (whole[:20], whole[20:700], whole[700:]):
        together.session.broker_received(piece)
    assert (together.session.messages_in, together.session.messages_out) == (12, 12)
    upstream, delivered = together.broker(), together.client()
    assert (upstream, delivered) == (alone.broker(), alone.client())
    if version == 5:
        assert upstream.count(f"{ORG}/t/r".encode()) == 1
        assert ORG.encode() not in delivered


@BOTH
def test_an_identifier_of_zero_ends_the_session_also_amid_messages_that_begin_alike(version: int) -> None:
    bench = Bench(version)
    packets = [codec.encode_publish(Publish(b"a", b"x", 1, packet_id=n), version) for n in (1, 2, 3, 4, 5)]
    packets[3] = packets[3].replace(b"\0\4", b"\0\0")
    bench.session.client_received(packets[0])
    bench.broker()
    bench.session.client_received(b"".join(packets[1:]))
    assert bench.session.ended
    assert bench.broker().count(f"{ORG}/t/a".encode()) == 2


def test_nothing_shares_a_record_with_suback_or_connack_and_deliveries_share_theirs() -> None:
    """MQTT.js calls back after all packets of a record; every further cut would cost throughput."""
    bench = Bench(answered=False)
    deliveries = [codec.encode_publish(Publish(f"{ORG}/t/a".encode(), b"x"), 5)] * 200
    bench.session.broker_received(b"".join([codec.connack(5, 0), *deliveries]))
    assert bench.session.cuts == (1,)
    bench.client()
    bench.session.cuts = ()
    bench.session.client_received(codec.encode_subscribe(Subscribe(1, [Subscription(b"a", 0)]), 5))
    bench.session.broker_received(b"".join([*deliveries, codec.suback(1, [0], 5), *deliveries]))
    (cut,) = bench.session.cuts
    before = b"".join(bench.session.to_client[:cut])
    assert before.endswith(codec.suback(1, [0], 5))
    assert len(before) > 200
    bench.client()
    bench.session.cuts = ()
    bench.session.broker_received(b"".join(deliveries))
    assert bench.session.cuts == ()


def test_aliases_end_at_the_edge() -> None:
    bench = Bench()
    alias = Properties([(Property.TOPIC_ALIAS, 3), (Property.USER_PROPERTY, (b"k", b"v"))])
    _, first = bench.publish("a/b", properties=alias)
    _, second = bench.publish("", properties=alias)
    assert first == second
    sent = unpack(first)
    assert sent.topic == f"{ORG}/t/a/b".encode()
    assert sent.properties.items == [(Property.USER_PROPERTY, (b"k", b"v"))]
    bench.publish("", properties=Properties([(Property.TOPIC_ALIAS, 4)]))
    assert bench.session.phase is Phase.CLOSED


def test_an_alias_is_judged_by_the_topic_it_stands_for() -> None:
    bench = Bench(policy="version: '3'\nrules: [{id: ok, topic: 'ok'}]")
    alias = Properties([(Property.TOPIC_ALIAS, 1)])
    assert bench.publish("no", qos=1, packet_id=1, properties=alias) == (
        codec.acknowledgement(Kind.PUBACK, 1, 5, 0x87, PUBLISH_DENIED),
        b"",
    )
    assert bench.publish("", qos=1, packet_id=2, properties=alias) == (
        codec.acknowledgement(Kind.PUBACK, 2, 5, 0x87, PUBLISH_DENIED),
        b"",
    )
    assert bench.publish("ok", qos=1, packet_id=3, properties=alias)[1]


def test_response_topics_are_mounted_both_ways_and_foreign_ones_dropped() -> None:
    bench = Bench()
    _, up = bench.publish("a", properties=Properties([(Property.RESPONSE_TOPIC, b"$re/x")]))
    assert unpack(up).properties.string(Property.RESPONSE_TOPIC) == f"{ORG}/s/re/x".encode()
    own = Properties([(Property.RESPONSE_TOPIC, f"{ORG}/t/re".encode()), (Property.SUBSCRIPTION_ID, 9)])
    down, _ = bench.deliver(f"{ORG}/t/a".encode(), properties=own)
    assert unpack(down).properties.items == [(Property.RESPONSE_TOPIC, b"re"), (Property.SUBSCRIPTION_ID, 9)]
    foreign = Properties([(Property.RESPONSE_TOPIC, b"org_bbbbbbbbbbbb/t/re")])
    down, _ = bench.deliver(f"{ORG}/t/a".encode(), properties=foreign)
    assert unpack(down).properties.items == []


@BOTH
def test_a_delivery_outside_the_mount_closes_and_is_critical(version: int) -> None:
    bench = Bench(version)
    down, _ = bench.deliver(b"org_bbbbbbbbbbbb/t/x")
    assert b"org_b" not in down
    assert bench.session.ended
    assert "critical" in bench.kinds()


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_a_read_full_of_messages_that_begin_alike_gets_no_more_than_the_quota(version: int, qos: int) -> None:
    """The quota was looked at once a read: one read of 256 KiB could hold 50,000 messages more."""
    bench = Bench(version, quotas=Quotas(messages_per_minute=10))
    message = codec.encode_publish(Publish(b"a", b"", qos, packet_id=1 if qos else 0), version)
    for number in (1, 4, 995):
        bench.session.client_received(message * number)
        while bench.session.unread:
            bench.session.client_received(b"")
    assert bench.broker().count(f"{ORG}/t/a".encode()) == 10
    assert bench.session.messages_in == 1_000
    assert bench.session.live


@BOTH
def test_the_end_by_a_delivery_outside_the_mount_counts_everything_delivered_before_it(version: int) -> None:
    """Also what came in the same read and was known by its header."""
    bench = Bench(version)
    inside, outside = (
        codec.encode_publish(Publish(topic.encode(), b"x"), version) for topic in (f"{ORG}/t/a", "org_b/t/a")
    )
    bench.session.broker_received(inside * 5 + outside)
    [closed] = [event for event in bench.sink.events if event.kind == "session_closed"]
    assert (closed.reason, closed.details["messages_out"]) == ("invariant", 5)
    assert bench.session.messages_out == 5


def test_a_denied_publish_of_3_1_1_goes_through_its_whole_handshake_with_the_edge() -> None:
    bench = Bench(4, policy="version: '3'\nrules: []")
    assert bench.publish("x") == (b"", b"")
    assert bench.publish("x", qos=1, packet_id=1) == (b"\x40\2\0\1", b"")
    assert bench.publish("x", qos=2, packet_id=2) == (b"\x50\2\0\2", b"")
    bench.session.client_received(b"\x62\2\0\2")
    assert (bench.client(), bench.broker()) == (b"\x70\2\0\2", b"")
    bench.session.client_received(b"\x62\2\0\2")
    assert (bench.client(), bench.broker()) == (b"", b"\x62\2\0\2")
    (event,) = [event for event in bench.sink.events if event.kind == "acl_denied"]
    assert event.count == 3


def test_a_denied_delivery_is_acknowledged_for_the_client() -> None:
    bench = Bench(policy="version: '3'\nrules: [{id: ok, topic: 'ok'}]")
    topic = f"{ORG}/t/no".encode()
    assert bench.deliver(topic) == (b"", b"")
    assert bench.deliver(topic, qos=1, packet_id=5) == (b"", b"\x40\2\0\5")
    assert bench.deliver(topic, qos=2, packet_id=6) == (b"", b"\x50\2\0\6")
    bench.session.broker_received(b"\x62\2\0\6")
    assert (bench.client(), bench.broker()) == (b"", b"\x70\2\0\6")


def test_what_the_broker_says_in_words_never_reaches_the_client() -> None:
    """Reason strings and user properties of a broker may name topics as it sees them (MQTT 5 s3.4.2.2, s3.14.2.2)."""
    told = Properties([(Property.REASON_STRING, ORG.encode()), (Property.USER_PROPERTY, (b"topic", ORG.encode()))])
    block = told.encode()
    for first in (0x40, 0x50, 0x62, 0x70):
        bench = Bench()
        bench.session.broker_received(codec.packet(first, b"\0\1\x10", block))
        assert bench.client() == codec.packet(first, b"\0\1\x10")
    bench = Bench()
    bench.session.client_received(codec.encode_subscribe(Subscribe(1, [Subscription(b"a", 0)]), 5))
    bench.session.broker_received(codec.packet(0x90, b"\0\1", block, b"\0"))
    assert bench.client() == codec.suback(1, [0], 5)
    bench.session.client_received(codec.encode_unsubscribe(codec.Unsubscribe(2, [b"a"]), 5))
    bench.session.broker_received(codec.packet(0xB0, b"\0\2", block, b"\0"))
    assert bench.client() == codec.unsuback(2, [0], 5)
    bench.session.broker_received(codec.packet(0xE0, b"\x8e", block))
    assert bench.client() == codec.disconnect(0x8E, responses.CLOSE_ANSWERS[CloseCause.TAKEN_OVER].text)
    refused = Bench(answered=False)
    refused.session.broker_received(codec.packet(0x20, b"\0\x87", block))
    unavailable = Properties([(Property.REASON_STRING, responses.AUTH_ANSWERS[AuthReason.UNAVAILABLE].text.encode())])
    assert refused.client() == codec.connack(5, 0x88, properties=unavailable)
    late = Bench(answered=False)
    server = Properties([*told, (Property.SERVER_REFERENCE, ORG.encode()), (Property.RESPONSE_INFORMATION, b"x")])
    late.session.broker_received(codec.packet(0x20, b"\0\0", server.encode()))
    assert ORG.encode() not in late.client()


def test_a_message_above_the_clients_maximum_is_discarded_as_if_sent() -> None:
    bench = Bench(connect={"properties": Properties([(Property.MAXIMUM_PACKET_SIZE, 30)])})
    for packet_id, size in ((1, 22), (2, 23)):
        # 2 fixed header, 3 topic, 2 packet id, 1 properties: 22 bytes of payload make 30.
        message = Publish(f"{ORG}/t/a".encode(), b"x" * size, 1, packet_id=packet_id)
        bench.session.broker_received(codec.encode_publish(message, 5))
    assert len(bench.client()) == 30
    assert bench.broker() == b"\x40\2\0\2"


@BOTH
def test_subscribe_answers_stand_in_the_order_of_the_filters(version: int) -> None:
    bench = Bench(version, policy="version: '3'\nrules: [{id: a, topic: 'a/#', qos: 1}, {id: b, topic: 'b'}]")
    message = Subscribe(9, [Subscription(f, 2) for f in (b"a/#", b"no", b"b", b"$share/g/a/x")])
    bench.session.client_received(codec.encode_subscribe(message, version))
    upstream = codec.decode_subscribe(0x82, bench.broker()[2:], version)
    assert [(e.topic_filter.decode(), e.qos) for e in upstream.entries] == [
        (f"{ORG}/t/a/#", 1),
        (f"{ORG}/t/b", 2),
        (f"$share/g/{ORG}/t/a/x", 1),
    ]
    bench.session.broker_received(codec.suback(9, [1, 2, 1], version))
    refusal = 0x87 if version == 5 else 0x80
    assert bench.client() == codec.suback(9, [1, refusal, 2, 1], version)
    assert bench.kinds() == ["connect", "acl_denied", "subscribe", "subscribe", "subscribe"]


def test_a_new_policy_is_believed_from_the_next_byte_on() -> None:
    bench = Bench()
    assert bench.publish("a", qos=1, packet_id=1)[1]
    bench.org.active = active("version: '3'\nrules: []")
    assert bench.publish("a", qos=1, packet_id=1) == (
        codec.acknowledgement(Kind.PUBACK, 1, 5, 0x87, PUBLISH_DENIED),
        b"",
    )
    assert bench.deliver(f"{ORG}/t/a".encode()) == (b"", b"")


def test_what_was_learned_is_forgotten_when_a_rule_expires() -> None:
    at = time.time() + 50
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    bench = Bench(policy=f"version: '3'\nrules: [{{id: brief, topic: '#', effect: deny, expires: {stamp}}}]")
    bench.publish("a", qos=1, packet_id=1)
    assert bench.session.authorizer.until == int(at)


@BOTH
def test_the_messages_of_a_minute_are_counted_per_organization(version: int) -> None:
    bench = Bench(version, quotas=Quotas(messages_per_minute=3))
    results = [bench.publish("a", qos=1, packet_id=n + 1)[1] != b"" for n in range(5)]
    assert results == [True, True, True, False, False]
    (event,) = [event for event in bench.sink.events if event.kind == "limit_reached"]
    assert (event.reason, event.count) == ("messages_per_minute", 2)


@BOTH
@pytest.mark.parametrize("cause", [cause for cause in CloseCause if cause is not CloseCause.NODE_LOST])
def test_every_cause_of_an_end_has_an_answer_and_one_event(version: int, cause: CloseCause) -> None:
    bench = Bench(version)
    bench.session.end(cause)
    bench.session.client_lost()
    assert bench.session.ended
    assert bench.kinds() == ["connect", "session_closed"]
    answer = bench.client()
    assert (answer[0] == Kind.DISCONNECT and answer[2] >= 0x80) if version == 5 else answer == b""
    says_goodbye = cause in {CloseCause.REVOKED, CloseCause.ORG_SUSPENDED, CloseCause.WILL_DENIED}
    assert (bench.broker() != b"") == says_goodbye


@BOTH
@pytest.mark.parametrize("reason", list(AuthReason))
def test_every_refusal_has_an_answer_and_one_event(version: int, reason: AuthReason) -> None:
    sink = ListSink()
    session = Session(Origin("::1", 1, "wss"), sink)
    session.client_received(codec.encode_connect(Connect(version, "c")))
    session.refuse(reason)
    assert [event.reason for event in sink.events] == [reason.value]
    data = b"".join(session.to_client)
    assert data[0] == Kind.CONNACK
    assert data[3] >= 0x80 if version == 5 else 1 <= data[3] <= 5


@BOTH
def test_an_end_is_told_once_whatever_follows(version: int) -> None:
    sink = ListSink()
    session = Session(Origin("::1", 1, "wss"), sink)
    session.client_received(codec.encode_connect(Connect(version, "c")))
    session.end(CloseCause.DRAINING)
    answer = b"".join(session.to_client)
    session.refuse(AuthReason.QUOTA)
    session.client_lost()
    assert [event.reason for event in sink.events] == ["unavailable"]
    assert b"".join(session.to_client) == answer


@BOTH
@pytest.mark.parametrize("cause", [cause for cause in CloseCause if cause is not CloseCause.NODE_LOST])
def test_a_will_is_dropped_also_when_the_end_comes_while_the_broker_answers(version: int, cause: CloseCause) -> None:
    bench = Bench(version, connect={"will": Will(b"w", b"gone")}, answered=False)
    bench.session.end(cause)
    dropped = cause in {CloseCause.REVOKED, CloseCause.ORG_SUSPENDED, CloseCause.WILL_DENIED}
    assert bench.broker() == ((b"\xe0\0" if version == 4 else codec.disconnect(0)) if dropped else b"")
    assert bench.kinds() == ["auth_failed"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "protocol") for code in (0x81, 0x82, 0x93, 0x95, 0x9B)),
        *((code, "upstream_lost") for code in (0x80, 0x8B)),
        (0x8E, "taken_over"),
    ],
)
def test_what_the_broker_ends_for_the_clients_fault_is_not_called_a_lost_broker(code: int, reason: str) -> None:
    bench = Bench()
    bench.session.broker_received(codec.disconnect(code))
    event = bench.sink.events[-1]
    assert (event.kind, event.reason, event.details["reason_code"]) == ("session_closed", reason, code)
    assert bench.client() == codec.disconnect(code, responses.CLOSE_ANSWERS[CloseCause(reason)].text)


@BOTH
@pytest.mark.parametrize("client_id", ["x" * 65_520, "%" * 30_000])
def test_a_client_id_that_gets_too_long_by_mounting_is_refused(version: int, client_id: str) -> None:
    sink = ListSink()
    session = Session(Origin("::1", 1, "wss"), sink)
    session.client_received(codec.encode_connect(Connect(version, client_id)))
    session.welcome(Grant(Organization(ORG, Mount.of(ORG), active(ALL)), "dev", client_id, "tok", 0, {}))
    assert codec.decode_connack(b"".join(session.to_client)[2:], version).code == (0x85 if version == 5 else 2)
    assert not session.to_broker
    assert [event.reason for event in sink.events] == ["protocol"]


@BOTH
def test_a_connect_in_many_pieces_is_looked_at_when_it_is_complete(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at all of it for each piece, somebody who has not signed in could keep a core busy."""
    looks: list[int] = []
    look = responses.first_packet

    def counted(data: bytes, limit: int) -> object:
        looks.append(len(data))
        return look(data, limit)

    monkeypatch.setattr(responses, "first_packet", counted)
    session = Session(Origin("::1", 1, "wss"), ListSink())
    packet = codec.encode_connect(Connect(version, "c", will=Will(b"w", b"x" * 60_000)))
    for position in range(0, len(packet), 20):
        session.client_received(packet[position : position + 20])
    assert session.phase is Phase.SIGNING_IN
    assert len(looks) < 5


def test_topics_that_get_too_long_by_mounting_are_refused() -> None:
    mount = Mount.of(ORG)
    room = MAX_TOPIC_BYTES - len(mount.plain)
    assert len(mount.topic(b"a" * room)) == MAX_TOPIC_BYTES
    with pytest.raises(MountError):
        mount.topic(b"a" * (room + 1))
    with pytest.raises(MountError):
        mount.filter(b"$share/g/" + b"a" * room)


@pytest.mark.parametrize("topic", [b"a", b"a/b", b"/", b"/a", b"$x", b"$SYS/a", b"a/$b", b"$", "ü/日".encode()])
def test_the_mount_is_reversible(topic: bytes) -> None:
    mount = Mount.of(ORG)
    assert mount.client_topic(mount.topic(topic)) == topic


def test_no_two_client_ids_meet_at_the_broker() -> None:
    ids = ["a", "a+b", "a%2Bb", "a%b", "a#", "a%23", '"', "%22", "\\", "a:b", "org_bbbbbbbbbbbb:a"]
    mapped = {upstream_client_id(ORG, client_id) for client_id in ids}
    assert len(mapped) == len(ids)
    assert all(name.startswith(f"{ORG}:") and "+" not in name and "#" not in name for name in mapped)


def test_a_repeat_that_a_new_policy_allows_is_the_brokers_to_the_end() -> None:
    """MQTT 3.1.1 s4.3.3: PUBREL goes to whoever holds the message, however often its identifier was refused before."""
    bench = Bench(4, policy="version: '3'\nrules: []")
    assert bench.publish("x", qos=2, packet_id=7) == (b"\x50\2\0\7", b"")
    bench.org.active = active(ALL)
    assert bench.publish("y", qos=2, packet_id=8)[1], "a topic that is known by heart from here on"
    upstream = bench.publish("x", qos=2, packet_id=7, duplicate=True)[1]
    assert unpack(upstream, 4).packet_id == 7
    bench.session.broker_received(b"\x50\2\0\7")
    assert bench.client() == b"\x50\2\0\7"
    bench.session.client_received(b"\x62\2\0\7")
    assert (bench.client(), bench.broker()) == (b"", b"\x62\2\0\7")


def test_an_identifier_of_a_refused_message_that_is_used_for_an_allowed_one_is_the_brokers_too() -> None:
    bench = Bench(4, policy="version: '3'\nrules: [{id: ok, topic: ok}]")
    bench.publish("ok", qos=2, packet_id=1)
    both = b"".join(
        codec.encode_publish(Publish(topic, b"payload", 2, packet_id=packet_id), 4)
        for topic, packet_id in ((b"no", 7), (b"no", 9), (b"ok", 7))
    )
    bench.session.client_received(both)
    assert bench.client() == b"\x50\2\0\7\x50\2\0\x09"
    assert unpack(bench.broker(), 4).packet_id == 7
    bench.session.client_received(b"\x62\2\0\7\x62\2\0\x09")
    assert (bench.client(), bench.broker()) == (b"\x70\2\0\x09", b"\x62\2\0\7")


def test_unfinished_messages_of_qos_2_beyond_receive_maximum_end_the_session() -> None:
    bench = Bench(5, answered=False)
    maximum = Properties([(Property.RECEIVE_MAXIMUM, 3)])
    bench.session.broker_received(codec.connack(5, 0, properties=maximum))
    assert codec.decode_connack(bench.client()[2:], 5).properties.number(Property.RECEIVE_MAXIMUM, 0) == 3
    for number in range(1, 4):
        assert bench.publish("a", qos=2, packet_id=number)[1]
    assert bench.publish("a", qos=2, packet_id=3, duplicate=True)[1], "a repetition counts once"
    assert bench.publish("a", qos=1, packet_id=9)[1], "one of QoS 1 is answered at once"
    bench.session.broker_received(codec.acknowledgement(Kind.PUBREC, 1, 5, 0x97))
    assert bench.client() == codec.acknowledgement(Kind.PUBREC, 1, 5, 0x97)
    assert bench.publish("a", qos=2, packet_id=4)[1], "one that the broker has refused is finished"
    bench.session.client_received(codec.acknowledgement(Kind.PUBREL, 2, 5))
    assert bench.publish("a", qos=2, packet_id=5)[1], "one that was released is finished"
    bench.broker()
    assert bench.publish("a", qos=2, packet_id=6)[0][2:3] == b"\x93"
    event = bench.sink.events[-1]
    assert (event.kind, event.reason, event.details["reason_code"]) == ("session_closed", "protocol", 0x93)


def test_refused_messages_do_not_count_against_receive_maximum() -> None:
    bench = Bench(5, policy="version: '3'\nrules: [{id: ok, topic: ok}]")
    bench.session.receive_maximum = 1
    for number in range(1, 6):
        assert bench.publish("no", qos=2, packet_id=number)[0] == codec.acknowledgement(
            Kind.PUBREC, number, 5, 0x87, PUBLISH_DENIED
        )
    assert bench.publish("ok", qos=2, packet_id=6)[1]
    assert bench.publish("ok", qos=2, packet_id=7)[0][2:3] == b"\x93"


def test_a_client_that_releases_a_refused_message_is_told_again() -> None:
    bench = Bench(5, policy="version: '3'\nrules: [{id: ok, topic: ok}]")
    assert bench.publish("no", qos=2, packet_id=5) == (
        codec.acknowledgement(Kind.PUBREC, 5, 5, 0x87, PUBLISH_DENIED),
        b"",
    )
    release = codec.acknowledgement(Kind.PUBREL, 5, 5)
    bench.session.client_received(release)
    assert (bench.client(), bench.broker()) == (codec.acknowledgement(Kind.PUBCOMP, 5, 5, 0x92), b"")
    bench.publish("no", qos=2, packet_id=5)
    assert bench.publish("ok", qos=2, packet_id=5)[1], "the identifier is used again"
    bench.session.client_received(release)
    assert (bench.client(), bench.broker()) == (b"", release)

"""Deliveries whose sizes vary take the short way, and every rule holds on it all the same."""

from __future__ import annotations

import pytest

from audit.kinds import ACL_DENIED, CRITICAL
from cloudsignal.edge import codec
from cloudsignal.edge.codec import Kind, Properties, Property, Publish
from tests.support.session_bench import BOTH, ORG, Bench, active, unpack

TOPIC = f"{ORG}/t/a/b".encode()


def deliver(bench: Bench, size: int, **options: object) -> tuple[bytes, bytes]:
    message = Publish(TOPIC, b"x" * size, **options)  # type: ignore[arg-type]
    bench.session.broker_received(codec.encode_publish(message, bench.version))
    return bench.client(), bench.broker()


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_size_arrives_whole_and_is_counted(version: int, qos: int) -> None:
    bench = Bench(version)
    for size in [0, 1, 2, *range(3, 400, 7), 16_384, 0]:
        to_client, to_broker = deliver(bench, size, qos=qos, packet_id=size + 1 if qos else 0)
        stream = codec.encode_publish(Publish(b"a/b", b"x" * size, qos=qos, packet_id=size + 1 if qos else 0), version)
        assert (to_client, to_broker) == (stream, b"")
    assert bench.session.messages_out == 62


def test_properties_are_looked_at_on_a_known_topic_too() -> None:
    bench = Bench(5)
    deliver(bench, 10)
    to_client, _ = deliver(bench, 11, properties=Properties([(Property.RESPONSE_TOPIC, f"{ORG}/t/r".encode())]))
    assert unpack(to_client).properties.string(Property.RESPONSE_TOPIC) == b"r"


def test_a_packet_too_large_for_the_client_is_acknowledged_and_dropped_on_a_known_topic_too() -> None:
    bench = Bench(5, connect={"properties": Properties([(Property.MAXIMUM_PACKET_SIZE, 100)])})
    assert deliver(bench, 50, qos=1, packet_id=1)[0]
    to_client, to_broker = deliver(bench, 120, qos=1, packet_id=2)
    assert to_client == b""
    assert to_broker[:4] == bytes([Kind.PUBACK, 2, 0, 2])


@BOTH
def test_a_new_policy_is_believed_at_once_on_a_known_topic(version: int) -> None:
    bench = Bench(version)
    assert deliver(bench, 5)[0]
    assert deliver(bench, 6)[0]
    bench.org.active = active("version: '3'\nrules: []")
    assert deliver(bench, 7) == (b"", b"")
    assert bench.kinds()[-1] == ACL_DENIED


@BOTH
@pytest.mark.parametrize("packet", [b"\x30\x00", b"\x30\x01a", b"\x30\x02\x00\x05", b"\x36\x05\x00\x01a\x00\x01"])
def test_a_delivery_that_is_cut_short_or_impossible_is_critical(version: int, packet: bytes) -> None:
    bench = Bench(version)
    deliver(bench, 5)
    bench.session.broker_received(packet)
    assert bench.session.ended
    assert CRITICAL in bench.kinds()

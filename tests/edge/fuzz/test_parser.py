"""Malformed bytes: no exception, no hang, no memory growth; a bad packet ends the connection with its reason."""

from __future__ import annotations

import asyncio
import os
import random
import time

import psutil
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acl.policy.engine.topics import unfit_character
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import ProtocolError
from cloudsignal.edge.session.context import Phase
from cloudsignal.edge.session.machine import Session
from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client, Endpoint
from tests.edge.conformance.harness.servers import Edge
from tests.edge.fuzz.streams import (
    broker_packet,
    check_end,
    chunks,
    client_packet,
    connect_packet,
    damaged,
    live_session,
    welcome,
)
from tests.support.trail import ListSink

SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
"""Set FUZZ_SEED to repeat a run."""

SLOWEST = 2.0
"""Seconds that one damaged stream may take at the very most, on a busy machine."""


def one_stream(rng: random.Random) -> str:
    """Feed one damaged stream to a live session; returns how it ended."""
    version = rng.choice((4, 5))
    session, sink = live_session(version, rng)
    whole = b"".join(client_packet(rng, version) for _ in range(rng.randint(1, 12)))
    start = time.monotonic()
    for piece in chunks(rng, damaged(rng, whole)):
        session.client_received(piece)
        if session.ended:
            break
    assert time.monotonic() - start < SLOWEST
    check_end(session, sink, version)
    return sink.events[-1].reason if session.ended else "lives on"


def one_connect(rng: random.Random) -> None:
    """Feed a damaged first packet; it is answered, refused or waited for."""
    version = rng.choice((4, 5))
    session = Session(Origin("127.0.0.1", 1, "mqtts"), sink := ListSink())
    for piece in chunks(rng, damaged(rng, connect_packet(rng, version))):
        session.client_received(piece)
    if session.phase is Phase.SIGNING_IN:
        welcome(session)
    if session.ended:
        assert sink.events[-1].kind in ("auth_failed", "acl_denied")


def one_broker_stream(rng: random.Random) -> None:
    """A broker that sends nonsense: delivered inside the mount, or the session ends; never an exception."""
    version = rng.choice((4, 5))
    session, _ = live_session(version, rng)
    whole = b"".join(broker_packet(rng, version) for _ in range(rng.randint(1, 8)))
    for piece in chunks(rng, damaged(rng, whole) if rng.random() < 0.9 else whole):
        session.broker_received(piece)
        if session.ended:
            break


def churn(seconds: float, rng: random.Random) -> tuple[int, set[str]]:
    """Damaged streams of every kind for so long; returns how many, and how client streams ended."""
    end, count = time.monotonic() + seconds, 0
    endings: set[str] = set()
    while time.monotonic() < end:
        seed = rng.getrandbits(64)
        one = random.Random(seed)
        try:
            endings.add(one_stream(one))
            one_connect(one)
            one_broker_stream(one)
        except Exception as error:
            raise AssertionError(f"stream {seed}: {error!r}") from error
        count += 3
    return count, endings


def memory() -> int:
    """Resident bytes of this process."""
    size: int = psutil.Process().memory_info().rss
    return size


def flat(seconds: float) -> None:
    rng = random.Random(SEED)
    churn(min(seconds / 4, 20), rng)
    before = memory()
    count, endings = churn(seconds, rng)
    assert memory() - before < 24 * 1024 * 1024, "memory grows"
    assert count > seconds * 100
    print(f"damaged streams: {count}, nothing found")
    assert {"protocol", "lives on"} <= endings


def test_damaged_streams_for_a_moment() -> None:
    flat(3)


@pytest.mark.soak
def test_damaged_streams_for_ten_minutes() -> None:
    flat(600)


DECODERS = {
    "connect": lambda data, version: codec.decode_connect(0x10, data),
    "publish": lambda data, version: codec.decode_publish(0x30 | data[:1][0] & 15 if data else 0x30, data, version),
    "subscribe": lambda data, version: codec.decode_subscribe(0x82, data, version),
    "unsubscribe": lambda data, version: codec.decode_unsubscribe(0xA2, data, version),
    "puback": lambda data, version: codec.decode_acknowledgement(0x40, data, version),
    "disconnect": lambda data, version: codec.decode_disconnect(0xE0, data, version),
    "suback": codec.decode_suback,
    "connack": codec.decode_connack,
}


def decoders_survive(data: bytes, version: int) -> None:
    for decode in DECODERS.values():
        reason = 0x81
        try:
            decode(data, version)
        except ProtocolError as error:
            reason = error.reason
        assert 0x81 <= reason <= 0xA2


@given(st.binary(max_size=200), st.sampled_from((4, 5)))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_decoders_raise_nothing_but_protocol_errors(data: bytes, version: int) -> None:
    decoders_survive(data, version)


@pytest.mark.soak
@given(st.binary(max_size=2_000), st.sampled_from((4, 5)))
@settings(max_examples=200_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_decoders_raise_nothing_but_protocol_errors_in_a_long_run(data: bytes, version: int) -> None:
    decoders_survive(data, version)


_text = st.text(st.characters(exclude_characters="\0+#", exclude_categories=("Cs",)), max_size=40).filter(
    lambda text: unfit_character(text) is None
)
_topic = _text.filter(bool)
_props = st.fixed_dictionaries(
    {},
    optional={
        "payload_format": st.integers(0, 1),
        "message_expiry": st.integers(0, 2**32 - 1),
        "content_type": _text,
        "response_topic": _topic,
        "correlation_data": st.binary(max_size=50),
        "user_property": st.lists(st.tuples(_text, _text), min_size=1, max_size=4),
    },
)


@given(_topic, st.binary(max_size=300), st.tuples(st.integers(0, 2), st.booleans()), _props, st.sampled_from((4, 5)))
@settings(max_examples=200, deadline=None)
def test_publish_is_read_and_written_back_byte_for_byte(
    topic: str, payload: bytes, flags: tuple[int, bool], block: mqtt.Props, version: int
) -> None:
    """Encoded by the test's own writer, decoded and encoded by the edge's codec."""
    qos, retain = flags
    raw = mqtt.publish(version, topic, payload, qos=qos, retain=retain, mid=7 if qos else 0, props=block)
    first, body = mqtt.split(bytearray(raw)) or (0, b"")
    message = codec.decode_publish(first, body, version)
    assert codec.encode_publish(message, version) == raw
    assert mqtt.decode(first, body, version).topic.encode() == message.topic


@given(st.lists(st.tuples(_topic, st.integers(0, 2)), min_size=1, max_size=6), st.sampled_from((4, 5)))
@settings(max_examples=150, deadline=None)
def test_subscribe_is_read_and_written_back_byte_for_byte(filters: list[tuple[str, int]], version: int) -> None:
    filters = [entry for entry in filters if not entry[0].startswith("$share")] or [("a", 0)]
    raw = mqtt.subscribe(version, 9, filters)  # type: ignore[arg-type]
    first, body = mqtt.split(bytearray(raw)) or (0, b"")
    assert codec.encode_subscribe(codec.decode_subscribe(first, body, version), version) == raw


async def bombard(edge: Edge, connections: int, rng: random.Random) -> int:
    """Damaged streams over TLS and WSS to a running edge; returns how many connections it ended."""
    login = edge.user(edge.org())
    room = asyncio.Semaphore(20)
    ended = 0

    async def one(number: int) -> None:
        nonlocal ended
        async with room:
            version, end = rng.choice((4, 5)), edge.endpoint("wss" if number % 5 == 0 else "tls")
            source = f"127.0.{10 + number // 200 % 200}.{1 + number % 200}"
            client = Client(Endpoint(end.transport, end.port, end.tls, source=source), version)  # type: ignore[arg-type]
            await client.open()
            first = mqtt.connect(version, f"c{number}", username=login[0], password=login[1])
            whole = b"".join(client_packet(rng, version) for _ in range(8))
            if number % 3:
                await client.send(first + damaged(rng, whole))
            else:
                await client.send(damaged(rng, first) + whole)
            for _ in range(12):  # a busy machine may take its time; a client that lives on costs a quarter of a second
                await asyncio.sleep(0.02)
                if client.closed:
                    break
            ended += client.closed
            # A damaged CONNECT may name another version; its answer is then none of this one's.
            assert client.fault is None or number % 3 == 0, client.fault
            await client.drop()

    await asyncio.gather(*map(one, range(connections)))
    return ended


def over_the_wire(connections: int) -> None:
    rng = random.Random(SEED)
    with Edge() as edge, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        process = psutil.Process(edge.process.popen.pid)
        runner.run(bombard(edge, connections // 2, rng))
        before = process.memory_info().rss
        assert runner.run(bombard(edge, connections // 2, rng)) > connections / 8
        edge.process.alive()
        assert process.memory_info().rss - before < 32 * 1024 * 1024, "memory grows"
        assert "Traceback" not in edge.process.output()
        assert not [event for event in edge.events() if event.kind == "critical"]


def test_a_running_edge_takes_damaged_streams() -> None:
    over_the_wire(400)


@pytest.mark.soak
def test_a_running_edge_takes_damaged_streams_in_a_long_run() -> None:
    over_the_wire(20_000)

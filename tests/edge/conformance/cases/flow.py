"""Flow control, slow readers, and traffic in both directions at once (s4.4, s4.6, s4.9)."""

from __future__ import annotations

import asyncio

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import payloads
from tests.edge.conformance.harness.stage import Stage, case


@case("4.6")
async def slow_reader_gets_everything_in_order(h: Stage) -> None:
    """A subscriber that stops reading for a while gets QoS 1 messages afterwards, complete and in order."""
    pub, sub = await h.pair(qos=1)
    sub.pause()
    for start in range(0, 300, 10):
        await pub.send(
            b"".join(mqtt.publish(h.version, h.topic(), b"%d" % n, qos=1, mid=n + 1) for n in range(start, start + 10))
        )
        for number in range(start, start + 10):
            await pub.wait(mqtt.PUBACK, number + 1)
    sub.resume()
    assert payloads(await sub.take(300)) == [b"%d" % number for number in range(300)]


@case("4.6", differs="How many QoS 0 messages are dropped before a full socket is the servers' own affair.")
async def slow_reader_does_not_hold_up_others(h: Stage) -> None:
    """A subscriber that does not read at all neither stops the publisher nor other subscribers."""
    pub, stuck, free = await h.client("pub"), await h.client("stuck"), await h.client("free")
    await stuck.subscribe((h.topic(), 0))
    await free.subscribe((h.topic(), 1))
    stuck.pause()
    for number in range(60):
        await pub.publish(h.topic(), b"%03d" % number + b"x" * 50_000, qos=1)
    if h.edge or h.transport == "tls":  # Mosquitto 2.0.11 over WSS can stall beside a stuck client.
        got = payloads(await free.take(60))
        assert [payload[:3] for payload in got] == [b"%03d" % number for number in range(60)]
    else:
        await free.drop()
    await pub.publish(h.topic("end"), b"x", qos=1)


@case("4.4 / 3.3.4")
async def window_of_unacknowledged_messages(h: Stage) -> None:
    """A subscriber that does not acknowledge gets no more than the server's window; acknowledging moves it on."""
    pub, sub = await h.client("pub"), await h.client("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 1))
    for number in range(50):
        await pub.publish(h.topic(), b"%d" % number, qos=1)
    await sub.ping()
    assert len(sub.messages) == 20
    for number in range(50):
        message = await sub.message()
        assert message.payload == b"%d" % number
        await sub.send(mqtt.ack(mqtt.PUBACK, message.mid))


@case("4.6")
async def large_messages_both_ways(h: Stage) -> None:
    """Two clients send each other large messages at the same time; nothing is lost or mixed."""
    one, two = await h.client("one"), await h.client("two")
    await one.subscribe((h.topic("one"), 1))
    await two.subscribe((h.topic("two"), 1))

    async def send(client: object, topic: str, mark: bytes) -> None:
        for number in range(10):
            await client.publish(topic, mark * 100_000 + b"%d" % number, qos=1)  # type: ignore[attr-defined]

    await asyncio.gather(send(one, h.topic("two"), b"1"), send(two, h.topic("one"), b"2"))
    assert payloads(await one.take(10)) == [b"2" * 100_000 + b"%d" % number for number in range(10)]
    assert payloads(await two.take(10)) == [b"1" * 100_000 + b"%d" % number for number in range(10)]


@case("4.6")
async def many_publishers_one_subscriber(h: Stage) -> None:
    """The messages of each publisher keep their order at a common subscriber."""
    sub = await h.client("sub")
    await sub.subscribe((h.topic("+"), 1))
    publishers = [await h.client(f"p{number}") for number in range(5)]

    async def send(index: int) -> None:
        for number in range(30):
            await publishers[index].publish(h.topic(str(index)), b"%d" % number, qos=1)

    await asyncio.gather(*map(send, range(5)))
    got = await sub.take(150)
    for index in range(5):
        own = [message.payload for message in got if message.topic == h.topic(str(index))]
        assert own == [b"%d" % number for number in range(30)]
    sub.log.sort(key=lambda packet: packet.topic)


@case("4.6")
async def packets_of_all_kinds_in_one_write(h: Stage) -> None:
    """Pings, subscriptions and messages of every QoS in one write are each answered."""
    client = await h.client()
    await client.send(
        mqtt.PING
        + mqtt.subscribe(h.version, 100, [(h.topic("#"), 2)])
        + mqtt.publish(h.version, h.topic("a"), b"0")
        + mqtt.publish(h.version, h.topic("b"), b"1", qos=1, mid=101)
        + mqtt.publish(h.version, h.topic("c"), b"2", qos=2, mid=102)
        + mqtt.ack(mqtt.PUBREL, 102)
        + mqtt.unsubscribe(h.version, 103, [h.topic("none")])
        + mqtt.PING
    )
    await client.wait(mqtt.SUBACK, 100)
    await client.wait(mqtt.PUBACK, 101)
    await client.wait(mqtt.PUBCOMP, 102)
    await client.wait(mqtt.UNSUBACK, 103)
    assert payloads(await client.take(3)) == [b"0", b"1", b"2"]
    await client.wait(mqtt.PINGRESP)
    await client.wait(mqtt.PINGRESP)


@case("4.3.1")
async def burst_of_qos_0(h: Stage) -> None:
    """A long run of small messages arrives whole."""
    pub, sub = await h.pair()
    for start in range(0, 4_000, 200):
        await pub.send(
            b"".join(mqtt.publish(h.version, h.topic(), b"%d" % number) for number in range(start, start + 200))
        )
        await pub.ping()
    assert payloads(await sub.take(4_000)) == [b"%d" % number for number in range(4_000)]


@case("3.3.3")
async def sizes_that_change_from_packet_to_packet(h: Stage) -> None:
    """Payload sizes across every width of the remaining length, mixed, keep their content and order."""
    pub, sub = await h.pair()
    sizes = [0, 1, 60, 100, 110, 120, 127, 128, 129, 16_300, 16_370, 16_383, 16_384, 16_390, 50, 70_000, 3]
    await pub.send(b"".join(mqtt.publish(h.version, h.topic(), bytes([n]) * size) for n, size in enumerate(sizes)))
    assert payloads(await sub.take(len(sizes))) == [bytes([n]) * size for n, size in enumerate(sizes)]

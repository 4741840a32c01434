"""PUBLISH and its acknowledgements in every QoS, topics and payloads (s3.3 to s3.7, s4.3, s4.6, s4.7.3)."""

from __future__ import annotations

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import payloads
from tests.edge.conformance.harness.stage import BOTH, V5, Stage, case


async def published_at(h: Stage, qos: int) -> None:
    pub = await h.client("pub")
    subs = [await h.client(f"sub{granted}") for granted in range(3)]
    for granted, sub in enumerate(subs):
        assert (await sub.subscribe((h.topic(), granted))).reasons == (granted,)
    await pub.publish(h.topic(), b"hello", qos=qos)
    for granted, sub in enumerate(subs):
        message = await sub.message()
        assert (message.topic, message.payload) == (h.topic(), b"hello")
        assert message.qos == min(qos, granted)
        assert not message.retain
        assert not message.dup
        await sub.silent()


@case("3.8.4-8 / 3.8.4-6")
async def qos_0_reaches_every_subscriber_at_qos_0(h: Stage) -> None:
    """Delivered at the lower of the QoS published and the QoS granted."""
    await published_at(h, 0)


@case("3.8.4-8 / 3.8.4-6")
async def qos_1_is_lowered_to_what_was_granted(h: Stage) -> None:
    """Delivered at the lower of the QoS published and the QoS granted."""
    await published_at(h, 1)


@case("3.8.4-8 / 3.8.4-6")
async def qos_2_is_lowered_to_what_was_granted(h: Stage) -> None:
    """Delivered at the lower of the QoS published and the QoS granted."""
    await published_at(h, 2)


@case("4.3.2")
async def puback_carries_the_packet_id(h: Stage) -> None:
    """Every QoS 1 message is acknowledged with its own packet id, the highest one too."""
    client = await h.client()
    for mid in (1, 2, 255, 256, 65_535):
        answer = await client.publish(h.topic(), b"x", qos=1, mid=mid)
        assert answer is not None
        assert answer.mid == mid
        assert answer.reason in (0, 0x10)


@case("4.3.3")
async def qos_2_handshake_is_complete(h: Stage) -> None:
    """PUBREC, PUBREL, PUBCOMP with the same packet id; the message is delivered once."""
    pub, sub = await h.pair()
    for mid in (1, 65_535):
        answer = await pub.publish(h.topic(), b"x", qos=2, mid=mid)
        assert answer is not None
        assert (answer.kind, answer.mid, answer.reason) == (mqtt.PUBCOMP, mid, 0)
        assert (await sub.message()).qos == 2
        await sub.silent()


@case("4.3.3-13 / 4.3.3-2")
async def qos_2_sent_twice_before_pubrel_is_one_message(h: Stage) -> None:
    """Until PUBREL the same packet id is the same message."""
    pub, sub = await h.pair()
    await pub.send(mqtt.publish(h.version, h.topic(), b"x", qos=2, mid=3))
    await pub.wait(mqtt.PUBREC, 3)
    await pub.send(mqtt.publish(h.version, h.topic(), b"x", qos=2, mid=3, dup=True))
    await pub.wait(mqtt.PUBREC, 3)
    await pub.send(mqtt.ack(mqtt.PUBREL, 3))
    await pub.wait(mqtt.PUBCOMP, 3)
    assert (await sub.message()).payload == b"x"
    await sub.silent()


@case("3.6.4 / 4.3.3")
async def pubrel_for_an_unknown_packet_id(h: Stage) -> None:
    """PUBREL is answered with PUBCOMP whether its message is known or not; MQTT 5 may say 0x92."""
    client = await h.client()
    await client.send(mqtt.ack(mqtt.PUBREL, 77))
    assert (await client.wait(mqtt.PUBCOMP, 77)).reason in ((0, 0x92) if h.five else (0,))
    await client.ping()


@case("3.3.1.1")
async def dup_is_not_passed_on(h: Stage) -> None:
    """DUP of an incoming PUBLISH does not reach subscribers."""
    pub, sub = await h.pair()
    for qos in (1, 2):
        await pub.publish(h.topic(), b"x", qos=qos, dup=True)
        assert not (await sub.message()).dup


@case("3.3.1.1", differs="Mosquitto 2.0.11 does not look at DUP of QoS 0.")
async def dup_on_qos_0(h: Stage) -> None:
    """DUP must be 0 for QoS 0."""
    client = await h.client()
    await client.send(mqtt.publish(h.version, h.topic(), b"x", dup=True))
    await h.rejected(client, 0x81, 0x82, lax=True)


@case("3.3.1.2")
async def qos_3(h: Stage) -> None:
    """A PUBLISH with both QoS bits set is malformed."""
    client = await h.client()
    await client.send(mqtt.publish(h.version, h.topic(), b"x", qos=3, mid=1))
    await h.rejected(client, 0x81)


@case("2.2.1 / 2.3.1")
async def packet_id_0(h: Stage) -> None:
    """A packet id of 0 is a protocol error."""
    for qos in (1, 2):
        client = await h.client()
        await client.send(mqtt.publish(h.version, h.topic(), b"x", qos=qos, mid=0))
        await h.rejected(client, 0x81, 0x82)


@case("3.3.2.1")
async def topic_name_with_a_wildcard(h: Stage) -> None:
    """Topic names hold no wildcards."""
    for topic in ("a/+", "a/#", "+", "#", "a+b"):
        client = await h.client()
        await client.send(mqtt.publish(h.version, topic, b"x"))
        await h.rejected(client, 0x90, 0x81, 0x82)


@case("4.7.3")
async def empty_topic_name(h: Stage) -> None:
    """A topic name has at least one character (unless a topic alias stands for it)."""
    client = await h.client()
    await client.send(mqtt.publish(h.version, "", b"x"))
    await h.rejected(client, 0x90, 0x82)


@case("1.5.4 / 1.5.3")
async def topic_name_is_checked_utf8(h: Stage) -> None:
    """Ill-formed UTF-8 and NUL in a topic name end the connection."""
    for bad in (b"a\xff", b"a\x00b", b"\xed\xbf\xbf", b"\xc3"):
        client = await h.client()
        await client.send(mqtt.publish(h.version, bad, b"x"))
        await h.rejected(client, 0x81)


@case("3.3.2")
async def publish_cut_short(h: Stage) -> None:
    """A topic length, packet id or property length that runs past the packet is malformed."""
    wrong = [b"\x30\x02\x00\x09", b"\x32\x04\x00\x01a\x00", b"\x30\x01\x00", b"\x30\x00"]
    wrong += [b"\x30\x04\x00\x01a\x05"] if h.five else []
    for raw in wrong:
        client = await h.client()
        await client.send(raw)
        await h.rejected(client, 0x81)


@case("3.3.3")
async def payloads_pass_unchanged(h: Stage) -> None:
    """Any bytes, none included, reach the subscriber as they were."""
    pub, sub = await h.pair()
    for payload in (b"", b"\x00", bytes(range(256)), b"\xff" * 127, b"x" * 128, b"y" * 16_383, b"z" * 16_384):
        await pub.publish(h.topic(), payload, qos=1)
        assert (await sub.message()).payload == payload


@case("2.1.4 / 2.2.3")
async def large_packets(h: Stage) -> None:
    """Packets near the limit pass in every QoS."""
    pub, sub = await h.pair()
    for qos in range(3):
        payload = bytes([qos]) * 200_000
        await pub.publish(h.topic(), payload, qos=qos)
        message = await sub.message()
        assert (message.payload, message.qos) == (payload, qos)


@case("3.1.2.11.4 / 3.2.2.3.6", differs="Mosquitto 2.0.11 has no limit over WSS.")
async def packet_above_the_limit(h: Stage) -> None:
    """A packet larger than the server takes ends the connection; MQTT 5 says 0x95."""
    client = await h.client()
    await client.send(mqtt.publish(h.version, h.topic(), b"x" * 300_000))
    await h.rejected(client, 0x95, lax=True)


@case("4.6")
async def many_packets_in_one_write_keep_their_order(h: Stage) -> None:
    """Messages of one publisher on one topic arrive in order."""
    pub, sub = await h.pair()
    await pub.send(b"".join(mqtt.publish(h.version, h.topic(), b"%d" % number) for number in range(500)))
    assert payloads(await sub.take(500)) == [b"%d" % number for number in range(500)]


async def ordered(h: Stage, qos: int) -> None:
    pub, sub = await h.pair()
    for start in range(0, 60, 10):
        batch = range(start, start + 10)
        await pub.send(b"".join(mqtt.publish(h.version, h.topic(), b"%d" % n, qos=qos, mid=n + 1) for n in batch))
        for number in batch:
            await pub.wait(mqtt.PUBACK if qos == 1 else mqtt.PUBREC, number + 1)
            if qos == 2:
                await pub.send(mqtt.ack(mqtt.PUBREL, number + 1))
    assert payloads(await sub.take(60)) == [b"%d" % number for number in range(60)]
    if qos == 2:
        for _ in range(60):
            await sub.wait(mqtt.PUBREL)


@case("4.6")
async def qos_1_keeps_its_order(h: Stage) -> None:
    """QoS 1 messages that are not repeated arrive in the order they were sent."""
    await ordered(h, 1)


@case("4.6")
async def qos_2_keeps_its_order(h: Stage) -> None:
    """QoS 2 messages arrive in the order they were sent."""
    await ordered(h, 2)


@case("2.1.4 / 2.2.3")
async def publish_byte_by_byte(h: Stage) -> None:
    """A PUBLISH may arrive in any number of pieces, also together with the end of the one before."""
    pub, sub = await h.pair()
    raw = b"".join(mqtt.publish(h.version, h.topic(), b"p%d" % n, qos=1, mid=n + 1) for n in range(3))
    for at in range(0, len(raw), 5):
        await pub.send(raw[at : at + 5])
    assert payloads(await sub.take(3)) == [b"p0", b"p1", b"p2"]


@case("3.3.5 / 3.3.5-1")
async def a_publisher_receives_its_own_messages(h: Stage) -> None:
    """A client that subscribes to what it publishes gets it."""
    client = await h.client()
    await client.subscribe(h.topic())
    for qos in range(3):
        await client.publish(h.topic(), b"%d" % qos, qos=qos)
        assert (await client.message()).payload == b"%d" % qos


@case("4.7.3")
async def topics_of_every_kind(h: Stage) -> None:
    """Spaces, UTF-8, leading and trailing slashes, empty levels and long names are topics like any other."""
    pub, sub = await h.client("pub"), await h.client("sub")
    names = [
        "a b/c d",
        "é/中/\U0001f600",
        "/lead",
        "trail/",
        "a//b",
        "//",
        "x" * 5_000,
        "d" + "/d" * 60,
        "A/a",
        "~!@%^&*()",
    ]
    topics = [h.topic(name) for name in names]
    await sub.subscribe(*topics)
    for topic in topics:
        await pub.publish(topic, b"x", qos=1)
        assert (await sub.message()).topic == topic
    await sub.silent()


@case("4.7.3")
async def topics_are_case_sensitive(h: Stage) -> None:
    """Topic names differ by case, and by a slash at either end."""
    pub, sub = await h.pair(h.topic("Name"))
    for other in ("name", "NAME", "Name/", "/Name", "Name "):
        await pub.publish(h.topic(other), b"no", qos=1)
    await sub.silent()


@case("1.5.4 / 1.5.3-3")
async def byte_order_mark_is_not_stripped(h: Stage) -> None:
    """U+FEFF stands for itself wherever it appears."""
    topic = h.topic("\ufeffa")
    pub, sub = await h.pair(topic)
    await pub.publish(h.topic("a"), b"no", qos=1)
    await pub.publish(topic, b"yes", qos=1)
    message = await sub.message()
    assert (message.payload, message.topic) == (b"yes", topic)


@case("2.2.1 / 2.3.1")
async def packet_ids_are_used_again(h: Stage) -> None:
    """After its acknowledgement a packet id is free."""
    pub, sub = await h.pair()
    for number in range(5):
        await pub.publish(h.topic(), b"%d" % number, qos=1 + number % 2, mid=1)
    assert len(await sub.take(5)) == 5


@case("2.2.1 / 2.3.1")
async def both_sides_number_on_their_own(h: Stage) -> None:
    """The packet ids of client and server are apart: the same number may be in flight both ways."""
    client = await h.client(auto_ack=False)
    other = await h.client("other")
    await client.subscribe((h.topic(), 1))
    await other.publish(h.topic(), b"in", qos=1)
    message = await client.message()
    await client.publish(h.topic("out"), b"out", qos=1, mid=message.mid)
    await client.send(mqtt.ack(mqtt.PUBACK, message.mid))
    await client.ping()


@case("3.4", versions=BOTH)
async def acknowledgements_with_flags(h: Stage) -> None:
    """PUBREL with flags other than 2 is malformed."""
    client = await h.client()
    await client.send(b"\x60\x02\x00\x05")
    await h.rejected(client, 0x81)


@case("3.4.2.2", versions=V5)
async def acknowledgements_with_reason_and_properties(h: Stage) -> None:
    """PUBACK and PUBREC may be sent with reason code, reason string and user properties."""
    pub, sub = await h.client("pub"), await h.client("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 2))
    props = {"reason_string": "fine", "user_property": [("k", "v")]}
    await pub.publish(h.topic(), b"1", qos=1)
    await sub.send(mqtt.ack(mqtt.PUBACK, (await sub.message()).mid, 0, props))
    await pub.publish(h.topic(), b"2", qos=2)
    mid = (await sub.message()).mid
    await sub.send(mqtt.ack(mqtt.PUBREC, mid, 0, props))
    await sub.wait(mqtt.PUBREL, mid)
    await sub.send(mqtt.ack(mqtt.PUBCOMP, mid, 0, props))
    await sub.ping()


@case("3.5.2.1 / 4.3.3", versions=V5)
async def pubrec_with_an_error_ends_the_handshake(h: Stage) -> None:
    """A PUBREC of 0x80 or more is not followed by PUBREL; the next message comes."""
    pub, sub = await h.client("pub"), await h.client("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 2))
    await pub.publish(h.topic(), b"1", qos=2)
    await sub.send(mqtt.ack(mqtt.PUBREC, (await sub.message()).mid, 0x97))
    await pub.publish(h.topic(), b"2", qos=2)
    assert (await sub.message()).payload == b"2"
    assert not [packet for packet in sub.log if packet.kind == mqtt.PUBREL]


@case("3.3.4", versions=V5)
async def nobody_listens(h: Stage) -> None:
    """A server may say 0x10 when nobody subscribes to what was published."""
    client = await h.client()
    for qos in (1, 2):
        answer = await client.publish(h.topic(), b"x", qos=qos)
        assert answer is not None
        assert answer.reason in (0, 0x10)

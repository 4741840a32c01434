"""The properties of MQTT 5 messages, topic aliases and the limits of either side (MQTT 5 s3.3.2.3, s3.1.2.11)."""

from __future__ import annotations

import asyncio

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Closed, payloads
from tests.edge.conformance.harness.stage import V5, Stage, case


@case("3.3.2.3.7", versions=V5)
async def user_properties_keep_their_order(h: Stage) -> None:
    """User properties pass unchanged: order, repeated names, empty strings, UTF-8."""
    pub, sub = await h.pair()
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("é", "\U0001f600"), ("long", "x" * 3_000)]
    await pub.publish(h.topic(), b"x", qos=1, props={"user_property": pairs})
    assert (await sub.message()).props == {"user_property": pairs}


@case("3.3.2.3", versions=V5)
async def message_properties_are_delivered(h: Stage) -> None:
    """Payload format, content type, response topic and correlation data reach the subscriber."""
    pub, sub = await h.pair()
    props = {
        "payload_format": 1,
        "content_type": "application/json",
        "response_topic": h.topic("answers/é"),
        "correlation_data": bytes(range(256)),
    }
    for qos in range(3):
        await pub.publish(h.topic(), b"{}", qos=qos, props=props)
        assert (await sub.message()).props == props


@case("3.3.2.3.5 / 4.10", versions=V5)
async def response_topic_can_be_answered(h: Stage) -> None:
    """Request and response: who receives the request can publish to its response topic and be heard."""
    asker, answerer = await h.client("asker"), await h.client("answerer")
    await asker.subscribe(h.topic("answers"))
    await answerer.subscribe(h.topic("questions"))
    props = {"response_topic": h.topic("answers"), "correlation_data": b"42"}
    await asker.publish(h.topic("questions"), b"?", qos=1, props=props)
    asked = await answerer.message()
    back = {"correlation_data": asked.props["correlation_data"]}
    await answerer.publish(asked.props["response_topic"], b"!", qos=1, props=back)
    answer = await asker.message()
    assert (answer.payload, answer.props) == (b"!", back)


@case("3.3.2.3.5", versions=V5)
async def response_topic_below_dollar(h: Stage) -> None:
    """A response topic may begin with ``$``, and comes out as it went in."""
    pub, sub = await h.pair()
    await pub.publish(h.topic(), b"?", qos=1, props={"response_topic": "$cs/answers"})
    assert (await sub.message()).props == {"response_topic": "$cs/answers"}


@case("3.3.2.3.5", versions=V5, differs="Mosquitto 2.0.11 accepts it.")
async def response_topic_with_a_wildcard(h: Stage) -> None:
    """A response topic holds no wildcards."""
    for wrong in ("a/+", "#"):
        client = await h.client()
        await client.send(mqtt.publish(5, h.topic(), b"x", props={"response_topic": wrong}))
        await h.rejected(client, 0x81, 0x82, 0x90, lax=True)


@case("3.3.2.3.2", versions=V5, differs="Mosquitto 2.0.11 accepts it.")
async def payload_format_out_of_range(h: Stage) -> None:
    """Payload Format Indicator is 0 or 1."""
    client = await h.client()
    await client.send(mqtt.publish(5, h.topic(), b"x", props={"payload_format": 2}))
    await h.rejected(client, 0x81, 0x82, lax=True)


@case("2.2.2.2", versions=V5, differs="Mosquitto 2.0.11 accepts some of them.")
async def properties_in_the_wrong_packet(h: Stage) -> None:
    """A property that has no place in its packet ends the connection; so does an unknown one, or one twice."""
    for block in (
        mqtt.properties({"session_expiry": 1}),
        mqtt.properties({"subscription_id": 1}),
        mqtt.properties({"reason_string": "x"}),
        mqtt.properties({"will_delay": 1}),
        b"\x02\x00\x00",
        b"\x03\x7f\x00\x00",
        b"\x08" + mqtt.properties({"content_type": "a"})[1:] * 2,
        b"\x0a" + mqtt.properties({"message_expiry": 1})[1:] * 2,
    ):
        client = await h.client()
        await client.send(mqtt.packet(0x30, mqtt.text(h.topic()), block, b"payload"))
        await h.rejected(client, 0x81, 0x82, lax=True)


@case("2.2.2.1", versions=V5)
async def property_length_that_overruns(h: Stage) -> None:
    """A property length past the packet, or one in five bytes, is malformed."""
    for block in (b"\x7f", b"\x05\x01", b"\xff\xff\xff\xff\x01"):
        client = await h.client()
        await client.send(mqtt.packet(0x30, mqtt.text(h.topic()), block))
        await h.rejected(client, 0x81, 0x82)


@case("1.5.4", versions=V5)
async def property_strings_are_checked_utf8(h: Stage) -> None:
    """Ill-formed UTF-8 in a user property or content type ends the connection."""
    for props in (
        {"content_type": b"\xff"},
        {"user_property": [(b"\xed\xa0\x80", "v")]},
        {"user_property": [("k", b"\0")]},
    ):
        client = await h.client()
        await client.send(mqtt.publish(5, h.topic(), b"x", props=props))
        await h.rejected(client, 0x81)


@case("3.3.2.3.3", versions=V5)
async def message_expiry_counts_down(h: Stage) -> None:
    """The time a message waited is taken off its expiry."""
    sub = await h.persistent("sub")
    await sub.subscribe((h.topic(), 1))
    await sub.leave()
    await (await h.client("pub")).publish(h.topic(), b"x", qos=1, props={"message_expiry": 100})
    await asyncio.sleep(2.2)
    again = await h.persistent("sub")
    assert 80 <= (await again.message()).props["message_expiry"] <= 98


@case("3.3.2.3.3", versions=V5)
async def expired_messages_are_not_delivered(h: Stage) -> None:
    """A message whose expiry has passed while it waited is not delivered."""
    sub = await h.persistent("sub")
    await sub.subscribe((h.topic(), 1))
    await sub.leave()
    pub = await h.client("pub")
    await pub.publish(h.topic(), b"short", qos=1, props={"message_expiry": 1})
    await pub.publish(h.topic(), b"long", qos=1, props={"message_expiry": 100})
    await asyncio.sleep(3)
    again = await h.persistent("sub")
    assert (await again.message()).payload == b"long"
    await again.silent()


@case("3.3.2.3.4", versions=V5)
async def topic_alias_from_the_client(h: Stage) -> None:
    """An alias stands for its topic once it was given one, in every QoS."""
    pub, sub = await h.pair()
    await pub.publish(h.topic(), b"0", props={"topic_alias": 1})
    for qos in range(3):
        await pub.publish("", b"%d" % qos, qos=qos, props={"topic_alias": 1})
    got = await sub.take(4)
    assert {message.topic for message in got} == {h.topic()}
    assert not any("topic_alias" in message.props for message in got)


@case("3.3.2.3.4", versions=V5)
async def topic_alias_is_given_another_topic(h: Stage) -> None:
    """An alias may be given another topic at any time; several live side by side."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe(h.topic("#"))
    await pub.publish(h.topic("a"), b"1", props={"topic_alias": 1})
    await pub.publish(h.topic("b"), b"2", props={"topic_alias": 2})
    await pub.publish("", b"3", props={"topic_alias": 1})
    await pub.publish(h.topic("c"), b"4", props={"topic_alias": 1})
    await pub.publish("", b"5", props={"topic_alias": 1})
    await pub.publish("", b"6", props={"topic_alias": 2})
    got = [message.topic.rsplit("/", 1)[1] for message in await sub.take(6)]
    assert got == ["a", "b", "a", "c", "c", "b"]


@case("3.3.2.3.4", versions=V5)
async def topic_alias_keeps_other_properties(h: Stage) -> None:
    """Properties beside the alias are delivered."""
    pub, sub = await h.pair()
    props = {"content_type": "a/b", "user_property": [("k", "v")]}
    for topic in (h.topic(), ""):
        await pub.publish(topic, b"x", qos=1, props={"topic_alias": 3, **props})
        assert (await sub.message()).props == props


@case("3.3.2.3.4", versions=V5)
async def topic_alias_0(h: Stage) -> None:
    """Alias 0 ends the connection with 0x94."""
    client = await h.client()
    await client.send(mqtt.publish(5, h.topic(), b"x", props={"topic_alias": 0}))
    await h.rejected(client, 0x94)


@case("3.3.2.3.4", versions=V5)
async def topic_alias_above_the_maximum(h: Stage) -> None:
    """An alias above the maximum the server offered ends the connection with 0x94."""
    client = await h.client()
    assert client.connack is not None
    maximum = client.connack.props.get("topic_alias_maximum", 0)
    await client.send(mqtt.publish(5, h.topic(), b"x", props={"topic_alias": maximum + 1}))
    await h.rejected(client, 0x94)


@case("3.3.2.3.4", versions=V5)
async def topic_alias_never_given(h: Stage) -> None:
    """An empty topic with an unknown alias is a protocol error."""
    client = await h.client()
    await client.send(mqtt.publish(5, "", b"x", props={"topic_alias": 4}))
    await h.rejected(client, 0x82, 0x94)


@case("3.3.2.3.4", versions=V5)
async def topic_alias_ends_with_the_connection(h: Stage) -> None:
    """Aliases are not part of the session."""
    client = await h.persistent("a")
    await client.publish(h.topic(), b"x", qos=1, props={"topic_alias": 1})
    await client.leave()
    again = await h.persistent("a")
    await again.send(mqtt.publish(5, "", b"x", props={"topic_alias": 1}))
    await h.rejected(again, 0x82, 0x94)


@case("3.1.2.11.5", versions=V5)
async def topic_alias_to_the_client(h: Stage) -> None:
    """Aliases a server uses are within what the client offered, and resolve to the right topic."""
    sub, pub = await h.client("sub", props={"topic_alias_maximum": 5}), await h.client("pub")
    await sub.subscribe(h.topic("#"))
    wanted = []
    for number in range(20):
        name = h.topic(f"n{number % 7}")
        wanted.append(name)
        await pub.publish(name, b"x", qos=1)
    got = await sub.take(20)
    assert [message.topic or sub.aliases[message.props["topic_alias"]] for message in got] == wanted
    assert all(0 < message.props.get("topic_alias", 1) <= 5 for message in got)


@case("3.1.2.11.5", versions=V5)
async def no_topic_alias_without_leave(h: Stage) -> None:
    """Without a Topic Alias Maximum the server sends none."""
    pub, sub = await h.pair()
    for _ in range(5):
        await pub.publish(h.topic(), b"x", qos=1)
        assert "topic_alias" not in (await sub.message()).props


async def window(h: Stage, qos: int) -> None:
    pub, sub = await h.client("pub"), await h.client("sub", auto_ack=False, props={"receive_maximum": 3})
    await sub.subscribe((h.topic(), qos))
    for number in range(8):
        await pub.publish(h.topic(), b"%d" % number, qos=qos)
    await sub.ping()
    assert len(sub.messages) == 3
    for _ in range(8):
        message = await sub.message()
        await sub.send(mqtt.ack(mqtt.PUBACK if qos == 1 else mqtt.PUBREC, message.mid))
        if qos == 2:
            await sub.wait(mqtt.PUBREL, message.mid)
            await sub.send(mqtt.ack(mqtt.PUBCOMP, message.mid))
        await sub.ping()
    await sub.silent()


@case("3.1.2.11.3 / 4.9", versions=V5)
async def receive_maximum_of_the_client_at_qos_1(h: Stage) -> None:
    """No more than Receive Maximum QoS 1 messages are in flight to the client; QoS 0 is not held back."""
    await window(h, 1)


@case("3.1.2.11.3 / 4.9", versions=V5)
async def receive_maximum_of_the_client_at_qos_2(h: Stage) -> None:
    """No more than Receive Maximum QoS 2 messages are in flight to the client."""
    await window(h, 2)


@case("4.9", versions=V5)
async def qos_0_is_not_held_back_by_receive_maximum(h: Stage) -> None:
    """A full window of QoS 1 does not stop QoS 0."""
    pub, sub = await h.client("pub"), await h.client("sub", auto_ack=False, props={"receive_maximum": 1})
    await sub.subscribe((h.topic(), 1))
    await pub.publish(h.topic(), b"1", qos=1)
    await pub.publish(h.topic(), b"0", qos=0)
    assert payloads(await sub.take(2)) == [b"1", b"0"]


@case("3.3.4 / 4.9", versions=V5, differs="The edge ends the connection (0x93); Mosquitto 2.0.11 refuses the message.")
async def receive_maximum_of_the_server(h: Stage) -> None:
    """More unfinished QoS 2 messages than allowed are not taken: 0x93 ends the connection, or PUBREC says 0x97."""
    client = await h.client()
    assert client.connack is not None
    allowed = client.connack.props.get("receive_maximum", 65_535)
    if allowed < 1_000:
        for mid in range(1, allowed + 2):
            await client.send(mqtt.publish(5, h.topic(), b"x", qos=2, mid=mid))
        try:
            assert (await client.wait(mqtt.PUBREC, allowed + 1)).reason == 0x97
        except Closed:
            assert await client.ended() == 0x93


@case("3.1.2.11.4", versions=V5)
async def maximum_packet_size_of_the_client(h: Stage) -> None:
    """A message too large for the client is not delivered to it, as if it had been; smaller ones are."""
    pub, sub = await h.client("pub"), await h.client("sub", props={"maximum_packet_size": 200})
    await sub.subscribe((h.topic(), 1))
    await pub.publish(h.topic(), b"x" * 500, qos=1)
    await pub.publish(h.topic(), b"small", qos=1)
    message = await sub.message()
    assert message.payload == b"small"
    await sub.silent()
    assert all(len(packet.raw) <= 200 for packet in sub.log)


@case("3.1.2.11.4", versions=V5, differs="Mosquitto 2.0.11 counts too few bytes.")
async def maximum_packet_size_is_exact(h: Stage) -> None:
    """A message of exactly the client's maximum is delivered, one byte more is not."""
    pub, sub = await h.client("pub"), await h.client("sub", props={"maximum_packet_size": 100})
    await sub.subscribe((h.topic(), 0))
    frame = len(mqtt.publish(5, h.topic(), b""))
    for size in (101, 100):
        await pub.publish(h.topic(), b"x" * (size - frame), qos=1)
    message = await sub.message()
    if h.edge:
        assert len(message.raw) == 100
        await sub.silent()


@case("3.1.2.11.7", versions=V5)
async def no_reason_strings_when_not_wanted(h: Stage) -> None:
    """Request Problem Information 0: no reason strings and user properties except in CONNACK, PUBLISH, DISCONNECT."""
    client = await h.client(props={"request_problem_information": 0})
    await client.subscribe(h.topic())
    await client.publish(h.topic(), b"x", qos=1)
    await client.unsubscribe(h.topic(), h.topic("never"))
    kinds = (mqtt.PUBACK, mqtt.SUBACK, mqtt.UNSUBACK)
    assert not any(packet.props for packet in client.log if packet.kind in kinds)


@case("3.3.2.3.4 / 4.3.3", versions=V5)
async def topic_alias_on_a_resent_message(h: Stage) -> None:
    """A QoS 2 PUBLISH sent again with its alias is still one message."""
    pub, sub = await h.pair()
    for dup in (False, True):
        topic = "" if dup else h.topic()
        await pub.send(mqtt.publish(5, topic, b"x", qos=2, mid=5, dup=dup, props={"topic_alias": 1}))
        await pub.wait(mqtt.PUBREC, 5)
    await pub.send(mqtt.ack(mqtt.PUBREL, 5))
    await pub.wait(mqtt.PUBCOMP, 5)
    assert (await sub.message()).payload == b"x"
    await sub.silent()

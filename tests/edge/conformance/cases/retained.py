"""Retained messages (MQTT 3.1.1 and 5, s3.3.1.3, s3.8.3.1)."""

from __future__ import annotations

import asyncio

from tests.edge.conformance.harness.client import payloads
from tests.edge.conformance.harness.stage import V5, Stage, case

RETAIN_AS_PUBLISHED = 0x08
SEND_IF_NEW, NEVER_SEND = 0x10, 0x20


@case("3.3.1.3")
async def retained_message_reaches_a_new_subscriber(h: Stage) -> None:
    """The last retained message is delivered to a new subscription, with the retain flag."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await sub.subscribe(h.topic())
    message = await sub.message()
    assert (message.topic, message.payload, message.retain, message.qos) == (h.topic(), b"kept", True, 1)
    await sub.silent()


@case("3.3.1.3")
async def retain_flag_is_clear_on_live_delivery(h: Stage) -> None:
    """An established subscription gets a retained message without the flag."""
    pub, sub = await h.pair()
    await pub.publish(h.topic(), b"live", qos=1, retain=True)
    assert not (await sub.message()).retain


@case("3.3.1.3")
async def retained_message_is_replaced(h: Stage) -> None:
    """Only the last one is kept."""
    pub, sub = await h.client("pub"), await h.client("sub")
    for payload in (b"old", b"new"):
        await pub.publish(h.topic(), payload, qos=1, retain=True)
    await sub.subscribe(h.topic())
    assert (await sub.message()).payload == b"new"
    await sub.silent()


@case("3.3.1.3")
async def empty_payload_clears_the_retained_message(h: Stage) -> None:
    """A retained message without payload removes the one kept and is itself delivered live, but not kept."""
    pub, live, late = await h.client("pub"), await h.client("live"), await h.client("late")
    await live.subscribe(h.topic())
    for payload in (b"kept", b""):
        await pub.publish(h.topic(), payload, qos=1, retain=True)
    assert payloads(await live.take(2)) == [b"kept", b""]
    await late.subscribe(h.topic())
    await late.silent()


@case("3.3.1.3")
async def ordinary_message_does_not_replace_a_retained_one(h: Stage) -> None:
    """Without the flag nothing is kept and nothing removed."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await pub.publish(h.topic(), b"passing", qos=1)
    await pub.publish(h.topic(), b"", qos=1)
    await sub.subscribe(h.topic())
    assert (await sub.message()).payload == b"kept"
    await sub.silent()


@case("3.3.1.3")
async def retained_in_every_qos(h: Stage) -> None:
    """Retained messages of QoS 0, 1 and 2 are delivered at the lower of their QoS and the granted one."""
    pub = await h.client("pub")
    for qos in range(3):
        await pub.publish(h.topic(str(qos)), b"x", qos=qos, retain=True)
    await pub.ping()
    for granted in range(3):
        sub = await h.client(f"sub{granted}")
        for qos in range(3):
            await sub.subscribe((h.topic(str(qos)), granted))
            message = await sub.message()
            assert (message.qos, message.retain) == (min(qos, granted), True)


@case("3.3.1.3 / 4.7.1")
async def retained_through_wildcards(h: Stage) -> None:
    """A wildcard subscription gets every retained message it matches, each once."""
    pub, sub = await h.client("pub"), await h.client("sub")
    for name in ("a", "a/b", "a/b/c", "z"):
        await pub.publish(h.topic(name), name.encode(), qos=1, retain=True)
    await sub.subscribe(h.topic("a/#"))
    assert sorted(payloads(await sub.take(3))) == [b"a", b"a/b", b"a/b/c"]
    await sub.silent()
    await sub.subscribe(h.topic("a/+"))
    assert (await sub.message()).payload == b"a/b"
    await sub.silent()
    sub.log.sort(key=lambda packet: (packet.kind, packet.payload))


@case("3.8.4-3 / 3.8.4-3")
async def subscribing_again_sends_retained_again(h: Stage) -> None:
    """A subscription that is made again gets the retained message again."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    for _ in range(3):
        await sub.subscribe(h.topic())
        assert (await sub.message()).payload == b"kept"


@case("3.3.1.3")
async def retained_outlives_its_publisher(h: Stage) -> None:
    """Retained messages do not belong to a session."""
    pub = await h.client("pub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await pub.leave()
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    assert (await sub.message()).payload == b"kept"


@case("4.7.2", alone=True)
async def retained_dollar_topics_stay_out_of_wildcards(h: Stage) -> None:
    """A filter that begins with a wildcard finds no retained message below ``$``."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish("$cs/kept", b"dollar", qos=1, retain=True)
    await pub.publish("kept", b"plain", qos=1, retain=True)
    await sub.subscribe("#")
    assert (await sub.message()).payload == b"plain"
    await sub.silent()
    await sub.subscribe("$cs/#")
    message = await sub.message()
    assert (message.topic, message.payload) == ("$cs/kept", b"dollar")


@case("3.8.3.1", versions=V5)
async def retain_handling_0_always_sends(h: Stage) -> None:
    """Retain Handling 0: retained messages come with every SUBSCRIBE."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    for _ in range(2):
        await sub.subscribe((h.topic(), 1))
        assert (await sub.message()).retain


@case("3.8.3.1", versions=V5)
async def retain_handling_1_sends_to_new_subscriptions(h: Stage) -> None:
    """Retain Handling 1: only when the subscription did not exist."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await sub.subscribe((h.topic(), 1 | SEND_IF_NEW))
    assert (await sub.message()).retain
    await sub.subscribe((h.topic(), 1 | SEND_IF_NEW))
    await sub.silent()
    await sub.unsubscribe(h.topic())
    await sub.subscribe((h.topic(), 1 | SEND_IF_NEW))
    assert (await sub.message()).retain


@case("3.8.3.1", versions=V5)
async def retain_handling_2_never_sends(h: Stage) -> None:
    """Retain Handling 2: no retained messages at SUBSCRIBE."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await sub.subscribe((h.topic(), 1 | NEVER_SEND))
    await sub.silent()
    await pub.publish(h.topic(), b"live", qos=1, retain=True)
    assert (await sub.message()).payload == b"live"


@case("3.8.3.1", versions=V5)
async def retain_as_published_keeps_the_flag(h: Stage) -> None:
    """Retain As Published 1: live messages keep the retain flag they were sent with."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe((h.topic(), 1 | RETAIN_AS_PUBLISHED))
    for retain in (True, False):
        await pub.publish(h.topic(), b"x", qos=1, retain=retain)
        assert (await sub.message()).retain is retain


@case("3.3.2.3", versions=V5)
async def retained_message_keeps_its_properties(h: Stage) -> None:
    """Content type, response topic, correlation data and user properties are kept with the message."""
    pub, sub = await h.client("pub"), await h.client("sub")
    props = {
        "payload_format": 1,
        "content_type": "text/plain",
        "response_topic": h.topic("back"),
        "correlation_data": b"\x00\xff",
        "user_property": [("a", "1"), ("a", "2")],
    }
    await pub.publish(h.topic(), b"kept", qos=1, retain=True, props=props)
    await sub.subscribe(h.topic())
    assert (await sub.message()).props == props


@case("3.3.2.3.3", versions=V5)
async def retained_message_expires(h: Stage) -> None:
    """A retained message is gone when its expiry has passed; before, the remaining time is told."""
    pub, sub, late = await h.client("pub"), await h.client("sub"), await h.client("late")
    await pub.publish(h.topic("short"), b"x", qos=1, retain=True, props={"message_expiry": 1})
    await pub.publish(h.topic("long"), b"y", qos=1, retain=True, props={"message_expiry": 100})
    await sub.subscribe(h.topic("long"))
    assert 90 <= (await sub.message()).props["message_expiry"] <= 100
    await asyncio.sleep(3)
    await late.subscribe(h.topic("+"))
    message = await late.message()
    assert message.payload == b"y"
    assert 80 <= message.props["message_expiry"] <= 98
    await late.silent()


@case("3.8.2.1.2", versions=V5)
async def retained_message_carries_the_subscription_id(h: Stage) -> None:
    """A retained message tells the identifier of the subscription it came for."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await pub.publish(h.topic(), b"kept", qos=1, retain=True)
    await sub.subscribe(h.topic(), props={"subscription_id": 300})
    assert (await sub.message()).props["subscription_id"] == [300]

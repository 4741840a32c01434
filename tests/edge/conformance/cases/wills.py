"""Wills (MQTT 3.1.1 s3.1.2.5; MQTT 5 s3.1.2.5, s3.1.3.2, s3.14.4)."""

from __future__ import annotations

import asyncio
import time

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.packets import Will
from tests.edge.conformance.harness.stage import V5, Stage, case


@case("3.1.2.5")
async def will_is_published_when_the_connection_is_lost(h: Stage) -> None:
    """A connection that ends without DISCONNECT has its will published."""
    sub, lost = await h.client("sub"), await h.client("lost", will=Will(h.topic(), b"gone"))
    await sub.subscribe(h.topic())
    await lost.drop()
    message = await sub.message()
    assert (message.topic, message.payload, message.qos, message.retain) == (h.topic(), b"gone", 0, False)


@case("3.1.2.5 / 3.14.4")
async def will_is_dropped_at_disconnect(h: Stage) -> None:
    """DISCONNECT removes the will."""
    sub, leaving = await h.client("sub"), await h.client("leaving", will=Will(h.topic(), b"gone"))
    await sub.subscribe(h.topic())
    await leaving.leave()
    again = await h.client("leaving")
    await again.publish(h.topic(), b"back", qos=1)
    assert (await sub.message()).payload == b"back"
    await sub.silent()


@case("3.14.2.1", versions=V5, differs="Mosquitto 2.0.11 leaves a WebSocket open.")
async def disconnect_can_ask_for_the_will(h: Stage) -> None:
    """DISCONNECT with 0x04 publishes the will."""
    sub, leaving = await h.client("sub"), await h.client("leaving", will=Will(h.topic(), b"asked"))
    await sub.subscribe(h.topic())
    await leaving.send(mqtt.disconnect(5, 0x04))
    if h.edge or h.transport == "tls":  # Mosquitto 2.0.11 waits for a WebSocket to be closed by its client.
        await leaving.ended()
    await leaving.drop()
    assert (await sub.message()).payload == b"asked"


@case("3.1.2.6")
async def will_in_every_qos(h: Stage) -> None:
    """A will is published with its QoS."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    for qos in range(3):
        lost = await h.client(f"lost{qos}", will=Will(h.topic(), b"gone", qos=qos))
        await lost.drop()
        assert (await sub.message()).qos == qos


@case("3.1.2.7")
async def will_can_be_retained(h: Stage) -> None:
    """A will with the retain flag is kept."""
    live, late = await h.client("live"), await h.client("late")
    await live.subscribe(h.topic())
    lost = await h.client("lost", will=Will(h.topic(), b"gone", qos=1, retain=True))
    await lost.drop()
    assert not (await live.message()).retain
    await late.subscribe(h.topic())
    message = await late.message()
    assert (message.payload, message.retain) == (b"gone", True)


@case("3.1.2.7 / 3.3.1.3")
async def empty_retained_will_clears(h: Stage) -> None:
    """A retained will without payload removes what was kept."""
    sub, late = await h.client("sub"), await h.client("late")
    await sub.publish(h.topic(), b"kept", qos=1, retain=True)
    await sub.subscribe(h.topic())
    assert (await sub.message()).payload == b"kept"
    lost = await h.client("lost", will=Will(h.topic(), b"", qos=1, retain=True))
    await lost.drop()
    assert (await sub.message()).payload == b""
    await late.subscribe(h.topic())
    await late.silent()


@case("3.1.2.5 / 3.1.2.10")
async def will_is_published_when_the_keep_alive_runs_out(h: Stage) -> None:
    """A client that falls silent has its will published."""
    sub, mute = await h.client("sub"), await h.client("mute", will=Will(h.topic(), b"mute"), keep_alive=1)
    await sub.subscribe(h.topic())
    assert (await sub.message(seconds=20)).payload == b"mute"
    await mute.ended()


@case("3.1.2.5 / 4.8")
async def will_is_published_after_a_protocol_error(h: Stage) -> None:
    """A connection the server closes for a protocol error has its will published."""
    sub, wrong = await h.client("sub"), await h.client("wrong", will=Will(h.topic(), b"wrong"))
    await sub.subscribe(h.topic())
    await wrong.send(b"\x00\x00")
    await wrong.ended()
    assert (await sub.message()).payload == b"wrong"


@case("3.1.4-3 / 3.1.4-2")
async def will_is_published_at_a_takeover(h: Stage) -> None:
    """The connection that is taken over ends without DISCONNECT, so its will is published."""
    sub, first = await h.client("sub"), await h.client("a", will=Will(h.topic(), b"taken"))
    await sub.subscribe(h.topic())
    await h.client("a")
    await first.ended()
    assert (await sub.message()).payload == b"taken"


@case("3.1.3.3")
async def will_payload_may_be_empty(h: Stage) -> None:
    """A will message of no bytes is published as such."""
    sub, lost = await h.client("sub"), await h.client("lost", will=Will(h.topic(), b""))
    await sub.subscribe(h.topic())
    await lost.drop()
    assert (await sub.message()).payload == b""


@case("3.1.3.3")
async def will_payload_is_any_bytes(h: Stage) -> None:
    """A will carries binary data, up to 64 KiB."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    payload = bytes(range(256)) * 255
    lost = await h.client("lost", will=Will(h.topic(), payload, qos=1))
    await lost.drop()
    assert (await sub.message()).payload == payload


@case("3.1.2.5 / 3.1.2.4")
async def will_of_a_stored_session(h: Stage) -> None:
    """A stored session's will is published when its connection is lost, and not again."""
    sub, lost = await h.client("sub"), await h.persistent("lost", will=Will(h.topic(), b"gone"))
    await sub.subscribe(h.topic())
    await lost.drop()
    assert (await sub.message()).payload == b"gone"
    again = await h.persistent("lost")
    await again.leave()
    await sub.silent()


@case("3.1.3.2.2", versions=V5)
async def will_delay_waits(h: Stage) -> None:
    """The will is published when its delay has passed, not before."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    will = Will(h.topic(), b"late", props={"will_delay": 2})
    lost = await h.client("lost", will=will, props={"session_expiry": 60})
    await lost.drop()
    start = time.monotonic()
    assert (await sub.message()).payload == b"late"
    assert time.monotonic() - start > 0.9


@case("3.1.3.2.2", versions=V5)
async def will_delay_is_cancelled_by_coming_back(h: Stage) -> None:
    """A client that is back within the delay has no will published."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    will = Will(h.topic(), b"late", props={"will_delay": 3})
    lost = await h.client("lost", will=will, props={"session_expiry": 60})
    await lost.drop()
    await h.client("lost", clean=False, props={"session_expiry": 60})
    await asyncio.sleep(5)
    await sub.silent()


@case("3.1.3.2.2", versions=V5)
async def will_delay_ends_with_the_session(h: Stage) -> None:
    """The will is published at the end of the session when that comes before the delay has passed."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    will = Will(h.topic(), b"ended", props={"will_delay": 600})
    lost = await h.client("lost", will=will, props={"session_expiry": 1})
    await lost.drop()
    assert (await sub.message()).payload == b"ended"


@case("3.1.3.2", versions=V5)
async def will_properties_are_delivered(h: Stage) -> None:
    """A will carries the properties of a PUBLISH; the response topic is one a client can use."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    props = {
        "payload_format": 1,
        "content_type": "text/plain",
        "response_topic": h.topic("back"),
        "correlation_data": b"\x00\x01",
        "user_property": [("k", "v"), ("k", "w")],
    }
    lost = await h.client("lost", will=Will(h.topic(), b"gone", qos=1, props=props))
    await lost.drop()
    assert (await sub.message()).props == props


@case("3.1.3.2.4", versions=V5)
async def will_message_expiry(h: Stage) -> None:
    """The message expiry of a will counts from its publication."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    lost = await h.client("lost", will=Will(h.topic(), b"gone", qos=1, props={"message_expiry": 50}))
    await lost.drop()
    assert 40 <= (await sub.message()).props["message_expiry"] <= 50


@case("3.1.3.2", versions=V5)
async def wrong_will_properties(h: Stage) -> None:
    """A will property that has no place there is not served."""
    for props in ({"topic_alias": 1}, {"session_expiry": 1}, {"receive_maximum": 3}):
        client = await h.open()
        await client.send(mqtt.connect(5, h.cid("a"), will=Will(h.topic(), props=props), **h.login()))
        await h.rejected(client, 0x81, 0x82, 0x90, lax=True)
        assert not h.edge or not [p for p in client.log if p.kind == mqtt.CONNACK and p.reason == 0]


@case("3.1.3.3 / 3.1.3.2")
async def will_topic_is_checked(h: Stage) -> None:
    """An empty or ill-formed will topic is refused."""
    for topic in (b"", b"a\x00", b"\xff"):
        client = await h.open()
        await client.send(mqtt.connect(h.version, h.cid("a"), will=Will(topic), **h.login()))
        await h.rejected(client, 0x81, 0x82, 0x90, lax=True)
        assert not h.edge or not [p for p in client.log if p.kind == mqtt.CONNACK and p.reason == 0]

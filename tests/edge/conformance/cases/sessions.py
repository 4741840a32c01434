"""Stored sessions: what outlives a connection, and for how long (s3.1.2.4, s4.1; MQTT 5 s3.1.2.11.2)."""

from __future__ import annotations

import asyncio

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import payloads
from tests.edge.conformance.harness.stage import V5, Stage, case


@case("3.1.2.4")
async def clean_session_leaves_nothing(h: Stage) -> None:
    """After a clean session ends, neither subscriptions nor messages remain."""
    first = await h.client("a")
    await first.subscribe(h.topic())
    await first.leave()
    pub = await h.client("pub")
    await pub.publish(h.topic(), b"missed", qos=1)
    second, answer = await h.dial("a", clean=False)
    assert not answer.session_present
    await pub.publish(h.topic(), b"later", qos=1)
    await second.silent()


@case("3.2.2.2 / 3.2.2.1.1")
async def stored_session_is_present(h: Stage) -> None:
    """A session that is kept is reported by Session Present, and its subscriptions hold."""
    first = await h.persistent("a")
    assert first.connack is not None
    assert not first.connack.session_present
    await first.subscribe(h.topic())
    await first.leave()
    second = await h.persistent("a")
    assert second.connack is not None
    assert second.connack.session_present
    await second.publish(h.topic(), b"x", qos=1)
    assert (await second.message()).payload == b"x"


@case("3.1.2.4-1 / 3.1.2-6")
async def clean_start_discards_the_stored_session(h: Stage) -> None:
    """A clean connect begins a new session, and the old one is gone for good."""
    first = await h.persistent("a")
    await first.subscribe(h.topic())
    await first.leave()
    second = await h.client("a")
    assert second.connack is not None
    assert not second.connack.session_present
    await second.leave()
    third = await h.persistent("a")
    assert third.connack is not None
    assert not third.connack.session_present


async def queued(h: Stage, qos: int) -> None:
    sub = await h.persistent("sub")
    await sub.subscribe((h.topic(), qos))
    await sub.leave()
    pub = await h.client("pub")
    for number in range(5):
        await pub.publish(h.topic(), b"%d" % number, qos=qos)
    again = await h.persistent("sub")
    got = await again.take(5)
    assert payloads(got) == [b"0", b"1", b"2", b"3", b"4"]
    assert {(message.qos, message.dup) for message in got} == {(qos, False)}
    await again.silent()


@case("3.1.2.4 / 4.1")
async def qos_1_messages_wait_for_the_client(h: Stage) -> None:
    """Messages of QoS 1 that match while the client is away are delivered when it is back, in order."""
    await queued(h, 1)


@case("3.1.2.4 / 4.1")
async def qos_2_messages_wait_for_the_client(h: Stage) -> None:
    """Messages of QoS 2 likewise."""
    await queued(h, 2)


@case("4.1.0")
async def delivered_messages_do_not_come_again(h: Stage) -> None:
    """What was acknowledged before is not sent on the next connection."""
    sub = await h.persistent("sub")
    await sub.subscribe(h.topic())
    pub = await h.client("pub")
    for qos in (1, 2):
        await pub.publish(h.topic(), b"%d" % qos, qos=qos)
    assert len(await sub.take(2)) == 2
    await sub.wait(mqtt.PUBREL)
    await sub.ping()
    await sub.leave()
    again = await h.persistent("sub")
    await again.silent()


@case("4.4")
async def unacknowledged_qos_1_is_sent_again(h: Stage) -> None:
    """A QoS 1 message without PUBACK is sent again on reconnect: same packet id, DUP set."""
    sub = await h.persistent("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 1))
    await (await h.client("pub")).publish(h.topic(), b"x", qos=1)
    first = await sub.message()
    assert not first.dup
    await sub.drop()
    again = await h.persistent("sub")
    second = await again.message()
    assert (second.mid, second.payload, second.qos, second.dup) == (first.mid, b"x", 1, True)
    await again.silent()


@case("4.4")
async def unreceived_qos_2_is_sent_again(h: Stage) -> None:
    """A QoS 2 message without PUBREC is sent again on reconnect: same packet id, DUP set."""
    sub = await h.persistent("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 2))
    await (await h.client("pub")).publish(h.topic(), b"x", qos=2)
    first = await sub.message()
    await sub.drop()
    again = await h.persistent("sub")
    second = await again.message()
    assert (second.mid, second.qos, second.dup) == (first.mid, 2, True)
    await again.wait(mqtt.PUBREL, first.mid)
    await again.silent()


@case("4.4 / 4.3.3")
async def unfinished_pubrel_is_sent_again(h: Stage) -> None:
    """After PUBREC the server sends PUBREL again on reconnect, not the message."""
    sub = await h.persistent("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 2))
    await (await h.client("pub")).publish(h.topic(), b"x", qos=2)
    first = await sub.message()
    await sub.send(mqtt.ack(mqtt.PUBREC, first.mid))
    await sub.wait(mqtt.PUBREL, first.mid)
    await sub.drop()
    again = await h.persistent("sub")
    await again.wait(mqtt.PUBREL, first.mid)
    await again.silent()


@case("4.3.3 / 4.4")
async def resent_qos_2_is_delivered_once(h: Stage) -> None:
    """A client that sends its QoS 2 message again after a reconnect does not make a second one of it."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    pub = await h.persistent("pub")
    await pub.send(mqtt.publish(h.version, h.topic(), b"once", qos=2, mid=7))
    await pub.wait(mqtt.PUBREC, 7)
    await pub.drop()
    again = await h.persistent("pub")
    await again.send(mqtt.publish(h.version, h.topic(), b"once", qos=2, mid=7, dup=True))
    await again.wait(mqtt.PUBREC, 7)
    await again.send(mqtt.ack(mqtt.PUBREL, 7))
    await again.wait(mqtt.PUBCOMP, 7)
    assert (await sub.message()).payload == b"once"
    await sub.silent()


@case("4.3.3 / 4.4")
async def pubrel_on_the_next_connection(h: Stage) -> None:
    """A QoS 2 handshake is finished on the next connection: PUBREL there completes it."""
    sub = await h.client("sub")
    await sub.subscribe(h.topic())
    pub = await h.persistent("pub")
    await pub.send(mqtt.publish(h.version, h.topic(), b"late", qos=2, mid=9))
    await pub.wait(mqtt.PUBREC, 9)
    await pub.drop()
    again = await h.persistent("pub")
    await again.send(mqtt.ack(mqtt.PUBREL, 9))
    assert (await again.wait(mqtt.PUBCOMP, 9)).reason == 0
    assert (await sub.message()).payload == b"late"


@case("3.10.4 / 4.1")
async def unsubscribing_is_remembered(h: Stage) -> None:
    """A subscription that was ended does not come back with the stored session."""
    sub = await h.persistent("sub")
    await sub.subscribe(h.topic("a"), h.topic("b"))
    await sub.unsubscribe(h.topic("a"))
    await sub.leave()
    again = await h.persistent("sub")
    for name in ("a", "b"):
        await again.publish(h.topic(name), name.encode(), qos=1)
    assert (await again.message()).payload == b"b"
    await again.silent()


@case("3.1.2.11.2", versions=V5)
async def session_expiry_0_ends_with_the_connection(h: Stage) -> None:
    """Without a session expiry the session ends when the connection does, even with Clean Start 0."""
    client = await h.client("a", clean=False)
    await client.subscribe(h.topic())
    await client.leave()
    again, answer = await h.dial("a", clean=False, props={"session_expiry": 60})
    assert not answer.session_present
    await again.publish(h.topic(), b"x", qos=1)
    await again.silent()


@case("3.1.2.11.2", versions=V5)
async def session_expires(h: Stage) -> None:
    """A session is gone once its expiry has passed."""
    client = await h.client("a", props={"session_expiry": 1})
    await client.drop()
    await asyncio.sleep(4)
    _, answer = await h.dial("a", clean=False, props={"session_expiry": 60})
    assert not answer.session_present


@case("3.1.2.11.2", versions=V5)
async def clean_start_with_an_expiry_stores_a_session(h: Stage) -> None:
    """Clean Start 1 with an expiry begins anew and is kept."""
    client = await h.client("a", props={"session_expiry": 60})
    await client.leave()
    _, answer = await h.dial("a", clean=False, props={"session_expiry": 60})
    assert answer.session_present


@case("3.14.2.2.2", versions=V5)
async def disconnect_can_end_the_session(h: Stage) -> None:
    """DISCONNECT with session expiry 0 ends a session that was to be kept."""
    client = await h.client("a", props={"session_expiry": 60})
    await client.leave(0, {"session_expiry": 0})
    _, answer = await h.dial("a", clean=False)
    assert not answer.session_present


@case("3.14.2.2.2", versions=V5)
async def disconnect_can_prolong_the_session(h: Stage) -> None:
    """DISCONNECT may change a session expiry that is not 0."""
    client = await h.client("a", props={"session_expiry": 1})
    await client.leave(0, {"session_expiry": 120})
    await asyncio.sleep(4)
    _, answer = await h.dial("a", clean=False, props={"session_expiry": 60})
    assert answer.session_present


@case("3.14.2.2.2", versions=V5)
async def disconnect_cannot_make_a_session_stored(h: Stage) -> None:
    """Session expiry in DISCONNECT after 0 in CONNECT is a protocol error."""
    client = await h.client("a")
    await client.send(mqtt.disconnect(5, 0, {"session_expiry": 60}))
    await h.rejected(client, 0x82)
    _, answer = await h.dial("a", clean=False)
    assert not answer.session_present


@case("3.1.2.11.2", versions=V5)
async def session_expiry_forever(h: Stage) -> None:
    """0xFFFFFFFF means that the session does not expire."""
    client = await h.client("a", props={"session_expiry": 0xFFFFFFFF})
    await client.subscribe(h.topic())
    await client.drop()
    again, answer = await h.dial("a", clean=False, props={"session_expiry": 0xFFFFFFFF})
    assert answer.session_present
    await again.leave(0, {"session_expiry": 0})


@case("4.1.0")
async def sessions_of_two_clients_are_apart(h: Stage) -> None:
    """A stored session belongs to its client id alone."""
    one = await h.persistent("one")
    await one.subscribe(h.topic())
    await one.leave()
    two = await h.persistent("two")
    assert two.connack is not None
    assert not two.connack.session_present
    await two.publish(h.topic(), b"x", qos=1)
    await two.silent()
    again = await h.persistent("one")
    assert (await again.message()).payload == b"x"


@case("4.4", versions=V5)
async def stored_session_across_many_unacknowledged(h: Stage) -> None:
    """Every unacknowledged message comes again, in the order it was first sent."""
    sub = await h.persistent("sub", auto_ack=False)
    await sub.subscribe((h.topic(), 1))
    pub = await h.client("pub")
    for number in range(10):
        await pub.publish(h.topic(), b"%d" % number, qos=1)
    first = await sub.take(10)
    await sub.drop()
    again = await h.persistent("sub")
    second = await again.take(10)
    assert [(message.mid, message.payload) for message in second] == [(m.mid, m.payload) for m in first]
    assert all(message.dup for message in second)

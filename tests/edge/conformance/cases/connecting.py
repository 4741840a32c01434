"""CONNECT and CONNACK, keep alive, takeover, and packets no client may send (MQTT 3.1.1 and 5, s3.1, s3.2, s4.8)."""

from __future__ import annotations

import asyncio
import time

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client
from tests.edge.conformance.harness.stage import V3, V5, Stage, case

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82


async def refused(client: Client) -> int | None:
    """The connection ends and no CONNACK ever said success; returns the code that was given, if any."""
    said = await client.ended()
    codes = [packet.reason for packet in client.log if packet.kind == mqtt.CONNACK]
    assert 0 not in codes, client.summary()
    return codes[0] if codes else said


@case("3.2.2.3")
async def connect_is_accepted(h: Stage) -> None:
    """A valid CONNECT is answered with code 0 and no stored session."""
    client, answer = await h.dial()
    assert answer.reason == 0
    assert not answer.session_present
    await client.ping()


@case("3.1.0-1")
async def first_packet_must_be_connect(h: Stage) -> None:
    """Anything else before CONNECT ends the connection."""
    for first in (mqtt.PING, mqtt.publish(h.version, "t", b"x"), mqtt.subscribe(h.version, 1, [("t", 0)])):
        client = await h.open()
        await client.send(first)
        await refused(client)


@case("3.1.0-2")
async def second_connect_is_a_protocol_error(h: Stage) -> None:
    """A second CONNECT ends the connection."""
    client = await h.client()
    await client.send(mqtt.connect(h.version, h.cid("again"), **h.login()))
    await h.rejected(client, PROTOCOL_ERROR)


@case("3.1.2.1")
async def wrong_protocol_name(h: Stage) -> None:
    """A protocol name other than MQTT is not served."""
    for name in ("MQTX", "mqtt", "MQTTT", ""):
        client = await h.open()
        await client.send(mqtt.connect(h.version, h.cid("a"), name=name, **h.login()))
        assert await refused(client) in (None, MALFORMED, PROTOCOL_ERROR, 0x84, 1)


@case("3.1.2.2", versions=V3, differs="The edge refuses MQTT 3.1; Mosquitto still serves it.")
async def mqtt_31_is_refused_at_the_edge(h: Stage) -> None:
    """MQTT 3.1 (MQIsdp, level 3) is answered with return code 1 by a server that does not speak it."""
    client = await h.open()
    await client.send(mqtt.connect(4, h.cid("a"), name="MQIsdp", level=3, **h.login()))
    assert (await client.wait(mqtt.CONNACK)).reason == (1 if h.edge else 0)


@case("3.1.2.2", versions=V3)
async def unknown_protocol_level(h: Stage) -> None:
    """A level that does not exist is refused with 1 (3.1.1) or 0x84 (5), or just closed."""
    for level in (2, 6, 0x7F):
        client = await h.open()
        await client.send(mqtt.connect(4, h.cid("a"), level=level, **h.login()))
        client.version = 4
        try:
            await refused(client)
        except mqtt.Malformed:
            assert h.edge
        client.fault = None
        client.log.clear()


@case("3.1.2.3")
async def reserved_connect_flag(h: Stage) -> None:
    """Bit 0 of the connect flags must be 0."""
    client = await h.open()
    await client.send(mqtt.connect(h.version, h.cid("a"), flags=0xC3, **h.login()))
    await refused(client)


@case("3.1.2.6")
async def will_qos_3(h: Stage) -> None:
    """Will QoS 3 does not exist."""
    client = await h.open()
    will = mqtt.Will(h.topic())
    await client.send(mqtt.connect(h.version, h.cid("a"), will=will, flags=0xC6 | 0x18, **h.login()))
    await refused(client)


@case("3.1.2.6", differs="Mosquitto 2.0.11 accepts a will QoS without a will.")
async def will_qos_without_a_will(h: Stage) -> None:
    """Without the will flag the will QoS must be 0."""
    client = await h.open()
    await client.send(mqtt.connect(h.version, h.cid("a"), flags=0xC2 | 0x08, **h.login()))
    if h.edge:
        await refused(client)


@case("3.1.2.7", differs="Mosquitto 2.0.11 accepts will retain without a will.")
async def will_retain_without_a_will(h: Stage) -> None:
    """Without the will flag the will retain flag must be 0."""
    client = await h.open()
    await client.send(mqtt.connect(h.version, h.cid("a"), flags=0xC2 | 0x20, **h.login()))
    if h.edge:
        await refused(client)


@case("3.1.2.9", versions=V3)
async def password_without_username(h: Stage) -> None:
    """MQTT 3.1.1: the password flag needs the username flag."""
    client = await h.open()
    await client.send(mqtt.connect(4, h.cid("a"), password="p"))
    await refused(client)


@case("3.1.2.9", versions=V5, differs="The edge lets nobody in without user@org.")
async def password_alone_is_mqtt_but_no_login(h: Stage) -> None:
    """MQTT 5 allows a password without a username; the edge answers 0x86."""
    _, answer = await h.dial(username=None, password="p")
    assert answer.reason == (0x86 if h.edge else 0)


@case("3.1.2.8", differs="The edge lets nobody in without user@org.")
async def anonymous_is_no_login(h: Stage) -> None:
    """CONNECT without a username is well-formed; the edge answers 4 or 0x86."""
    _, answer = await h.dial(username=None, password=None)
    assert answer.reason == ((0x86 if h.five else 4) if h.edge else 0)


@case("3.1.3.1")
async def client_ids_of_every_kind(h: Stage) -> None:
    """A server accepts 23 letters and digits, and may accept more: long, spaces, punctuation, UTF-8."""
    for number, tail in enumerate(["abcdefghijklmno", "x" * 1000, "a b", "é-中-\U0001f600", "a/b:c,d;e=f'", "%2B%"]):
        client = await h.client(f"n{number}", client_id=f"{h.number:05}{tail}")
        await client.subscribe(h.topic(str(number)))
        await client.publish(h.topic(str(number)), b"x", qos=1)
        assert (await client.message()).payload == b"x"


@case("3.1.3.1", differs="Mosquitto refuses every topic to a client id with + or # where an ACL has patterns.")
async def client_ids_with_wildcard_characters(h: Stage) -> None:
    """``+`` and ``#`` are ordinary characters in a client id."""
    for number, tail in enumerate(["a+b", "a#", "+/#"]):
        client = await h.client(f"n{number}", client_id=f"{h.number}{tail}")
        await client.subscribe(h.topic(str(number)))
        await client.publish(h.topic(str(number)), b"x", qos=1)
        assert (await client.message()).payload == b"x"


@case("3.1.3.1")
async def empty_client_id_with_a_clean_session(h: Stage) -> None:
    """The server makes one up; MQTT 5 tells it as Assigned Client Identifier (s3.2.2.3.7), without any prefix."""
    (one, first), (_, second) = await h.dial("a", client_id=""), await h.dial("b", client_id="")
    assert first.reason == second.reason == 0
    names = [answer.props.get("assigned_client_id") for answer in (first, second)]
    if h.five:
        assert all(names)
        assert names[0] != names[1]
        assert "org_" not in str(names)
    else:
        assert names == [None, None]
    await one.ping()


@case("3.1.3.1", versions=V3)
async def empty_client_id_with_a_stored_session(h: Stage) -> None:
    """MQTT 3.1.1: refused with return code 2, and closed."""
    client, answer = await h.dial(client_id="", clean=False)
    assert answer.reason == 2
    await client.ended()


@case("3.1.3.1", versions=V5)
async def assigned_client_id_can_be_used_again(h: Stage) -> None:
    """MQTT 5: an assigned client id names the session, so it resumes it."""
    props = {"session_expiry": 60}
    client, answer = await h.dial(client_id="", clean=False, props=props)
    name = answer.props["assigned_client_id"]
    await client.subscribe(h.topic())
    await client.leave()
    again, answer = await h.dial("b", client_id=name, clean=False, props=props)
    assert answer.session_present
    assert "assigned_client_id" not in answer.props
    await again.publish(h.topic(), b"x", qos=1)
    assert (await again.message()).payload == b"x"


@case("3.1.4")
async def connect_packet_cut_short(h: Stage) -> None:
    """A CONNECT whose fields run past its end is malformed."""
    whole = mqtt.connect(h.version, h.cid("a"), **h.login())
    for cut in (4, 9, 12, len(whole) - 3):
        client = await h.open()
        await client.send(bytes([0x10, cut]) + whole[2 : 2 + cut])
        await refused(client)


@case("3.1.4", differs="Mosquitto 2.0.11 ignores bytes after the last field.")
async def connect_packet_with_bytes_after_its_end(h: Stage) -> None:
    """Bytes after the last field are malformed."""
    whole = mqtt.connect(h.version, h.cid("a"), **h.login())
    client = await h.open()
    await client.send(mqtt.packet(0x10, whole[2 if len(whole) < 130 else 3 :], b"junk"))
    if h.edge:
        await refused(client)


@case("3.1.1")
async def connect_with_header_flags(h: Stage) -> None:
    """The flags of CONNECT's fixed header are reserved and 0."""
    client = await h.open()
    await client.send(b"\x11" + mqtt.connect(h.version, h.cid("a"), **h.login())[1:])
    await refused(client)


@case("1.5.4 / 1.5.3")
async def client_id_is_checked_utf8(h: Stage) -> None:
    """Ill-formed UTF-8, surrogates and NUL end the connection."""
    for bad in (b"\xff\xfe", b"\xed\xa0\x80", b"a\x00b", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        client = await h.open()
        await client.send(mqtt.connect(h.version, bad, **h.login()))
        await refused(client)


@case("3.1.3.2")
async def will_topic_with_a_wildcard(h: Stage) -> None:
    """A will topic is a topic name."""
    for topic in ("a/+", "#"):
        client = await h.open()
        await client.send(mqtt.connect(h.version, h.cid("a"), will=mqtt.Will(topic), **h.login()))
        await refused(client)


@case("2.1.4 / 2.2.3")
async def connect_byte_by_byte(h: Stage) -> None:
    """A packet may arrive in any number of pieces."""
    client = await h.open("a")
    for byte in mqtt.connect(h.version, h.cid("a"), **h.login()):
        await client.send(bytes([byte]))
    assert (await client.wait(mqtt.CONNACK)).reason == 0


@case("3.1.4-6 / 3.1.4-5")
async def packets_sent_before_connack(h: Stage) -> None:
    """A client need not wait for CONNACK before it goes on."""
    client = await h.open("a")
    await client.send(
        mqtt.connect(h.version, h.cid("a"), **h.login())
        + mqtt.subscribe(h.version, 1, [(h.topic(), 1)])
        + mqtt.publish(h.version, h.topic(), b"early", qos=1, mid=2)
        + mqtt.PING
    )
    assert (await client.wait(mqtt.CONNACK)).reason == 0
    assert (await client.wait(mqtt.SUBACK, 1)).reasons == (1,)
    assert (await client.wait(mqtt.PUBACK, 2)).reason == 0
    await client.wait(mqtt.PINGRESP)
    assert (await client.message()).payload == b"early"


@case("3.2.2.3", versions=V5)
async def connack_properties_make_sense(h: Stage) -> None:
    """What CONNACK offers is in range, and every feature the suite uses is there."""
    _, answer = await h.dial()
    props = answer.props
    assert props.get("receive_maximum", 65_535) > 0
    assert props.get("maximum_packet_size", 1 << 28) > 1_000
    assert props.get("maximum_qos", 2) == 2
    for feature in ("retain", "wildcard", "subscription_id", "shared"):
        assert props.get(f"{feature}_available", 1) == 1
    assert "org_" not in str(props)


@case("3.1.2.11", versions=V5, differs="Mosquitto 2.0.11 accepts some of them.")
async def wrong_connect_properties(h: Stage) -> None:
    """Zero where it is not allowed, twice, misplaced, or out of range: not served."""
    wrong: list[bytes] = [
        mqtt.properties({"receive_maximum": 0}),
        mqtt.properties({"maximum_packet_size": 0}),
        b"\x0a" + mqtt.properties({"session_expiry": 5})[1:] * 2,
        mqtt.properties({"topic_alias": 1}),
        mqtt.properties({"request_problem_information": 2}),
        mqtt.properties({"request_response_information": 7}),
        b"\x02\x7f\x00",
        b"\x05\x11\x00",
        mqtt.properties({"authentication_data": b"x"}),
    ]
    for block in wrong:
        client = await h.open()
        head = mqtt.text("MQTT") + b"\x05\xc2\x00\x3c" + block
        login = h.login()
        await client.send(mqtt.packet(0x10, head, *map(mqtt.text, (h.cid("a"), login["username"], login["password"]))))
        await h.rejected(client, MALFORMED, PROTOCOL_ERROR, lax=True)


@case("3.1.2.11.9", versions=V5)
async def unknown_authentication_method(h: Stage) -> None:
    """An authentication method the server does not support: CONNACK 0x8C."""
    client, answer = await h.dial(props={"authentication_method": "SCRAM-SHA-1"})
    assert answer.reason == 0x8C
    await client.ended()


@case("3.1.2.11.8", versions=V5)
async def user_properties_in_connect(h: Stage) -> None:
    """User properties in CONNECT are accepted."""
    client = await h.client(props={"user_property": [("a", "1"), ("a", "2")], "request_problem_information": 0})
    await client.ping()


@case("3.15")
async def auth_without_a_method(h: Stage) -> None:
    """AUTH is a protocol error unless CONNECT named a method; in 3.1.1 packet type 15 is forbidden."""
    client = await h.client()
    await client.send(b"\xf0\x00")
    await h.rejected(client, PROTOCOL_ERROR)


@case("2.1.2 / 2.2.1")
async def packet_type_0(h: Stage) -> None:
    """Packet type 0 is forbidden."""
    client = await h.client()
    await client.send(b"\x00\x00")
    await h.rejected(client, MALFORMED, PROTOCOL_ERROR)


@case("2.1.4 / 2.2.3")
async def remaining_length_of_five_bytes(h: Stage) -> None:
    """A remaining length has four bytes at most."""
    client = await h.client()
    await client.send(b"\x30\xff\xff\xff\xff\x01")
    await h.rejected(client, MALFORMED)


@case("2.1.2 / 2.2.1", differs="Mosquitto 2.0.11 ignores PINGRESP from clients.")
async def packets_only_a_server_may_send(h: Stage) -> None:
    """CONNACK, SUBACK, UNSUBACK and PINGRESP from a client end the connection."""
    tail = b"\x00" if h.five else b""
    for wrong in (mqtt.packet(0x20, b"\0\0", tail), mqtt.packet(0x90, b"\0\1", tail, b"\0"),
                  mqtt.packet(0xB0, b"\0\1", tail, tail), b"\xd0\x00"):  # fmt: skip
        client = await h.client()
        await client.send(wrong)
        await h.rejected(client, MALFORMED, PROTOCOL_ERROR, lax=True)


@case("3.12.1 / 2.1.3", differs="Mosquitto 2.0.11 does not look at the flags of PINGREQ.")
async def pingreq_with_flags(h: Stage) -> None:
    """The flags of PINGREQ are reserved and 0."""
    client = await h.client()
    await client.send(b"\xc1\x00")
    await h.rejected(client, MALFORMED, lax=True)


@case("3.14.1")
async def disconnect_with_flags(h: Stage) -> None:
    """DISCONNECT with reserved bits set is malformed."""
    client = await h.client()
    await client.send(b"\xe1\x00")
    await h.rejected(client, MALFORMED)


@case("3.1.2.10")
async def keep_alive_runs_out(h: Stage) -> None:
    """Without packets for one and a half times the keep alive, the server closes; not earlier."""
    client = await h.client(keep_alive=2)
    start = time.monotonic()
    said = await client.ended(seconds=20)
    assert time.monotonic() - start >= 2.5
    assert said in ((0x8D, None) if h.five else (None,))


@case("3.1.2.10")
async def pings_keep_a_session_alive(h: Stage) -> None:
    """PINGREQ within the keep alive keeps the connection."""
    client = await h.client(keep_alive=4)
    for _ in range(5):
        await asyncio.sleep(1.6)
        await client.ping()


@case("3.1.2.10")
async def any_packet_keeps_a_session_alive(h: Stage) -> None:
    """So does any other control packet."""
    client = await h.client(keep_alive=4)
    for _ in range(5):
        await asyncio.sleep(1.6)
        await client.publish(h.topic(), b"x", qos=1)


@case("3.1.2.10")
async def keep_alive_zero_never_runs_out(h: Stage) -> None:
    """Keep alive 0 turns the mechanism off."""
    client = await h.client(keep_alive=0)
    await asyncio.sleep(3)
    await client.ping()


@case("3.1.4-3 / 3.1.4-2")
async def same_client_id_takes_over(h: Stage) -> None:
    """A second connection with the client id ends the first; MQTT 5 says 0x8E."""
    first = await h.client("a")
    second = await h.client("a")
    await h.rejected(first, 0x8E)
    await second.ping()


@case("3.1.4-3 / 3.1.4-2")
async def takeover_keeps_the_stored_session(h: Stage) -> None:
    """The taken-over session goes on: subscriptions and queue are there."""
    first = await h.persistent("a")
    await first.subscribe(h.topic())
    second = await h.persistent("a")
    await first.ended()
    assert second.connack is not None
    assert second.connack.session_present
    await second.publish(h.topic(), b"x", qos=1)
    assert (await second.message()).payload == b"x"


@case("3.1.4-3 / 3.1.4-2")
async def takeover_with_a_clean_start(h: Stage) -> None:
    """A clean takeover begins anew."""
    first = await h.persistent("a")
    await first.subscribe(h.topic())
    second = await h.client("a")
    await first.ended()
    await second.publish(h.topic(), b"x", qos=1)
    await second.silent()


@case("3.12.4")
async def every_ping_is_answered(h: Stage) -> None:
    """PINGREQ is answered with PINGRESP, each one."""
    client = await h.client()
    await client.send(mqtt.PING * 5)
    for _ in range(5):
        await client.wait(mqtt.PINGRESP)


@case("3.14.4")
async def disconnect_closes(h: Stage) -> None:
    """After DISCONNECT the server closes and sends nothing more."""
    client = await h.client()
    await client.send(mqtt.disconnect(h.version) + mqtt.PING)
    assert await client.ended() is None
    assert not [packet for packet in client.log if packet.kind == mqtt.PINGRESP]


@case("3.14.2.2", versions=V5)
async def disconnect_with_reason_and_properties(h: Stage) -> None:
    """A DISCONNECT may carry a reason, a reason string and user properties."""
    client = await h.client()
    await client.leave(0x00, {"reason_string": "bye", "user_property": [("k", "v")]})


@case("3.14.2.1", versions=V5, differs="Mosquitto 2.0.11 does not check the length.")
async def disconnect_with_properties_that_overrun(h: Stage) -> None:
    """A property length that runs past the packet is malformed."""
    client = await h.client()
    await client.send(b"\xe0\x02\x00\x09")
    await h.rejected(client, MALFORMED, lax=True)

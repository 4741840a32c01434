"""SUBSCRIBE, UNSUBSCRIBE, topic filters and subscription options (s3.8 to s3.11, s4.7, s4.8)."""

from __future__ import annotations

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client, payloads
from tests.edge.conformance.harness.stage import V5, Stage, case

NO_LOCAL = 0x04


async def reached(h: Stage, topic_filter: str, topics: list[str]) -> list[str]:
    """Which of ``topics`` a subscription to ``topic_filter`` receives."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe((topic_filter, 1))
    for topic in topics:
        await pub.publish(topic, b"x", qos=1)
    await sub.ping()
    return [message.topic for message in sub.messages]


async def matching(h: Stage, topic_filter: str, yes: list[str], no: list[str]) -> None:
    """A filter below the run's own root reaches ``yes`` and not ``no``."""
    root = h.topic("")
    got = await reached(h, root + topic_filter, [root + name for name in [*no, *yes]])
    assert got == [root + name for name in yes]


@case("3.9.3")
async def suback_answers_every_filter_in_its_place(h: Stage) -> None:
    """One return code per filter, in order."""
    client = await h.client()
    answer = await client.subscribe((h.topic("a"), 2), (h.topic("b"), 0), (h.topic("c/#"), 1))
    assert answer.reasons == (2, 0, 1)


@case("2.2.1")
async def identifier_used_again_before_its_answer(h: Stage) -> None:
    """A client must not use an identifier that is in use (s2.3.1 of 3.1.1); brokers answer each, in order."""
    client = await h.client()
    wanted = ((h.topic("a"), 2), (h.topic("b"), 0), (h.topic("c"), 1))
    await client.send(b"".join(mqtt.subscribe(h.version, 9, [one]) for one in wanted))
    await client.send(b"".join(mqtt.unsubscribe(h.version, 9, [topic]) for topic, _ in wanted))
    await client.ping()
    answers = [packet for packet in client.log if packet.kind in (mqtt.SUBACK, mqtt.UNSUBACK)]
    assert [(packet.kind, packet.mid) for packet in answers] == [(mqtt.SUBACK, 9)] * 3 + [(mqtt.UNSUBACK, 9)] * 3
    assert [packet.reasons for packet in answers[:3]] == [(2,), (0,), (1,)]


@case("3.8.3")
async def a_hundred_filters_in_one_subscribe(h: Stage) -> None:
    """A SUBSCRIBE may hold many filters."""
    pub, sub = await h.client("pub"), await h.client("sub")
    answer = await sub.subscribe(*[(h.topic(str(number)), number % 3) for number in range(100)])
    assert answer.reasons == tuple(number % 3 for number in range(100))
    for number in (0, 42, 99):
        await pub.publish(h.topic(str(number)), b"x", qos=1)
        assert (await sub.message()).topic == h.topic(str(number))


@case("3.8.4-3")
async def subscribing_again_replaces(h: Stage) -> None:
    """The same filter again replaces the subscription: one delivery, at the new QoS."""
    pub, sub = await h.client("pub"), await h.client("sub")
    for qos in (2, 0, 1):
        await sub.subscribe((h.topic(), qos))
        await pub.publish(h.topic(), b"x", qos=2)
        assert (await sub.message()).qos == qos
        await sub.silent()


@case("3.3.5")
async def overlapping_filters(h: Stage) -> None:
    """Every overlapping subscription is served at least once and at most once each."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe((h.topic("a/b"), 1), (h.topic("a/+"), 2), (h.topic("a/#"), 0))
    await pub.publish(h.topic("a/b"), b"x", qos=2)
    await sub.ping()
    assert 1 <= len(sub.messages) <= 3


@case("4.7.1.3")
async def plus_matches_one_level(h: Stage) -> None:
    """``+`` stands for exactly one level, an empty one too."""
    await matching(h, "a/+/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c", "a/b", "a/b/c/d"])


@case("4.7.1.3")
async def plus_at_the_end(h: Stage) -> None:
    """``a/+`` matches ``a/b`` and ``a/``, not ``a``."""
    await matching(h, "a/+", ["a/b", "a/"], ["a", "a/b/c", "b/a"])


@case("4.7.1.3")
async def several_pluses(h: Stage) -> None:
    """``+/+`` and ``/+`` treat a leading slash as an empty first level."""
    await matching(h, "+/+", ["a/b", "/b", "a/"], ["a", "a/b/c"])


@case("4.7.1.3")
async def leading_slash_is_a_level(h: Stage) -> None:
    """``/+`` matches ``/finance`` and not ``finance``."""
    await matching(h, "/+", ["/finance", "/"], ["finance", "/a/b"])


@case("4.7.1.2")
async def hash_includes_its_parent(h: Stage) -> None:
    """``a/#`` matches ``a`` and everything below."""
    await matching(h, "a/#", ["a", "a/", "a/b", "a/b/c"], ["b", "ab", "A/b"])


@case("4.7.1.2")
async def plus_and_hash(h: Stage) -> None:
    """Wildcards combine."""
    await matching(h, "+/b/#", ["a/b", "x/b/c", "/b/c/d"], ["b", "a/c", "a/a/b"])


@case("4.7.3")
async def empty_levels_count(h: Stage) -> None:
    """``a//b`` is its own topic."""
    await matching(h, "a//b", ["a//b"], ["a/b", "a///b", "/a//b"])


@case("4.7.1.2", alone=True)
async def hash_alone_matches_everything_but_dollar(h: Stage) -> None:
    """``#`` matches every topic that does not begin with ``$`` (s4.7.2)."""
    topics = ["a", "/", "a/b/c", "/x", "$cs/a", "$other/b"]
    assert await reached(h, "#", topics) == ["a", "/", "a/b/c", "/x"]


@case("4.7.2", alone=True)
async def leading_plus_does_not_match_dollar(h: Stage) -> None:
    """``+/a`` does not match ``$cs/a``; ``+`` matches single levels only."""
    assert await reached(h, "+/a", ["$cs/a", "x/a", "/a", "a"]) == ["x/a", "/a"]


@case("4.7.2", alone=True)
async def dollar_topics_are_reached_by_name(h: Stage) -> None:
    """``$cs/#`` and ``$cs/+`` reach what they name, the parent included."""
    topics = ["$cs/a", "$cs/a/b", "$other/a", "cs/a", "$cs"]
    assert await reached(h, "$cs/#", topics) in (["$cs/a", "$cs/a/b", "$cs"], ["$cs/a", "$cs/a/b"])


@case("4.7.2", alone=True)
async def dollar_only_matters_at_the_start(h: Stage) -> None:
    """A ``$`` further on is a character like any other."""
    assert await reached(h, "a/+", ["a/$b", "a$/b"]) == ["a/$b"]


@case("4.7.1")
async def malformed_filters(h: Stage) -> None:
    """A wildcard that does not fill its level, ``#`` before the end, or an empty filter ends the connection."""
    for wrong in ("a/#/b", "a+", "+a", "a/b+", "#a", "a#", "##", "a/+b/c", ""):
        client = await h.client()
        await client.send(mqtt.subscribe(h.version, 1, [(wrong, 0)]))
        await h.rejected(client, 0x8F, 0x82, 0x81)
        assert not [packet for packet in client.log if packet.kind == mqtt.SUBACK and packet.reasons[0] < 3]


@case("1.5.4 / 1.5.3")
async def filters_are_checked_utf8(h: Stage) -> None:
    """Ill-formed UTF-8 and NUL in a filter end the connection."""
    for wrong in (b"\xff", b"a\x00", b"\xed\xa0\x80"):
        client = await h.client()
        await client.send(mqtt.subscribe(h.version, 1, [(wrong, 0)]))
        await h.rejected(client, 0x81, 0x82, 0x8F, lax=wrong[:1] == "$")


@case("3.8.1")
async def subscribe_with_wrong_flags(h: Stage) -> None:
    """The flags of SUBSCRIBE are 2."""
    client = await h.client()
    await client.send(mqtt.subscribe(h.version, 1, [(h.topic(), 0)], first=0x80))
    await h.rejected(client, 0x81)


@case("3.8.3")
async def subscribe_without_filters(h: Stage) -> None:
    """SUBSCRIBE holds at least one filter."""
    client = await h.client()
    await client.send(mqtt.subscribe(h.version, 1, []))
    await h.rejected(client, 0x82, 0x81)


@case("3.8.3.1 / 3.8.3")
async def subscribe_with_wrong_options(h: Stage) -> None:
    """QoS 3 and reserved option bits are malformed; so is Retain Handling 3."""
    for options in [3, 0x40, 0x80, *([0x30] if h.five else [0x04, 0x08, 0x10])]:
        client = await h.client()
        await client.send(mqtt.subscribe(h.version, 1, [(h.topic(), options)]))
        await h.rejected(client, 0x81, 0x82)


@case("2.2.1 / 2.3.1")
async def subscribe_with_packet_id_0(h: Stage) -> None:
    """SUBSCRIBE and UNSUBSCRIBE have a packet id that is not 0."""
    for raw in (mqtt.subscribe(h.version, 0, [(h.topic(), 0)]), mqtt.unsubscribe(h.version, 0, [h.topic()])):
        client = await h.client()
        await client.send(raw)
        await h.rejected(client, 0x82, 0x81)


@case("3.8.3")
async def subscribe_cut_short(h: Stage) -> None:
    """A filter without options, or one that runs past the packet, is malformed."""
    props = b"\x00" if h.five else b""
    for body in (b"\x00\x01" + props + b"\x00\x01a", b"\x00\x01" + props + b"\x00\x09a", b"\x00"):
        client = await h.client()
        await client.send(mqtt.packet(0x82, body))
        await h.rejected(client, 0x81)


@case("3.10.4")
async def unsubscribe_stops_delivery(h: Stage) -> None:
    """After UNSUBACK nothing more is delivered on the filter."""
    pub, sub = await h.pair()
    await sub.unsubscribe(h.topic())
    await pub.publish(h.topic(), b"x", qos=1)
    await sub.silent()


@case("3.10.4 / 3.11.3")
async def unsubscribe_answers_every_filter(h: Stage) -> None:
    """UNSUBACK comes whether the filter existed or not; MQTT 5 says which (0x00, 0x11)."""
    client = await h.client()
    await client.subscribe(h.topic("a"), h.topic("b"))
    answer = await client.unsubscribe(h.topic("a"), h.topic("never"), h.topic("b"))
    assert answer.reasons == ((0, 0x11, 0) if h.five else ())


@case("3.10.4")
async def unsubscribe_compares_characters(h: Stage) -> None:
    """A filter is ended by the same filter only, not by one that matches it."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe(h.topic("a/+"))
    await sub.unsubscribe(h.topic("a/b"), h.topic("a/#"))
    await pub.publish(h.topic("a/b"), b"x", qos=1)
    assert (await sub.message()).payload == b"x"


@case("3.10.1")
async def unsubscribe_with_wrong_flags(h: Stage) -> None:
    """The flags of UNSUBSCRIBE are 2."""
    client = await h.client()
    await client.send(mqtt.unsubscribe(h.version, 1, [h.topic()], first=0xA0))
    await h.rejected(client, 0x81)


@case("3.10.3")
async def unsubscribe_without_filters(h: Stage) -> None:
    """UNSUBSCRIBE holds at least one filter."""
    client = await h.client()
    await client.send(mqtt.unsubscribe(h.version, 1, []))
    await h.rejected(client, 0x82, 0x81)


@case("3.10.4")
async def unsubscribing_leaves_other_filters(h: Stage) -> None:
    """Other subscriptions of the client that match the same topic go on."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe(h.topic("a"), h.topic("#"))
    await sub.unsubscribe(h.topic("a"))
    await pub.publish(h.topic("a"), b"x", qos=1)
    assert (await sub.message()).payload == b"x"
    await sub.silent()


@case("3.8.2.1.2", versions=V5)
async def subscription_identifier_is_delivered(h: Stage) -> None:
    """A message tells the identifier of the subscription that matched."""
    pub, sub = await h.client("pub"), await h.client("sub")
    for identifier in (1, 127, 128, 268_435_455):
        await sub.subscribe(h.topic(str(identifier)), props={"subscription_id": identifier})
        await pub.publish(h.topic(str(identifier)), b"x", qos=1)
        assert (await sub.message()).props["subscription_id"] == [identifier]


@case("3.3.4", versions=V5)
async def overlapping_subscription_identifiers(h: Stage) -> None:
    """With overlapping subscriptions every identifier arrives, together or one by one."""
    pub, sub = await h.client("pub"), await h.client("sub")
    await sub.subscribe(h.topic("a/b"), props={"subscription_id": 1})
    await sub.subscribe(h.topic("a/+"), props={"subscription_id": 2})
    await sub.subscribe(h.topic("a/#"))
    await pub.publish(h.topic("a/b"), b"x", qos=1)
    await sub.ping()
    found = sorted(number for message in sub.messages for number in message.props.get("subscription_id", []))
    assert found == [1, 2]


@case("3.8.4", versions=V5)
async def subscription_identifier_is_replaced(h: Stage) -> None:
    """Subscribing again replaces or removes the identifier."""
    pub, sub = await h.client("pub"), await h.client("sub")
    for props, expected in (({"subscription_id": 5}, [5]), ({"subscription_id": 6}, [6]), (None, None)):
        await sub.subscribe(h.topic(), props=props)
        await pub.publish(h.topic(), b"x", qos=1)
        assert (await sub.message()).props.get("subscription_id") == expected


@case("3.8.2.1.2", versions=V5)
async def subscription_identifier_0(h: Stage) -> None:
    """A subscription identifier of 0, or two of them, is a protocol error."""
    for block in (b"\x02\x0b\x00", b"\x04\x0b\x01\x0b\x02"):
        client = await h.client()
        await client.send(mqtt.packet(0x82, b"\x00\x01", block, mqtt.text(h.topic()), b"\x00"))
        await h.rejected(client, 0x81, 0x82)


@case("3.8.3.1", versions=V5)
async def no_local_keeps_own_messages_away(h: Stage) -> None:
    """No Local: a client does not get what it published itself; others do."""
    client, other = await h.client("a"), await h.client("b")
    await client.subscribe((h.topic(), 1 | NO_LOCAL))
    await client.publish(h.topic(), b"own", qos=1)
    await other.publish(h.topic(), b"other", qos=1)
    assert (await client.message()).payload == b"other"
    await client.silent()


@case("3.8.3.1", versions=V5, differs="Mosquitto 2.0.11 accepts it.")
async def no_local_on_a_shared_subscription(h: Stage) -> None:
    """No Local on a shared subscription is a protocol error."""
    client = await h.client()
    await client.send(mqtt.subscribe(5, 1, [(f"$share/g/{h.topic()}", NO_LOCAL)]))
    await h.rejected(client, 0x82, lax=True)


@case("3.8.2.1.3 / 3.10.2.1.2", versions=V5)
async def user_properties_in_subscribe(h: Stage) -> None:
    """SUBSCRIBE and UNSUBSCRIBE may carry user properties."""
    client = await h.client()
    props = {"user_property": [("k", "v"), ("k", "w")]}
    assert (await client.subscribe((h.topic(), 1), props=props)).reasons == (1,)
    assert (await client.unsubscribe(h.topic(), props=props)).reasons == (0,)


async def members(h: Stage, count: int, topic_filter: str) -> list[Client]:
    clients = [await h.client(f"m{number}") for number in range(count)]
    for client in clients:
        answer = await client.subscribe((topic_filter, 1))
        assert answer.reasons == (1,)
    return clients


async def spread(clients: list[Client]) -> list[list[bytes]]:
    for client in clients:
        await client.ping()
    return [payloads(list(client.messages)) for client in clients]


@case("4.8.2")
async def shared_subscription_delivers_to_one_member(h: Stage) -> None:
    """Each message goes to exactly one member of the group, and every member gets some."""
    group = await members(h, 3, f"$share/{h.cid('g')}/{h.topic()}")
    pub = await h.client("pub")
    for number in range(30):
        await pub.publish(h.topic(), b"%d" % number, qos=1)
    got = await spread(group)
    assert sorted((payload for own in got for payload in own), key=int) == [b"%d" % number for number in range(30)]
    assert all(got)


@case("4.8.2")
async def two_groups_get_a_copy_each(h: Stage) -> None:
    """Groups are independent of each other and of ordinary subscriptions."""
    one = await members(h, 1, f"$share/{h.cid('one')}/{h.topic()}")
    two, plain = await h.client("two"), await h.client("plain")
    await two.subscribe((f"$share/{h.cid('two')}/{h.topic('+')}", 1))
    await plain.subscribe((h.topic(), 1))
    pub = await h.client("pub")
    await pub.publish(h.topic(), b"x", qos=1)
    assert await spread([*one, two, plain]) == [[b"x"]] * 3


@case("4.8.2")
async def shared_member_leaves(h: Stage) -> None:
    """When a member leaves, the others get everything."""
    first, second = await members(h, 2, f"$share/{h.cid('g')}/{h.topic()}")
    await first.leave()
    pub = await h.client("pub")
    for number in range(4):
        await pub.publish(h.topic(), b"%d" % number, qos=1)
    assert await spread([second]) == [[b"0", b"1", b"2", b"3"]]


@case("4.8.2")
async def shared_subscription_is_unsubscribed(h: Stage) -> None:
    """A shared subscription is ended by its full filter."""
    (client,) = await members(h, 1, f"$share/{h.cid('g')}/{h.topic()}")
    answer = await client.unsubscribe(f"$share/{h.cid('g')}/{h.topic()}")
    assert answer.reasons == ((0,) if h.five else ())
    await client.publish(h.topic(), b"x", qos=1)
    await client.silent()


@case("4.8.2")
async def shared_subscription_and_an_ordinary_one(h: Stage) -> None:
    """One client may hold both; it gets the message once or for each."""
    (client,) = await members(h, 1, f"$share/{h.cid('g')}/{h.topic()}")
    await client.subscribe((h.topic(), 1))
    await client.publish(h.topic(), b"x", qos=1)
    assert await spread([client]) in ([[b"x", b"x"]], [[b"x"]])


@case("4.8.2")
async def shared_subscription_of_a_stored_session(h: Stage) -> None:
    """A shared subscription is part of the stored session."""
    name = f"$share/{h.cid('g')}/{h.topic()}"
    client = await h.persistent("a")
    await client.subscribe((name, 1))
    await client.leave()
    again = await h.persistent("a")
    await again.publish(h.topic(), b"x", qos=1)
    assert (await again.message()).payload == b"x"


@case("4.8.2", versions=V5, differs="Mosquitto 2.0.11 accepts some of them.")
async def malformed_share_names(h: Stage) -> None:
    """A share name is not empty and holds no wildcards; a filter follows it."""
    for wrong in ("$share//t", "$share/g", "$share/g/", "$share/a+/t", "$share/#/t"):
        client = await h.client()
        await client.send(mqtt.subscribe(h.version, 1, [(wrong, 0)]))
        await h.rejected(client, 0x81, 0x82, 0x8F, lax=wrong[:1] == "$")


@case("4.8.2", versions=V5)
async def shared_subscription_with_identifier(h: Stage) -> None:
    """A shared subscription may have an identifier."""
    client = await h.client()
    await client.subscribe((f"$share/{h.cid('g')}/{h.topic()}", 1), props={"subscription_id": 9})
    await client.publish(h.topic(), b"x", qos=1)
    assert (await client.message()).props["subscription_id"] == [9]

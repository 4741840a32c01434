"""Subscriptions of one session: judged anew, remembered with a stored session, taken up again when it is resumed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.codec import Kind, Subscribe, Subscription, Unsubscribe
from cloudsignal.edge.session.organization import FILTERS_FLOOR
from cloudsignal.edge.session.subscribing import FILTERS_MIN
from cloudsignal.edge.session.subscriptions import PENDING_MAX, TOGETHER, Asked
from cloudsignal.edge.signin.stored_sessions import FILTER_BYTES, FILTERS_MAX, WITHHELD, resumed
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Quotas
from tests.support.parts import Issued, wait_for
from tests.support.rig import Rig
from tests.support.session_bench import ALL, ORG, Bench, active
from tests.support.wire import Wire

BOTH = pytest.mark.parametrize("version", [4, 5])
ONLY_B = "version: '3'\nrules: [{id: s, who: sender, topic: '#'}, {id: b, topic: 'b/#', action: sub}]"


# --- the machine alone -----------------------------------------------------------------------------------------------


def subscribed(bench: Bench, *filters: bytes, packet_id: int = 1) -> None:
    """Subscribe, and let the broker grant it."""
    entries = [Subscription(topic_filter, 0) for topic_filter in filters]
    bench.session.client_received(codec.encode_subscribe(Subscribe(packet_id, entries), bench.version))
    bench.session.broker_received(codec.suback(packet_id, [0] * len(filters), bench.version))
    bench.client()
    bench.broker()


def unsubscribes(data: bytes, version: int) -> list[Unsubscribe]:
    """Every UNSUBSCRIBE in ``data``."""
    found: list[Unsubscribe] = []
    while data:
        assert data[0] == Kind.UNSUBSCRIBE | 2
        found.append(codec.decode_unsubscribe(data[0], data[2 : 2 + data[1]], version))
        data = data[2 + data[1] :]
    return found


def swap(bench: Bench, policy: str) -> None:
    """A new policy, as the node brings it."""
    bench.org.active = active(policy)
    bench.session.adopt()
    bench.session.rejudge()


@BOTH
def test_two_policies_in_a_row_ask_the_broker_twice_and_tell_the_client_nothing(version: int) -> None:
    bench = Bench(version)
    subscribed(bench, b"a/#", b"b/#", b"c")
    swap(bench, "version: '3'\nrules: [{id: b, topic: 'b/#'}, {id: c, topic: c}]")
    swap(bench, "version: '3'\nrules: [{id: c, topic: c}]")
    first, second = unsubscribes(bench.broker(), version)
    assert (first.filters, second.filters) == ([f"{ORG}/t/a/#".encode()], [f"{ORG}/t/b/#".encode()])
    assert first.packet_id != second.packet_id
    for one in (first, second):
        bench.session.broker_received(codec.unsuback(one.packet_id, [0], version))
    assert bench.client() == b""
    assert bench.session.live


NOTHING = "version: '3'\nrules: []"


def subscribes(data: bytes, version: int) -> list[Subscribe]:
    """Every SUBSCRIBE in ``data``."""
    found: list[Subscribe] = []
    while data:
        assert data[0] == Kind.SUBSCRIBE | 2
        length, start = (data[1], 2) if data[1] < 128 else (data[1] & 127 | data[2] << 7, 3)
        found.append(codec.decode_subscribe(data[0], data[start : start + length], version))
        data = data[start + length :]
    return found


def withheld(bench: Bench, *filters: bytes) -> None:
    """Subscribe, and lose it all to a policy."""
    subscribed(bench, *filters)
    swap(bench, NOTHING)
    for one in unsubscribes(bench.broker(), bench.version):
        bench.session.broker_received(codec.unsuback(one.packet_id, [0] * len(one.filters), bench.version))


@BOTH
def test_what_is_granted_again_comes_back_as_it_was_asked_for_and_the_client_hears_nothing_of_it(version: int) -> None:
    bench = Bench(version)
    options = 0b101110 if version == 5 else 2  # Retain Handling 2, Retain As Published, No Local, QoS 2
    properties = codec.Properties([(codec.Property.SUBSCRIPTION_ID, 9)] if version == 5 else [])
    asked = Subscribe(1, [Subscription(b"a/#", options), Subscription(b"b", 1)], properties)
    bench.session.client_received(codec.encode_subscribe(asked, version))
    bench.session.broker_received(codec.suback(1, [2, 1], version))
    bench.client()
    bench.broker()
    swap(bench, NOTHING)
    assert [len(one.filters) for one in unsubscribes(bench.broker(), version)] == [2]
    swap(bench, "version: '3'\nrules: [{id: a, topic: 'a/#', qos: 1}]")
    (again,) = subscribes(bench.broker(), version)
    expected = options & ~3 | 1  # the QoS the policy grants now
    assert again.entries == [Subscription(f"{ORG}/t/a/#".encode(), expected)]
    assert again.properties == properties
    bench.session.broker_received(codec.suback(again.packet_id, [1], version))
    swap(bench, ALL)
    (rest,) = subscribes(bench.broker(), version)
    assert rest.entries == [Subscription(f"{ORG}/t/b".encode(), 1)]
    bench.session.broker_received(codec.suback(rest.packet_id, [1], version))
    assert bench.client() == b""
    assert set(bench.session.subscriptions.live) == {b"a/#", b"b"}
    assert bench.kinds().count("subscribe") == 4
    swap(bench, ALL)
    assert bench.broker() == b""


@BOTH
def test_a_policy_that_comes_while_a_subscription_is_brought_back_ends_it_again(version: int) -> None:
    bench = Bench(version)
    withheld(bench, b"a")
    swap(bench, ALL)
    (again,) = subscribes(bench.broker(), version)
    swap(bench, NOTHING)
    assert bench.broker() == b""
    bench.session.broker_received(codec.suback(again.packet_id, [0], version))
    assert [one.filters for one in unsubscribes(bench.broker(), version)] == [[f"{ORG}/t/a".encode()]]
    assert set(bench.session.subscriptions.withheld) == {b"a"}


@BOTH
def test_a_client_that_gives_up_a_withheld_subscription_or_is_refused_it_does_not_get_it_back(version: int) -> None:
    bench = Bench(version)
    withheld(bench, b"a", b"b", b"c")
    bench.session.client_received(codec.encode_unsubscribe(Unsubscribe(2, [b"a"]), version))
    bench.session.broker_received(codec.unsuback(2, [0x11], version))
    refusal = 0x87 if version == 5 else 0x80
    bench.client()
    assert ask(bench, 3, b"b") == codec.suback(3, [refusal], version)
    bench.broker()
    swap(bench, ALL)
    (again,) = subscribes(bench.broker(), version)
    assert [one.topic_filter for one in again.entries] == [f"{ORG}/t/c".encode()]


@BOTH
def test_what_a_client_gives_up_is_not_brought_back_by_a_policy_that_comes_before_the_answer(version: int) -> None:
    bench = Bench(version)
    withheld(bench, b"a", b"b")
    bench.session.client_received(codec.encode_unsubscribe(Unsubscribe(2, [b"a"]), version))
    bench.broker()
    swap(bench, ALL)
    (again,) = subscribes(bench.broker(), version)
    assert [one.topic_filter for one in again.entries] == [f"{ORG}/t/b".encode()]
    bench.session.broker_received(codec.unsuback(2, [0x11], version))
    bench.session.broker_received(codec.suback(again.packet_id, [0], version))
    assert set(bench.session.subscriptions.live) == {b"b"}
    assert not bench.session.subscriptions.withheld


@BOTH
def test_what_a_client_asks_for_anew_is_not_overridden_by_what_it_had_asked_for_before(version: int) -> None:
    bench = Bench(version)
    withheld(bench, b"a")
    bench.org.active = active(ALL)
    entries = [Subscription(b"a", 2)]
    bench.session.client_received(codec.encode_subscribe(Subscribe(3, entries), version))
    (asked,) = subscribes(bench.broker(), version)
    assert asked.entries == [Subscription(f"{ORG}/t/a".encode(), 2)]
    bench.session.adopt()
    bench.session.rejudge()
    assert bench.broker() == b"", "the client has asked itself"
    bench.session.broker_received(codec.suback(3, [2], version))
    assert bench.session.subscriptions.live[b"a"].options == 2
    assert not bench.session.subscriptions.withheld


@BOTH
def test_what_is_withheld_counts_against_the_quota_and_many_come_back_in_portions(version: int) -> None:
    bench = Bench(version, quotas=Quotas(subscriptions_per_session=TOGETHER * 2))
    names = [b"%d" % number for number in range(TOGETHER * 2)]
    for start in range(0, len(names), TOGETHER):
        subscribed(bench, *names[start : start + TOGETHER])
    bench.org.active = active(NOTHING, quotas=Quotas(subscriptions_per_session=TOGETHER * 2))
    bench.session.adopt()
    bench.session.rejudge()
    bench.broker()
    bench.org.active = active(ALL, quotas=Quotas(subscriptions_per_session=TOGETHER * 2))
    bench.session.adopt()
    over = 0x97 if version == 5 else 0x80
    assert ask(bench, 1, b"more") == codec.suback(1, [over], version)
    bench.session.rejudge()
    back = subscribes(bench.broker(), version)
    assert [len(one.entries) for one in back] == [TOGETHER, TOGETHER]
    assert len({one.packet_id for one in back}) == 2


@BOTH
def test_a_subscription_the_broker_grants_after_a_policy_took_it_away_is_ended_at_once(version: int) -> None:
    bench = Bench(version)
    entry = Subscribe(1, [Subscription(b"a/#", 0)])
    bench.session.client_received(codec.encode_subscribe(entry, version))
    swap(bench, "version: '3'\nrules: []")
    bench.broker()
    bench.session.broker_received(codec.suback(1, [0], version))
    assert [one.filters for one in unsubscribes(bench.broker(), version)] == [[f"{ORG}/t/a/#".encode()]]


@BOTH
def test_answers_to_an_identifier_that_is_used_twice_come_in_the_order_of_the_questions(version: int) -> None:
    """MQTT 5 s2.2.1 forbids it and brokers bear with it; a client must not make it look like a fault of the edge."""
    bench = Bench(version, policy="version: '3'\nrules: [{id: a, topic: a}, {id: b, topic: b}]")
    for filters in ((b"a", b"no"), (b"b",)):
        entries = [Subscription(topic_filter, 0) for topic_filter in filters]
        bench.session.client_received(codec.encode_subscribe(Subscribe(5, entries), version))
    bench.session.broker_received(codec.suback(5, [0], version) * 2)
    refusal = 0x87 if version == 5 else 0x80
    assert bench.client() == codec.suback(5, [0, refusal], version) + codec.suback(5, [0], version)
    assert list(bench.session.subscriptions.live) == [b"a", b"b"]
    for topic_filter in (b"a", b"b"):
        bench.session.client_received(codec.encode_unsubscribe(Unsubscribe(5, [topic_filter]), version))
    bench.session.broker_received(codec.unsuback(5, [0], version) * 2)
    assert bench.client() == codec.unsuback(5, [0], version) * 2
    assert bench.kinds().count("unsubscribe") == 2
    assert bench.session.live


@BOTH
def test_questions_without_an_answer_are_bounded(version: int) -> None:
    bench = Bench(version)
    packet = codec.encode_subscribe(Subscribe(5, [Subscription(b"a", 0)]), version)
    for count, ended in ((PENDING_MAX, False), (1, True)):
        bench.session.client_received(packet * count)
        while bench.session.unread and not bench.session.ended:
            bench.session.client_received(b"")
        assert bench.session.ended is ended
    assert bench.kinds() == ["connect", "session_closed"]


def ask(bench: Bench, packet_id: int, *filters: bytes) -> bytes:
    """Send a SUBSCRIBE; returns what the client hears at once."""
    entries = [Subscription(topic_filter, 0) for topic_filter in filters]
    bench.session.client_received(codec.encode_subscribe(Subscribe(packet_id, entries), bench.version))
    while bench.session.unread:
        bench.session.client_received(b"")
    return bench.client()


@BOTH
def test_subscriptions_count_from_the_moment_they_are_asked_for(version: int) -> None:
    """A client that does not wait for answers could otherwise ask for any number at once."""
    bench = Bench(version, quotas=Quotas(subscriptions_per_session=3))
    over = 0x97 if version == 5 else 0x80
    assert ask(bench, 1, b"1", b"2") == b""
    assert ask(bench, 2, b"2", b"3", b"4") == b""
    assert ask(bench, 3, b"5") == codec.suback(3, [over], version)
    bench.session.broker_received(codec.suback(1, [0, 0x80], version))  # the broker refuses 2
    assert bench.client() == codec.suback(1, [0, 0x80], version)
    bench.session.broker_received(codec.suback(2, [0, 0], version))
    assert bench.client() == codec.suback(2, [0, 0, over], version)
    assert set(bench.session.subscriptions.live) == {b"1", b"2", b"3"}
    assert ask(bench, 4, b"6") == codec.suback(4, [over], version)
    (event,) = [event for event in bench.sink.events if event.kind == "limit_reached"]
    assert (event.reason, event.count) == ("subscriptions_per_session", 3)


@BOTH
def test_of_one_packet_as_many_filters_are_judged_as_a_session_may_hold(version: int) -> None:
    bench = Bench(version, policy="version: '3'\nrules: []", quotas=Quotas(subscriptions_per_session=2))
    over, denied = (0x97, 0x87) if version == 5 else (0x80, 0x80)
    answer = ask(bench, 1, *(b"%d" % number for number in range(2_000)))
    assert answer == codec.suback(1, [denied] * FILTERS_MIN + [over] * (2_000 - FILTERS_MIN), version)
    assert bench.kinds() == ["connect", *["acl_denied"] * FILTERS_MIN, "limit_reached"]
    assert (bench.sink.events[-1].reason, bench.sink.events[-1].count) == ("filters_per_packet", 1_900)


@BOTH
def test_an_organization_asks_for_as_many_filters_a_minute_as_it_may_send_messages(version: int) -> None:
    bench = Bench(version, policy="version: '3'\nrules: []", quotas=Quotas(messages_per_minute=1))
    over, denied = (0x97, 0x87) if version == 5 else (0x80, 0x80)
    bench.org._minute, bench.session.heard_at = int(time.time()) // 60, time.time()
    for number in range(FILTERS_FLOOR // 100):
        answer = ask(bench, 1, *(b"%d/%d" % (number, index) for index in range(100)))
        assert answer == codec.suback(1, [denied] * 100, version)
    assert ask(bench, 1, b"more") == codec.suback(1, [over], version)
    assert bench.sink.events[-1].reason == "filters_per_minute"
    bench.org._minute -= 1  # the next minute
    assert ask(bench, 1, b"more") == codec.suback(1, [denied], version)
    answer = bench.publish("a", qos=1, packet_id=1)[0]
    assert answer[2:5] == (b"\0\1\x87" if version == 5 else b"\0\1"), "messages are apart"


def test_ending_what_was_never_there_is_no_event() -> None:
    for version, events in ((4, 1), (5, 2)):
        bench = Bench(version)
        subscribed(bench, b"a")
        packet = Unsubscribe(2, [b"a", b"never", b"held"])
        bench.session.client_received(codec.encode_unsubscribe(packet, version))
        # A resumed session may hold what the edge does not know of, and only MQTT 5 tells.
        bench.session.broker_received(codec.unsuback(2, [0, 0x11, 0], version))
        assert bench.client() == codec.unsuback(2, [0, 0x11, 0], version)
        assert bench.kinds().count("unsubscribe") == events


@BOTH
def test_a_will_forbidden_while_the_broker_answers_is_dropped(version: int) -> None:
    bench = Bench(version, connect={"will": codec.Will(b"w", b"bye")}, answered=False)
    bench.org.active = active("version: '3'\nrules: []")
    bench.session.adopt()
    bench.session.rejudge()
    bench.broker()
    bench.session.broker_received(codec.connack(version, 0))
    assert bench.session.ended
    assert bench.broker() == (b"\xe0\0" if version == 4 else codec.disconnect(0))
    assert bench.sink.events[-1].reason == "will_denied"


@BOTH
def test_a_hint_is_judged_and_nonsense_in_it_is_passed_over(version: int) -> None:
    bench = Bench(version, policy="version: '3'\nrules: [{id: b, topic: 'b/#'}]")
    names = [b"a/#", b"b/1", b"\xff", b"a/#/c", b"", b"x" * 65_530, b"$share/g/a"]
    bench.session.subscriptions.resume([(Asked(name, 0), False) for name in names])
    assert list(bench.session.subscriptions.live) == [b"b/1"]
    (one,) = unsubscribes(bench.broker(), version)
    assert one.filters == [f"{ORG}/t/a/#".encode(), f"$share/g/{ORG}/t/a".encode()]


def test_redis_cannot_make_the_edge_take_up_more_than_was_ever_written() -> None:
    reply = [b"a", b"\x86\0\0\0\7", b"x" * (FILTER_BYTES + 1), b"\0", 7, b"\0", b"b", None, b"old"]
    assert resumed(reply) == ((Asked(b"a", 6, wanted=6, identifier=7), True),)
    for wrong in (b"\3", b"\x30", b"\0\xff\xff\xff\xff"):
        assert resumed([b"a", wrong]) == ()
    assert resumed([b"$share/g/a", b"\4"]) == ()
    many = [part for number in range(FILTERS_MAX * 3) for part in (b"%d" % number, b"\0")]
    assert len(resumed(many)) == FILTERS_MAX


# --- on real parts ---------------------------------------------------------------------------------------------------


def come(rig: Rig, issued: Issued, version: int, *, present: bool, clean: bool = False) -> Wire:
    """Connect with a session that is kept."""
    wire = rig.dial()
    answer = wire.connect(
        version=version,
        username=issued.username,
        password=issued.password,
        client_id="stored",
        clean=clean,
        properties=[(17, 600)] if version == 5 else (),
    )
    assert (answer.code, answer.session_present) == (0, present)
    return wire


def gone(rig: Rig, org: str, wire: Wire, *, times: int = 1) -> None:
    """Disconnect and wait until the edge has said everything about it."""
    wire.disconnect()
    wait_for(lambda: len(rig.plane.events(org=org, kind="disconnect", client_id="stored")) == times, what="the end")


def held(rig: Rig, org: str) -> set[bytes]:
    """What Redis says the broker holds of the stored session."""
    notes: dict[bytes, bytes] = rig.plane.redis.hgetall(keys.filters(org, "stored"))  # type: ignore[assignment]
    return {name for name, note in notes.items() if not note[0] & WITHHELD}


@BOTH
def test_a_resumed_session_loses_what_a_policy_took_away_in_the_meantime(rig: Rig, version: int) -> None:
    org = rig.org()
    reader, sender = rig.plane.issue(org, "reader"), rig.client(rig.plane.issue(org, "sender"))
    first = come(rig, reader, version, present=False)
    assert first.subscribe("a/#", "b/#", "$share/g/a/x", qos=2) == [2, 2, 2]
    gone(rig, org, first)
    for qos in (0, 1, 2):
        sender.publish("a/queued", b"no", qos=qos)
        sender.publish("b/queued", b"yes", qos=qos)
    rig.plane.enforced(org, rig.plane.deploy(org, ONLY_B))
    again = come(rig, reader, version, present=True)
    ended = {"a/#", "$share/g/a/x"}
    wait_for(
        lambda: {e.topic for e in rig.plane.events(org=org, kind="acl_denied", action="subscribe")} == ended,
        what="both subscriptions judged anew",
    )
    assert {again.delivery().topic, again.delivery().topic} == {b"b/queued"}
    again.nothing()
    sender.publish("a/later", b"no", qos=1)
    again.nothing()
    # Ended upstream, not only held back: what is denied from here on would be an event.
    assert not rig.plane.events(org=org, kind="acl_denied", action="receive", topic="a/later")
    assert held(rig, org) == {b"b/#"}


TEAM = """
version: '3'
rules:
  - {id: s, who: sender, topic: '#'}
  - {id: t, topic: 'team/{claims.team}/#'}
"""


def expiring(seconds: float) -> str:
    """A policy that shuts everything but the sender out for so long."""
    until = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
    deny = f"{{id: d, who: reader, effect: deny, topic: 'team/#', expires: '{until}'}}"
    return f"version: '3'\nrules: [{deny}, {{id: all, topic: '#'}}]"


@BOTH
@pytest.mark.parametrize("how", ["deploy", "claims", "expiry"])
@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
def test_a_subscription_that_is_lost_and_granted_again_delivers_again(
    rig: Rig, version: int, how: str, stored: bool
) -> None:
    """Live, or lost and granted again with a connection in between and none; the retained state is delivered anew."""
    org = rig.org(TEAM)
    reader = rig.plane.issue(org, "reader", claims={"team": "red"})
    sender = rig.client(rig.plane.issue(org, "sender"))
    client = come(rig, reader, version, present=False)
    assert client.subscribe("team/red/#", qos=1) == [1]
    if how == "claims":
        rig.plane.change_claims(reader, {"team": "blue"})
    else:
        rig.plane.enforced(org, rig.plane.deploy(org, ONLY_B if how == "deploy" else expiring(2.5)))
    rig.plane.event(org=org, kind="acl_denied", action="subscribe", topic="team/red/#")
    sender.publish("team/red/state", b"lost", qos=1)
    sender.publish("team/red/state", b"kept", qos=1, retain=True)
    client.nothing()
    if stored:
        gone(rig, org, client)
    if how == "claims":
        rig.plane.change_claims(reader, {"team": "red"})
    elif how == "deploy":
        rig.plane.enforced(org, rig.plane.deploy(org, TEAM))
    if stored:
        client = come(rig, reader, version, present=True)
    assert client.delivery().payload == b"kept"
    sender.publish("team/red/x", b"again", qos=1)
    assert client.delivery().payload == b"again"
    wait_for(lambda: held(rig, org) == {b"team/red/#"}, what="the note that the broker holds it")
    wait_for(lambda: len(rig.plane.events(org=org, kind="subscribe")) == 2, what="both beginnings in the audit")


@BOTH
def test_without_the_hint_nothing_that_is_not_granted_is_delivered_either(rig: Rig, version: int) -> None:
    """Redis may lose it or withhold it: queued, live and retained messages of every QoS are still judged one by one."""
    org = rig.org()
    reader, sender = rig.plane.issue(org, "reader"), rig.client(rig.plane.issue(org, "sender"))
    first = come(rig, reader, version, present=False)
    assert first.subscribe("a/#", "b/#", qos=2) == [2, 2]
    gone(rig, org, first)
    for number in range(30):  # more than the broker's window: denied ones must be acknowledged in the client's place
        sender.publish("a/queued", b"no", qos=1 + number % 2, packet_id=number + 1)
    sender.publish("a/kept", b"no", qos=1, retain=True)
    sender.publish("b/queued", b"yes", qos=1)
    rig.plane.enforced(org, rig.plane.deploy(org, ONLY_B))
    rig.plane.redis.delete(keys.filters(org, "stored"))
    again = come(rig, reader, version, present=True)
    assert again.delivery().topic == b"b/queued"
    for qos in (0, 1, 2):
        sender.publish("a/live", b"no", qos=qos, retain=True)
        sender.publish("b/live", b"yes", qos=qos)
        assert again.delivery().topic == b"b/live"
    again.nothing()
    assert again.subscribe("a/#", qos=1) == [0x87 if version == 5 else 0x80]
    again.nothing()
    wait_for(
        lambda: sum(e.count for e in rig.plane.events(org=org, kind="acl_denied", action="receive")) == 34,
        what="30 queued, one retained and three live messages, each counted",
    )


@BOTH
def test_a_forged_hint_grants_nothing(rig: Rig, version: int) -> None:
    org = rig.org(ONLY_B)
    reader, sender = rig.plane.issue(org, "reader"), rig.client(rig.plane.issue(org, "sender"))
    first = come(rig, reader, version, present=False)
    first.subscribe("b/1")
    gone(rig, org, first)
    forged = {b"#": b"\2", b"a/#": b"\x82", b"\xff\xfe": b"", b"+" * 70_000: b"\2", b"b/3": b"\x83", b"b/4": b"\xff"}
    rig.plane.redis.hset(keys.filters(org, "stored"), mapping=forged)  # type: ignore[arg-type]
    again = come(rig, reader, version, present=True)
    for topic in ("a/1", "b/2", "b/3", "b/4"):
        sender.publish(topic, b"no", qos=1)
    sender.publish("b/1", b"yes", qos=1)
    assert again.delivery().topic == b"b/1"
    again.nothing()


@BOTH
def test_subscriptions_of_a_stored_session_count_after_it_is_resumed(rig: Rig, version: int) -> None:
    """A client that comes and goes could otherwise pile up as many as it likes at the broker."""
    org = rig.org(quotas=Quotas(subscriptions_per_session=3))
    issued = rig.plane.issue(org)
    first = come(rig, issued, version, present=False)
    assert first.subscribe("1", "2") == [0, 0]
    gone(rig, org, first)
    again = come(rig, issued, version, present=True)
    over = 0x97 if version == 5 else 0x80
    assert again.subscribe("2", "3", "4") == [0, 0, over]
    again.unsubscribe("1")
    assert again.subscribe("4") == [0]
    gone(rig, org, again, times=2)
    fresh = come(rig, issued, version, present=False, clean=True)
    assert fresh.subscribe("5", "6", "7") == [0, 0, 0]
    # In 3.1.1 this session ends with its connection, and nothing of the earlier one is left then.
    rest = {b"5", b"6", b"7"} if version == 5 else set()
    gone(rig, org, fresh, times=3)
    wait_for(lambda: held(rig, org) == rest, what="nothing of the earlier session")


def test_nothing_is_kept_of_a_session_that_ends_with_its_connection(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    client = rig.client(issued, client_id="stored")
    client.subscribe("a/#")
    gone(rig, org, client)
    kept = come(rig, issued, 5, present=False)
    kept.subscribe("a/#")
    wait_for(lambda: rig.plane.redis.ttl(keys.filters(org, "stored")) > 7_200, what="the set with its expiry")
    kept.send(bytes([Kind.DISCONNECT, 7, 0, 5, 0x11, 0, 0, 0, 0]))  # Session Expiry Interval 0: forget it now
    kept.closed()
    wait_for(lambda: not rig.plane.redis.exists(keys.filters(org, "stored")), what="nothing left")


@BOTH
def test_a_session_is_resumed_on_another_edge_and_after_the_broker_forgot_it(
    make_rig: Callable[..., Rig], version: int
) -> None:
    rig = make_rig()
    org = rig.org()
    reader, sender = rig.plane.issue(org, "reader"), rig.plane.issue(org, "sender")
    first = come(rig, reader, version, present=False)
    assert first.subscribe("a/#", "b/#", qos=1) == [1, 1]
    wait_for(lambda: len(held(rig, org)) == 2, what="both filters")
    rig.edge.stop(kill=True)  # no word of goodbye: the filters are there all the same
    rig.plane.deploy(org, ONLY_B)
    rig.edge.node, rig.edge.env["EDGE_NODE"] = "edge-9", "edge-9"
    rig.edge.start()
    again = come(rig, reader, version, present=True)
    rig.plane.event(org=org, kind="acl_denied", action="subscribe", topic="a/#")
    wait_for(lambda: held(rig, org) == {b"b/#"}, what="one filter left")
    again.close()
    rig.broker.stop(kill=True)
    shutil.rmtree(rig.broker.folder / "db")
    (rig.broker.folder / "db").mkdir()
    rig.broker.start()
    fresh = come(rig, reader, version, present=False)
    wait_for(lambda: not rig.plane.redis.exists(keys.filters(org, "stored")), what="nothing remembered")
    rig.client(sender).publish("b/1", b"no", qos=1)
    fresh.nothing()


def test_a_handshake_of_a_refused_message_is_completed_on_the_next_connection(rig: Rig) -> None:
    """MQTT 3.1.1 s4.4: the client repeats its PUBREL; who refused the message is gone with the old connection."""
    org = rig.org(ONLY_B)
    issued = rig.plane.issue(org, "reader")
    first = come(rig, issued, 4, present=False)
    first.send(first.message("no/1", b"x", 2, packet_id=7))
    assert first.expect(Kind.PUBREC) == b"\0\7"
    first.close()
    wait_for(lambda: rig.plane.events(org=org, kind="disconnect", client_id="stored"), what="the end")
    again = come(rig, issued, 4, present=True)
    again.send(codec.acknowledgement(Kind.PUBREL, 7, 4))
    assert again.expect(Kind.PUBCOMP) == b"\0\7"
    again.ping()


@BOTH
def test_a_delivery_the_edge_refused_is_over_for_the_next_connection(rig: Rig, version: int) -> None:
    """Its identifier may still travel (PUBREL), its topic and payload never; the broker's window is free again."""
    org = rig.org()
    reader, sender = rig.plane.issue(org, "reader"), rig.client(rig.plane.issue(org, "sender"))
    first = come(rig, reader, version, present=False)
    first.subscribe("a/#", "b/#", qos=2)
    hole = "version: '3'\nrules: [{id: h, effect: deny, topic: a/x, action: sub}, {id: all, topic: '#'}]"
    rig.plane.enforced(org, rig.plane.deploy(org, hole))
    for number in range(25):
        sender.publish("a/x", b"no", qos=2, packet_id=number + 1)
    first.close()
    wait_for(lambda: rig.plane.events(org=org, kind="disconnect", client_id="stored"), what="the end")
    again = come(rig, reader, version, present=True)
    for number in range(25):
        sender.publish("b/x", b"%d" % number, qos=2, packet_id=number + 1)
    assert [again.delivery().payload for _ in range(25)] == [b"%d" % number for number in range(25)]
    again.nothing()


SHORT = """
from cloudsignal.edge.signin import renewal, stored_sessions
stored_sessions.LIVE_TTL = renewal.LIVE_TTL = 4
renewal.LOOK_EVERY = 0.5
from cloudsignal.edge.__main__ import main
raise SystemExit(main())
"""
"""An edge whose word on Redis holds for four seconds instead of two hours."""


def test_client_id_and_filters_of_a_long_session_are_kept_and_expire_with_a_silent_edge(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    org = rig.org()
    alice, bob = rig.plane.issue(org, "alice"), rig.plane.issue(org, "bob")
    rig.edge.stop()
    rig.edge.launch([sys.executable, "-c", SHORT], rig.edge.env)
    wait_for(rig.edge.listens, what="the edge")
    wire = rig.dial()
    options = {"client_id": "long", "clean": False, "properties": [(17, 1)]}
    assert wire.connect(version=5, username=alice.username, password=alice.password, **options).code == 0  # type: ignore[arg-type]
    wire.subscribe("a/#")
    names = keys.client(org, "long"), keys.filters(org, "long")
    wait_for(lambda: rig.plane.redis.exists(*names) == 2, what="both keys")
    time.sleep(7)  # longer than either is kept without word
    assert rig.plane.redis.exists(*names) == 2
    rig.edge.stop(kill=True)
    wait_for(lambda: not rig.plane.redis.exists(*names), what="the end of both")
    rig.edge.start()
    rig.client(bob, client_id="long").ping()

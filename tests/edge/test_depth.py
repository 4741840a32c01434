"""The edge's own limit on the levels of a topic: the same on every broker, said to the client, and to the simulator."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acl.policy import Identity, Request, explain, lint, parse
from cloudsignal.config import ConfigError, Environment
from cloudsignal.edge import codec
from cloudsignal.edge.codec import Kind, Properties, Property, Subscribe, Subscription, Unsubscribe, Will
from cloudsignal.edge.session.context import Phase
from tests.support.policy_strategies import NOW
from tests.support.session_bench import ALL, BOTH, Bench

LEVELS = 4
FITS, DEEP = "a/b/c/d", "a/b/c/d/e"
TOO_DEEP = f"the topic has more than {LEVELS} levels"
FILTER_TOO_DEEP = f"the topic filter has more than {LEVELS} levels"


def bench(version: int = 5, **connect: object) -> Bench:
    return Bench(version, connect=connect, levels=LEVELS)


def denials(made: Bench) -> list[tuple[str, str, str]]:
    return [(event.action, event.topic, event.reason) for event in made.sink.events if event.kind == "acl_denied"]


def policy_of(text: str):  # type: ignore[no-untyped-def]
    parsed = parse(text)
    assert parsed.policy is not None
    return parsed.policy


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_is_too_deep_is_refused_by_name_and_one_level_less_passes(qos: int) -> None:
    made = bench()
    down, up = made.publish(FITS, qos=qos, packet_id=1 if qos else 0)
    assert (down, bool(up)) == (b"", True)
    kind = {0: None, 1: Kind.PUBACK, 2: Kind.PUBREC}[qos]
    answer = codec.acknowledgement(kind, 2, 5, 0x90, TOO_DEEP) if kind else b""
    assert made.publish(DEEP, qos=qos, packet_id=2 if qos else 0) == (answer, b"")
    assert denials(made) == [("publish", DEEP, TOO_DEEP)]
    assert made.session.live


def test_in_3_1_1_it_is_acknowledged_and_dropped() -> None:
    made = bench(4)
    assert made.publish(DEEP, qos=1, packet_id=1) == (b"\x40\2\0\1", b"")
    assert denials(made) == [("publish", DEEP, TOO_DEEP)]


def test_a_topic_behind_an_alias_and_a_response_topic_are_measured_too() -> None:
    made = bench()
    alias = Properties([(Property.TOPIC_ALIAS, 1)])
    assert made.publish(DEEP, qos=1, packet_id=1, properties=alias)[1] == b""
    assert made.publish("", qos=1, packet_id=2, properties=alias)[1] == b""
    response = Properties([(Property.RESPONSE_TOPIC, DEEP.encode())])
    assert made.publish("a", qos=1, packet_id=3, properties=response)[1] == b""
    assert made.publish("a", qos=1, packet_id=4, properties=Properties([(Property.RESPONSE_TOPIC, FITS.encode())]))[1]
    assert len(denials(made)) == 2, "the alias and its topic are one event"


@BOTH
def test_filters_are_refused_in_their_place_and_shared_ones_measured_by_their_filter(version: int) -> None:
    made = bench(version)
    asked = ["a/b/c/#", DEEP, "$share/group/a/b/c/d", "$share/group/a/b/c/d/#", "+/+/+/+/+"]
    entries = [Subscription(one.encode(), 0) for one in asked]
    made.session.client_received(codec.encode_subscribe(Subscribe(7, entries), version))
    assert made.broker().count(b"/t/a/b/c") == 2
    made.session.broker_received(codec.suback(7, [0, 0], version))
    refused = 0x8F if version == 5 else 0x80
    assert made.client() == codec.suback(7, [0, refused, 0, refused, refused], version)
    told = [("subscribe", one, FILTER_TOO_DEEP) for one in (asked[1], asked[3], asked[4])]
    assert denials(made) == told


@BOTH
def test_a_will_that_is_too_deep_refuses_the_sign_in_and_says_why(version: int) -> None:
    made = bench(version, will=Will(DEEP.encode(), b"x"))
    assert made.session.phase is Phase.CLOSED
    assert made.sent_upstream == b""
    answer = made.client()
    assert codec.decode_connack(answer[2:], version).code == (0x90 if version == 5 else 5)
    assert (b"the will's topic has more than 4 levels" in answer) is (version == 5)
    assert denials(made) == [("will", DEEP, TOO_DEEP)]
    assert bench(version, will=Will(FITS.encode(), b"x")).session.live


def test_a_filter_of_too_many_levels_cannot_be_given_up_either() -> None:
    made = bench()
    made.session.client_received(codec.encode_unsubscribe(Unsubscribe(1, [DEEP.encode()]), 5))
    assert made.client()[:1] + made.broker() == b"\xe0"


def test_a_delivery_is_not_measured_because_the_broker_has_it_already() -> None:
    made = bench()
    assert made.deliver(f"org_aaaaaaaaaaaa/t/{DEEP}".encode())[0]


@pytest.mark.parametrize(
    ("action", "topic", "reason"),
    [
        ("pub", FITS, None),
        ("pub", DEEP, TOO_DEEP),
        ("sub", "$share/group/a/b/c/#", None),
        ("sub", f"$share/group/{DEEP}", FILTER_TOO_DEEP),
        ("sub", "#", None),
        ("receive", DEEP, None),
    ],
)
def test_the_simulator_says_of_a_topic_what_the_edge_does(action: str, topic: str, reason: str | None) -> None:
    identity = Identity("org_aaaaaaaaaaaa", "dev", "c1", {})
    request = Request(identity, action, topic)  # type: ignore[arg-type]
    found = explain(policy_of(ALL), request, now=datetime.now(UTC), levels=LEVELS)
    assert found.decision.allowed is (reason is None)
    if reason:
        assert found.decision.reason == reason
        assert {part.why for part in found.rules} == {reason}
        authorizer = bench().session.authorizer
        asked = (
            authorizer.publish(topic.encode(), 0, False) if action == "pub" else authorizer.subscribe(topic.encode())
        )
        assert asked == found.decision, "the same decision, field by field"


def test_a_rule_deeper_than_the_edge_takes_is_a_warning() -> None:
    rules = ("{id: one, topic: 'a/b/c/d/#', action: sub}", "{id: two, topic: 'a/{username}/c/d/e', action: pub}")
    text = "version: '3'\nrules:\n" + "".join(f"  - {rule}\n" for rule in rules)
    found = [finding.message for finding in lint(policy_of(text), now=NOW, levels=LEVELS)]
    assert found == ["a/{username}/c/d/e never matches: the edge takes topics of up to 4 levels"]
    assert lint(policy_of(text), now=NOW) == ()


@pytest.mark.parametrize("value", ["0", "129", "many"])
def test_the_limit_is_a_number_of_levels_that_a_policy_can_speak_of(value: str) -> None:
    with pytest.raises(ConfigError, match="EDGE_TOPIC_LEVELS"):
        Environment({"EDGE_TOPIC_LEVELS": value}).number("EDGE_TOPIC_LEVELS", 128, low=1, high=128)

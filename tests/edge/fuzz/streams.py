"""Valid packet streams to damage, and the edge's session machine to feed the damage to, without any I/O."""

from __future__ import annotations

import random
from typing import Any

from acl.policy import compile_policy, parse
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.session.context import Grant, Phase
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import ActivePolicy, Organization
from cloudsignal.wire.bundle import Quotas
from tests.edge.conformance.harness import packets as mqtt
from tests.support.trail import ListSink

ORG = "org_aaaaaaaaaaaa"

_POLICY = parse(
    '{"version": "3", "rules": [{"id": "no", "effect": "deny", "topic": "no/#"}, {"id": "all", "topic": "#"}]}'
)
assert _POLICY.policy is not None
FORCE = ActivePolicy(
    revision=1,
    digest="sha256:" + "0" * 64,
    policy=compile_policy(_POLICY.policy),
    quotas=Quotas(messages_per_minute=0),
    suspended=False,
    issued_at=0.0,
)

TOPICS = ["a", "a/b", "no/x", "$cs/a", "é/\U0001f600", "/", "a" * 300]


def props(rng: random.Random) -> dict[str, Any]:
    """Some properties of a PUBLISH."""
    pool: dict[str, Any] = {
        "payload_format": 1,
        "message_expiry": 100,
        "content_type": "text/plain",
        "response_topic": "back/é",
        "correlation_data": b"\x00\xff",
        "user_property": [("k", "v"), ("", "")],
        "topic_alias": rng.randint(1, 12),
    }
    return {name: pool[name] for name in rng.sample(sorted(pool), rng.randint(0, 4))}


def client_packet(rng: random.Random, version: int) -> bytes:
    """One valid packet of a client."""
    five = version == 5
    topic, mid = rng.choice(TOPICS), rng.randint(1, 65_535)
    kind = rng.randint(0, 8)
    if kind <= 2:
        block = props(rng) if five else None
        payload = rng.randbytes(rng.choice((0, 1, 60, 130, 2_000)))
        return mqtt.publish(
            version, topic, payload, qos=kind, retain=rng.random() < 0.2, dup=kind > 0, mid=mid, props=block
        )
    if kind == 3:
        filters = [(rng.choice(["a/+", "#", "$share/g/a", "no/#", *TOPICS]), rng.randint(0, 2)) for _ in range(3)]
        return mqtt.subscribe(version, mid, filters, {"subscription_id": 5} if five else None)
    if kind == 4:
        return mqtt.unsubscribe(version, mid, [topic, "a/#"], {"user_property": [("k", "v")]} if five else None)
    if kind == 5:
        acks = (mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP)
        return mqtt.ack(rng.choice(acks), mid, 0 if five and rng.random() < 0.3 else None)
    if kind == 6 and rng.random() < 0.1:
        return mqtt.disconnect(version, 4 if five else None, {"reason_string": "bye"} if five else None)
    return mqtt.PING


def connect_packet(rng: random.Random, version: int) -> bytes:
    """A valid CONNECT."""
    will = mqtt.Will("a/will", b"gone", 1, True, props(rng) if version == 5 else {}) if rng.random() < 0.5 else None
    if will is not None:
        will.props.pop("topic_alias", None)
    block = {"session_expiry": 5, "receive_maximum": 10, "user_property": [("a", "b")]} if version == 5 else None
    return mqtt.connect(
        version, "client", username=f"dev@{ORG}", password="secret", clean=rng.random() < 0.5, will=will, props=block
    )


def broker_packet(rng: random.Random, version: int) -> bytes:
    """One packet as a broker behind the mount would send it."""
    five, mid, kind = version == 5, rng.randint(1, 65_535), rng.randint(0, 7)
    if kind <= 2:
        block = {**props(rng), "subscription_id": [5]} if five else None
        if block is not None:
            block.pop("topic_alias", None)
            block = {**block, "response_topic": f"{ORG}/t/back"} if "response_topic" in block else block
        return mqtt.publish(version, f"{ORG}/t/a/b", b"x" * rng.choice((0, 5, 200)), qos=kind, mid=mid, props=block)
    if kind == 3:
        return mqtt.packet(0x90, b"\0\1", b"\0" if five else b"", b"\0")
    if kind == 4:
        return mqtt.packet(0xB0, b"\0\1", b"\0\0" if five else b"")
    return b"\xd0\x00" if kind == 5 else mqtt.ack(rng.choice((mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL)), mid)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes flipped, cut out, doubled, or replaced by numbers that matter."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not made:
            break
        at, pick = rng.randrange(len(made)), rng.random()
        if pick < 0.35:
            made[at] ^= 1 << rng.randrange(8)
        elif pick < 0.6:
            made[at] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, 0xC0, 0xED))
        elif pick < 0.75:
            del made[at : at + rng.randint(1, 6)]
        elif pick < 0.9:
            made[at:at] = made[at : at + rng.randint(1, 8)]
        else:
            made[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(made)


def live_session(version: int, rng: random.Random) -> tuple[Session, ListSink]:
    """A signed-in session that has nothing queued."""
    sink = ListSink()
    session = Session(Origin("127.0.0.1", 1, "mqtts"), sink)
    session.client_received(connect_packet(rng, version))
    assert session.phase is Phase.SIGNING_IN
    welcome(session)
    session.broker_received(b"\x20\x03\x00\x00\x00" if version == 5 else b"\x20\x02\x00\x00")
    assert session.live
    session.to_client.clear()
    session.to_broker.clear()
    return session, sink


def welcome(session: Session) -> None:
    """Sign the session in."""
    organization = Organization(ORG, Mount.of(ORG), FORCE)
    session.welcome(
        Grant(
            org=organization,
            username="dev",
            client_id=session.client_id or "made",
            token_id="tok_1",
            expires_at=0,
            claims={},
        )
    )


def chunks(rng: random.Random, data: bytes) -> list[bytes]:
    """``data`` in random pieces."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 4)))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < stop]


def check_end(session: Session, sink: ListSink, version: int) -> None:
    """An ended session has said why: to the client in MQTT 5, and on the trail."""
    whole = b"".join(session.to_client)
    buffer, last = bytearray(whole), None
    while (found := mqtt.split(buffer)) is not None:
        last = mqtt.decode(*found, version)
    assert not buffer, "half a packet for the client"
    upstream = bytearray(b"".join(session.to_broker))
    while mqtt.split(upstream) is not None:
        pass
    if not session.ended:
        return
    assert session.phase is Phase.CLOSED
    event = sink.events[-1]
    assert event.kind in ("session_closed", "disconnect"), event
    if version == 5 and event.kind == "session_closed":
        assert last is not None
        assert last.kind == mqtt.DISCONNECT
        assert last.reason >= 0x81

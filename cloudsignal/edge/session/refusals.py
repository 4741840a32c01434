"""Refusals of the broker that the policy does not explain, and which packet of the client each was about.

Broker and policy must agree: the edge passes on nothing that the policy denies, and the broker's own lock denies
nothing inside the mountpoint. So a refusal means that the broker is misconfigured, reloads its rules, or is split from
its cluster, and nobody but the edge can say so.
"""

from __future__ import annotations

import time

from audit.kinds import BROKER_REFUSED, LIMIT_REACHED, BrokerReason
from cloudsignal.edge.audit.events import shortened
from cloudsignal.edge.codec import Kind, Reason
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.context import Context

WATCHED = 60.0
"""Seconds after a refusal for which the topics of messages are noted by their packet identifiers."""

BLAMED_WITHIN = 2.0
"""Seconds between a packet and the end of the broker's connection for which the packet may be the cause."""

BROKER_QUOTA = "broker_quota"
"""A limit of the broker's own is reached (0x97): no contradiction, unlike other refusals."""

REASONS = {
    0x80: BrokerReason.UNSPECIFIED,
    0x83: BrokerReason.IMPLEMENTATION,
    0x87: BrokerReason.NOT_AUTHORIZED,
    0x8F: BrokerReason.FILTER_INVALID,
    0x90: BrokerReason.TOPIC_INVALID,
    0x97: BrokerReason.QUOTA,
    0x9E: BrokerReason.SHARED_UNSUPPORTED,
    0xA1: BrokerReason.IDENTIFIERS_UNSUPPORTED,
    0xA2: BrokerReason.WILDCARDS_UNSUPPORTED,
}
"""Reason codes in words (MQTT 5 s2.4); others are unspecified."""

PACKET_ID_IN_USE = 0x91
PAYLOAD_FORMAT_INVALID = 0x99
CLIENTS_OWN = frozenset({PACKET_ID_IN_USE, Reason.PACKET_ID_NOT_FOUND, PAYLOAD_FORMAT_INVALID})
"""Codes that the client has caused: it is told, and nothing is wrong with the broker (MQTT 5 s3.4.2.1)."""

ACTIONS = {
    Kind.PUBACK: "publish",
    Kind.PUBREC: "publish",
    Kind.PUBCOMP: "publish",
    Kind.SUBACK: "subscribe",
    Kind.UNSUBACK: "unsubscribe",
}


def refused_by_broker(session: Context, kind: Kind, code: int, topic: bytes) -> None:
    """Record that the broker refused what the policy allows, by a packet of ``kind`` with the reason ``code``."""
    if code in CLIENTS_OWN:
        return
    quota = code == Reason.QUOTA_EXCEEDED
    session.sent.watch_until = time.time() + WATCHED
    if ACTIONS[kind] == "publish":
        TALLY.refused["in", "refused_by_broker"] += 1
    text, facts = shortened("topic", topic)
    session.repeated(
        (kind, code, facts.get("topic_sha256", topic)),
        LIMIT_REACHED if quota else BROKER_REFUSED,
        reason=BROKER_QUOTA if quota else REASONS.get(code, BrokerReason.UNSPECIFIED).value,
        action=ACTIONS[kind],
        topic=text,
        details={"code": f"0x{code:02x}", "packet": kind.name, **_node(session), **facts},
    )


def circumstances(session: Context) -> tuple[str, dict[str, str]]:
    """Topic and details for the event of a session that its broker has ended: which node, and after which packet.

    A packet is named when it was the only one of the client's last read, and nothing came from the broker in between:
    it may be the cause, and where the broker refuses by closing (VerneMQ, MQTT 3.1.1) it is.
    """
    details = _node(session)
    sent = session.sent
    last = sent.last(session.version) if not sent.answered and time.time() - session.heard_at < BLAMED_WITHIN else None
    if last is None:
        return "", details
    return last[1].decode(errors="replace"), {**details, "after_packet": last[0].name}


def _node(session: Context) -> dict[str, str]:
    return {"broker": session.broker_node} if session.broker_node else {}

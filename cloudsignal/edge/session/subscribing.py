"""SUBSCRIBE and UNSUBSCRIBE of a live session: each filter is checked, mounted, and refused or passed on."""

from __future__ import annotations

from audit.kinds import NO_RULE
from cloudsignal.edge.codec import (
    ProtocolError,
    Reason,
    Subscribe,
    Subscription,
    decode_subscribe,
    decode_unsubscribe,
    encode_subscribe,
    encode_unsubscribe,
    suback,
)
from cloudsignal.edge.session.context import Asked, Context
from cloudsignal.edge.session.frames import ELEMENTS, TOPIC_SHIFT
from cloudsignal.edge.session.mountpoint import MountError
from cloudsignal.edge.session.subscriptions import Subscriptions

UNREAD = Subscription(b"", 0)
"""Stands for a filter beyond the limit, which was not read."""

FILTERS_MIN, FILTERS_MAX = 100, 1_000
"""Filters of one SUBSCRIBE that are looked at: as many as the session may hold, within these bounds."""


def subscribe(session: Context, subscriptions: Subscriptions, first: int, body: bytes) -> int:
    """Check a SUBSCRIBE, and pass on what is granted of it. Returns how many packets it was worth."""
    room = session.org.active.quotas.subscriptions_per_session or 65_535
    look = min(max(room, FILTERS_MIN), FILTERS_MAX)
    message = decode_subscribe(first, body, session.version, look)
    asked = [_judged(session, subscriptions, entry, len(body), room) for entry in message.entries]
    asked += [_too_many(session, UNREAD, "filters_per_packet") for _ in range(message.beyond)]
    weight = len(message.entries) + (message.beyond + len(message.properties)) // ELEMENTS + (len(body) >> TOPIC_SHIFT)
    forwarded = [
        Subscription(session.mount.filter(one.topic_filter), one.options) for one in asked if one.refusal is None
    ]
    if not forwarded:
        codes = [Reason.UNSPECIFIED if one.refusal is None else one.refusal for one in asked]
        session.to_client.append(suback(message.packet_id, codes, session.version))
        return weight
    subscriptions.ask(message.packet_id, asked, message.properties)
    upstream = Subscribe(message.packet_id, forwarded, message.properties)
    session.to_broker.append(encode_subscribe(upstream, session.version))
    return weight


def unsubscribe(session: Context, subscriptions: Subscriptions, first: int, body: bytes) -> int:
    """Pass an UNSUBSCRIBE on. Returns how many packets it was worth."""
    message = decode_unsubscribe(first, body, session.version)
    if any(session.authorizer.too_deep("sub", topic_filter) for topic_filter in message.filters):
        raise ProtocolError(Reason.FILTER_INVALID, f"a topic filter has more than {session.mount.levels} levels")
    subscriptions.leave(message.packet_id, list(message.filters))
    try:
        message.filters = [session.mount.filter(topic_filter) for topic_filter in message.filters]
    except MountError as error:
        raise ProtocolError(Reason.FILTER_INVALID, str(error)) from None
    session.to_broker.append(encode_unsubscribe(message, session.version))
    return (len(message.filters) + len(message.properties)) // ELEMENTS + (len(body) >> TOPIC_SHIFT)


def _judged(session: Context, subscriptions: Subscriptions, entry: Subscription, size: int, room: int) -> Asked:
    """Check one filter; the QoS asked for is lowered to what the policy grants."""
    if not session.org.ask(session.heard_at):
        return _too_many(session, entry, "filters_per_minute")
    five = session.version == 5
    one = Asked(entry.topic_filter, entry.options, wanted=entry.options)
    try:
        session.mount.filter(entry.topic_filter)
    except MountError:
        one.refusal = Reason.FILTER_INVALID if five else Reason.UNSPECIFIED
        return one
    decision = session.authorizer.subscribe(entry.topic_filter)
    if not decision.allowed:
        session.denied("subscribe", entry.topic_filter, decision, qos=entry.qos, size=size)
        subscriptions.refused(entry.topic_filter)
        deep = session.authorizer.too_deep("sub", entry.topic_filter) is not None
        denied = Reason.FILTER_INVALID if deep else Reason.NOT_AUTHORIZED
        one.refusal = denied if five else Reason.UNSPECIFIED
        return one
    if not subscriptions.reserve(entry.topic_filter, room):
        return _too_many(session, entry, "subscriptions_per_session")  # in number, or too long together
    one.options = entry.options & ~3 | min(entry.qos, decision.qos)
    one.rule = decision.rule or NO_RULE
    return one


def _too_many(session: Context, entry: Subscription, limit: str) -> Asked:
    session.limit_reached(limit)
    refusal = Reason.QUOTA_EXCEEDED if session.version == 5 else Reason.UNSPECIFIED
    return Asked(entry.topic_filter, entry.options, refusal=refusal)

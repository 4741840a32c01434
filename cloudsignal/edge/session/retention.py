"""Quota of the retained messages of one session, its retained will included."""

from __future__ import annotations

import time

from cloudsignal.edge.codec import Properties, Property, Publish
from cloudsignal.edge.session.context import Context
from cloudsignal.edge.session.retained import Refusal
from cloudsignal.wire.retained import RetainedEntry

WILL_TIMES = (Property.MESSAGE_EXPIRY, Property.WILL_DELAY)
"""Of a will's properties they are kept: they say when the broker drops it."""

WILL_BYTES = 4_096
"""Largest will, payload and properties, that is kept in memory as long as its session."""


def retain(session: Context, message: Publish, size: int, now: float) -> Refusal | None:
    """Count a retained message that goes upstream; returns the limit when it does not fit."""
    retained = session.org.retained
    if not message.payload:
        retained.note(message.topic, None)  # MQTT 5 s3.3.1.3: it takes the one on this topic away
        return None
    full = retained.refuses(message.topic, size, session.org.active.quotas)
    if full is None:
        expiry = message.properties.number(Property.MESSAGE_EXPIRY, 0)
        retained.note(
            message.topic, RetainedEntry(size, int(now), int(now) + expiry if expiry else 0, session.username)
        )
    return full


def reserve_will(session: Context) -> Refusal | None:
    """Reserve quota for a retained will until :func:`settle_will`; returns the limit when it does not fit."""
    will = session.connect.will
    if will is None or not (will.retain and will.payload):
        return None
    size = len(will.topic) + len(will.payload)
    full = session.org.retained.refuses(will.topic, size, session.org.active.quotas)
    if full is None:
        session.will_bytes = size
        session.org.retained.reserved += size
    return full


def forget_will(session: Context) -> None:
    """Keep a small will, for the case that its node is lost (:mod:`cloudsignal.edge.broker.wills`).

    Of a larger one only topic, QoS and times stay, which later checks need: the broker has it.
    """
    will = session.connect.will
    if will is None:
        return
    session.will_kept = len(will.payload) + len(will.properties.encode()) <= WILL_BYTES
    if not session.will_kept:
        will.payload = b""
        will.properties = Properties((name, value) for name, value in will.properties if name in WILL_TIMES)


def settle_will(session: Context) -> None:
    """Give back the quota reserved for a retained will, and count the will when the broker publishes it."""
    size, session.will_bytes = session.will_bytes, 0
    will = session.connect.will
    if not size or will is None:
        return
    session.org.retained.reserved -= size
    if session.will_sent:
        now, expiry = int(time.time()), will.properties.number(Property.MESSAGE_EXPIRY, 0)
        ends = now + will.properties.number(Property.WILL_DELAY, 0) + expiry if expiry else 0
        session.org.retained.note(will.topic, RetainedEntry(size, now, ends, session.username))

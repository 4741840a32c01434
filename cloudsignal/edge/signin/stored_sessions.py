"""Stored sessions: how long the broker keeps one, and its subscriptions, stored beside its client ID on Redis.

The broker does not say what a resumed session is subscribed to, and the edge that resumes it may be another than the
one that saw it subscribe. The filters on Redis carry no seal, because nothing is granted on their account: each is
checked by the active policy, one that is not granted is ended and withheld, one that was withheld and is granted is
asked for again. Without them deliveries are checked all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudsignal.edge.redis import Store
from cloudsignal.edge.session.context import Asked, Context
from cloudsignal.wire import keys

LIVE_TTL = 7_200
"""Seconds for which a client ID stays held when the session's edge stops renewing it."""

STORED_MAX = 30 * 86_400
"""Seconds for which the broker keeps a session without an expiry of its own (``persistent_client_expiration``)."""

HELD_MAX = LIVE_TTL + STORED_MAX + 3_600
"""Longest time for which a session counts as stored, in seconds; clocks of edges may differ by an hour."""

FILTERS_MAX = 1_000
"""Filters stored of one session, at most."""

FILTER_BYTES = 1_024
"""Longest filter that is stored, in bytes, so that a client cannot fill Redis."""


NO_LOCAL = 4
"""The No Local option: a protocol error with a shared subscription (MQTT 5 s3.8.3.1)."""

IDENTIFIER_MAX = 268_435_455
"""Largest Subscription Identifier (MQTT 5 s3.8.2.1.2)."""

WITHHELD = 0x80
"""Flag in the options byte, whose highest bits are reserved (MQTT 5 s3.8.3.1): a withheld subscription."""


class Stored:
    """Stores the subscriptions of sessions that outlive their connection."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def added(self, session: Context, one: Asked, *, withheld: bool, held: int) -> None:
        """Store a subscription, one of ``held``, that the broker holds or that is withheld."""
        if held > FILTERS_MAX or len(one.topic_filter) > FILTER_BYTES:
            return
        key = keys.filters(session.org.id, session.client_id)
        note = bytes([one.wanted | (WITHHELD if withheld else 0)]) + one.identifier.to_bytes(4, "big")
        self._store.send(("HSET", key, one.topic_filter, note), ("EXPIRE", key, held_seconds(session)))

    def removed(self, session: Context, filters: Iterable[bytes]) -> None:
        """Delete filters that the broker no longer holds."""
        self._store.send(("HDEL", keys.filters(session.org.id, session.client_id), *filters))

    def emptied(self, session: Context) -> None:
        """Delete every filter: the broker has begun a new session."""
        self._store.send(("DEL", keys.filters(session.org.id, session.client_id)))


def resumed(reply: Any) -> tuple[tuple[Asked, bool], ...]:
    """Parse the subscriptions in Redis's answer, each with whether it was withheld.

    As many as were ever written, and only what a client may ask for: whoever can write to Redis may have put in more.
    """
    found: list[tuple[Asked, bool]] = []
    for topic_filter, note in zip(reply[::2], reply[1::2], strict=False):
        if not isinstance(topic_filter, bytes) or not isinstance(note, bytes) or len(topic_filter) > FILTER_BYTES:
            continue
        options, identifier = note[0] & 0x3F if note else 0, int.from_bytes(note[1:5], "big")
        if options & 3 == 3 or options >> 4 == 3 or identifier > IDENTIFIER_MAX:
            continue
        if options & NO_LOCAL and topic_filter.startswith(b"$share/"):
            continue
        one = Asked(topic_filter, options, wanted=options, identifier=identifier)
        found.append((one, bool(note and note[0] & WITHHELD)))
    return tuple(found[:FILTERS_MAX])


def session_lifetime(session: Context) -> int:
    """Seconds for which the broker keeps the session after its connection; 0 when both end together."""
    return min(session.session_expiry, STORED_MAX)


def held_seconds(session: Context) -> int:
    """Seconds until the hold of a live session on its client ID expires, unless it is renewed."""
    return LIVE_TTL + session_lifetime(session)

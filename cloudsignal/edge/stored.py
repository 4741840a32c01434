"""Stored sessions: how long the broker keeps one, and what it is subscribed to, kept beside its client id on Redis.

The broker does not say what a resumed session is subscribed to, and the edge that resumes it may be another than the
one that saw it subscribe. The filters on Redis carry no seal, because nothing is granted on their account: each is
judged by the policy in force, and one that is not granted is ended. Without them deliveries are judged all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudsignal.edge.store import Store
from cloudsignal.wire import keys

if TYPE_CHECKING:
    from cloudsignal.edge.session import Session

LIVE_TTL = 7_200
"""Seconds a client id stays with its username without word from the edge that holds the session."""

STORED_MAX = 30 * 86_400
"""Seconds a session without an end of its own is kept by the broker (``persistent_client_expiration``)."""

FILTERS_MAX = 1_000
"""Filters remembered of one session."""

FILTER_BYTES = 1_024
"""Longest filter that is remembered: Redis must not hold what a client makes arbitrarily large."""


class Stored:
    """Writes what sessions that outlive their connection are subscribed to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def added(self, session: Session, topic_filter: bytes) -> None:
        """The broker holds this subscription."""
        if len(session.subscriptions.live) >= FILTERS_MAX or len(topic_filter) > FILTER_BYTES:
            return
        key = keys.filters(session.org.id, session.client_id)
        self._store.send(("SADD", key, topic_filter), ("EXPIRE", key, held_seconds(session)))

    def removed(self, session: Session, filters: Iterable[bytes]) -> None:
        """The broker holds these no longer."""
        self._store.send(("SREM", keys.filters(session.org.id, session.client_id), *filters))

    def emptied(self, session: Session) -> None:
        """The broker has begun a new session."""
        self._store.send(("DEL", keys.filters(session.org.id, session.client_id)))


def resumed(reply: Any) -> tuple[bytes, ...]:
    """The filters in Redis's answer, as many as were ever written; whoever can write to it may have put in more."""
    found = [entry for entry in reply if isinstance(entry, bytes) and len(entry) <= FILTER_BYTES]
    return tuple(found[:FILTERS_MAX])


def session_lifetime(session: Session) -> int:
    """Seconds the broker keeps the session after the connection; 0 when it ends with it."""
    return min(session.session_expiry, STORED_MAX)


def held_seconds(session: Session) -> int:
    """Seconds until what is said of a live session on Redis expires, should its edge fall silent."""
    return LIVE_TTL + session_lifetime(session)

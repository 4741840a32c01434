"""Client IDs that an edge may give out while Redis is unavailable.

Redis says who holds a client ID, over all edges. Without it a second username could get the ID on another edge, and
with it the stored session and the messages of the first. So an edge that cannot ask gives a client ID out only when it
is certain: the edge made it up itself, or the same username has it here, by a session that is live or ended less than
:data:`RETURN_WITHIN` seconds ago, and Redis, when it was last heard, gave it to that username for longer than this.

That is certain also when only this edge is cut off, because other edges do not give away an ID it may still count on:

- While the hold stands on Redis no other username gets the client ID. It stands because giving it back was not sent.
- Whoever takes it over on another edge is the same username, and leaves it there :data:`RETURN_WITHIN` seconds longer.
- The broker ends a live session here when its client ID signs in elsewhere: this edge then counts on it no longer. An
  edge whose session the broker ends leaves the hold alone, for whoever took the place may have no Redis to say so.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from cloudsignal.edge.signin.stored_sessions import held_seconds
from cloudsignal.wire import keys

if TYPE_CHECKING:
    from cloudsignal.edge.session.machine import Session

RETURN_WITHIN = 300
"""Seconds within which a client may come back to the edge it left though Redis is unavailable."""

LEFT_MAX = 100_000
"""Client IDs remembered of sessions that ended while Redis was unavailable; beyond it the oldest are forgotten."""


class _Left(NamedTuple):
    username: str
    held_until: float
    return_by: float


class Holds:
    """Holds on client IDs that one edge knows to stand on Redis."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, _Left] = OrderedDict()

    def left(self, session: Session) -> None:
        """Note a session that ended while Redis was unavailable: its client ID is still held there."""
        if session.ousted or not session.held_until:
            return
        key = keys.client(session.org.id, session.client_id)
        self._left[key] = _Left(session.username, session.held_until, time.monotonic() + RETURN_WITHIN)
        self._left.move_to_end(key)
        while len(self._left) > LEFT_MAX or self._oldest().return_by < time.monotonic():
            self._left.popitem(last=False)

    def forget(self, org: str, client_id: str) -> None:
        """Forget a client ID, because a session has begun with it or Redis was asked."""
        if self._left:
            self._left.pop(keys.client(org, client_id), None)

    def until(self, session: Session) -> float:
        """When the hold of this username on the client ID ends, in seconds since the epoch; 0: it is not certain."""
        if not session.connect.client_id:
            return time.time() + held_seconds(session)
        key = keys.client(session.org.id, session.client_id)
        before, left, until = session.before, self._left.get(key), 0.0
        if before is not None and before.live and before.username == session.username:
            until = before.held_until
        elif left is not None and left.username == session.username and left.return_by > time.monotonic():
            until = left.held_until
        return until if until > time.time() else 0.0

    def _oldest(self) -> _Left:
        return next(iter(self._left.values()))

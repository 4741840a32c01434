"""End the sessions of nodes that never came back, so that each ``connect`` event has one matching end.

A process that was killed and comes back ends what its predecessor held, from its own disk. When none does for
:data:`AFTER`, ingest does, from the sessions it knows to be open. Whatever arrives later of such a session is no second
end: the row stays, marked, for as long as an event may come late.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from django.db import connection
from django.utils import timezone

from audit.ingest.insert import Cursor, insert
from audit.ingest.rows import ID, INCARNATION, KIND, NODE, ORG, SESSION, TS, Row
from audit.kinds import CONNECT, DISCONNECT, SESSION_CLOSED, CloseCause
from audit.models import OpenSession
from cloudsignal.tenancy.scopes import platform_scope

logger = logging.getLogger(__name__)

AFTER = 900.0
"""Seconds without a sign of life after which a node is taken not to come back."""

LOOK_SECONDS = 60.0

TOGETHER = 1_000
"""Sessions ended in one transaction."""

KEPT = timedelta(days=31)
"""How long what has ended is remembered: a node that comes back later than that has no partition for its events."""

_ENDS = frozenset({DISCONNECT, SESSION_CLOSED})
BOUNDARIES = _ENDS | {CONNECT}
"""Kinds of events that begin or end a session."""

_OPEN = """
INSERT INTO audit_opensession (session, node, incarnation, org, ts, event, ended, lost)
SELECT *, false, false
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::uuid[]) ON CONFLICT DO NOTHING
"""
_OPENED_LATE = "DELETE FROM audit_opensession WHERE session = ANY(%s) AND ended AND NOT lost"
_CLOSE = "DELETE FROM audit_opensession WHERE session = ANY(%s) AND NOT ended RETURNING session"
_CLOSED_EARLY = """
INSERT INTO audit_opensession (session, node, incarnation, org, ts, event, ended, lost)
SELECT session, '', '', '', now(), NULL, true, false FROM unnest(%s::text[]) AS session ON CONFLICT DO NOTHING
"""
_LOCK = "SELECT session, lost FROM audit_opensession WHERE session = ANY(%s) ORDER BY session FOR UPDATE"
_LEFT = """
SELECT node, incarnation, last_at FROM audit_journal AS journal
WHERE last_at < %s AND EXISTS (
    SELECT 1 FROM audit_opensession AS o
    WHERE o.node = journal.node AND o.incarnation = journal.incarnation AND NOT o.ended)
"""
_END = f"""
WITH held AS (
    SELECT session, org, ts, event FROM audit_opensession
    WHERE node = %(node)s AND incarnation = %(incarnation)s AND NOT ended
    ORDER BY session LIMIT {TOGETHER} FOR UPDATE
), gone AS (
    UPDATE audit_opensession AS o SET ended = true, lost = true, ts = now() FROM held WHERE o.session = held.session
    RETURNING o.session, held.org, held.ts, held.event
)
SELECT greatest(c.ts, %(at)s), gen_random_uuid(), c.org_id, '{SESSION_CLOSED}', c.node, c.session, c.username,
    c.client_id, host(c.ip), c.port, c.transport, c.mqtt_version, c.tls_version, c.tls_cipher,
    '{CloseCause.NODE_LOST.value}', '', '', -1::int2, false, 0, '', '', 1,
    json_build_object('seconds', round(extract(epoch FROM greatest(c.ts, %(at)s) - c.ts)::numeric, 3))::text, NULL, ''
FROM gone LEFT JOIN audit_event AS c ON c.org_id = gone.org AND c.ts = gone.ts AND c.id = gone.event
"""  # noqa: S608 - SQL of constants
"""Selects the ``session_closed`` rows of lost sessions, in the order of :data:`audit.ingest.rows.COLUMNS`."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The latest known process of a node, with its last heartbeat."""

    incarnation: str
    seen: datetime
    started: datetime


class Ask(Protocol):
    """Callback that returns the last heartbeat of each node."""

    def __call__(self, *, steady: float) -> Mapping[str, Heard] | None:
        """None unless heartbeats were readable for the last ``steady`` seconds."""


class LostNodes:
    """Ends sessions of lost nodes, once a minute. Safe in several ingest processes: a session is locked first."""

    def __init__(self, *, after: float = AFTER, clock: Callable[[], float] = time.monotonic) -> None:
        self._after = after
        self._clock = clock
        self._looked_at = clock()

    def check(self, ask: Ask, *, drained: Callable[[], bool]) -> int:
        """End the open sessions of lost nodes; returns how many. ``drained`` as for ``Gaps``."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return 0
        self._looked_at = now
        heard = ask(steady=self._after)
        if heard is None or not drained():
            return 0
        limit = timezone.now() - timedelta(seconds=self._after)
        with platform_scope(), connection.cursor() as cursor:
            cursor.execute(_LEFT, [limit])
            left: list[tuple[str, str, datetime]] = cursor.fetchall()
            OpenSession.objects.filter(ended=True, ts__lt=timezone.now() - KEPT).delete()
        return sum(self._end(node, incarnation, last, heard.get(node), limit) for node, incarnation, last in left)

    def _end(self, node: str, incarnation: str, last: datetime, heard: Heard | None, limit: datetime) -> int:
        """End the sessions of one process, unless it lives or its successor may still do so."""
        at = last
        if heard is not None and heard.incarnation == incarnation:
            at = heard.seen
        if heard is not None and heard.seen >= limit and (heard.incarnation == incarnation or heard.started >= limit):
            return 0
        ended = 0
        while count := _end_some(node, incarnation, at):
            ended += count
        if ended:
            logger.warning("ingest: %s did not come back: %d sessions it held have ended", node, ended)
        return ended


def without_second_ends(cursor: Cursor, rows: Sequence[Row]) -> tuple[Sequence[Row], Counter[tuple[str, str]]]:
    """Drop ends of sessions already ended as lost; also returns how many, by node and incarnation.

    Locks the sessions that end, so that nobody ends them as lost meanwhile.
    """
    ending = sorted({row[SESSION] for row in rows if row[KIND] in _ENDS and row[SESSION]})
    if not ending:
        return rows, Counter()
    cursor.execute(_LOCK, [ending])
    lost = {session for session, is_lost in cursor.fetchall() if is_lost}
    kept = [row for row in rows if row[KIND] not in _ENDS or row[SESSION] not in lost]
    late = (row for row in rows if row[KIND] in _ENDS and row[SESSION] in lost)
    return kept, Counter((row[NODE], row[INCARNATION]) for row in late)


def note(cursor: Cursor, stored: Iterable[Row]) -> None:
    """Update the open sessions from rows that were just stored. An end may arrive before its beginning."""
    rows = [row for row in stored if row[KIND] in BOUNDARIES and row[SESSION]]
    ended = {row[SESSION] for row in rows if row[KIND] in _ENDS}
    begun: dict[str, Row] = {}
    for row in sorted((row for row in rows if row[KIND] == CONNECT), key=lambda row: (row[SESSION], row[TS])):
        begun.setdefault(row[SESSION], row)
    if opened := [row for session, row in begun.items() if session not in ended]:
        names = [row[SESSION] for row in opened]
        columns = [[row[place] for row in opened] for place in (NODE, INCARNATION, ORG, TS, ID)]
        cursor.execute(_OPEN, [names, *columns])
        cursor.execute(_OPENED_LATE, [names])
    if closed := sorted(ended - begun.keys()):
        cursor.execute(_CLOSE, [closed])
        there = {session for (session,) in cursor.fetchall()}
        if early := [session for session in closed if session not in there]:
            cursor.execute(_CLOSED_EARLY, [early])


def _end_some(node: str, incarnation: str, at: datetime) -> int:
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(_END, {"node": node, "incarnation": incarnation, "at": at})
        gone = cursor.fetchall()
        insert(cursor, [row for row in gone if row[ORG] is not None])
        return len(gone)

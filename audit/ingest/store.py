"""Store rows in PostgreSQL, count them in their journals, and look at those whose keys were there already."""

# ruff: noqa: S608 - SQL of constants

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from django.db import connection
from django.db.backends.utils import CursorWrapper

from audit.ingest import lost
from audit.ingest.insert import insert, stage
from audit.ingest.rows import (
    COLUMNS,
    COUNT,
    ID,
    INCARNATION,
    KIND,
    NODE,
    ORG,
    SESSION,
    TS,
    Row,
    clash_row,
    further_row,
    key_of,
    merged,
    without_org,
)
from audit.kinds import CONNECT, DISCONNECT, SESSION_CLOSED
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.tenancy.scopes import platform_scope

logger = logging.getLogger(__name__)

_ENDS = {DISCONNECT, SESSION_CLOSED}

STATEMENT_SECONDS = 20
"""No statement of ingest takes longer; when one does (somebody holds a lock), the batch is tried again."""


def _staged(name: str) -> str:
    return f"s.{name}::jsonb" if name == "details" else f"s.{name}"


_COMPARED = [name for name, _ in COLUMNS if name not in {"org_id", "ts", "id", "count", "incarnation"}]
# What was there already and says something else. Notes of ingest itself may word an error as another version would not.
_OTHER = (
    "SELECT s.org_id, s.ts, s.id, s.count > e.count, array_remove(ARRAY["
    + ", ".join(f"CASE WHEN {_staged(name)} IS DISTINCT FROM e.{name} THEN '{name}' END" for name in _COMPARED)
    + "], NULL) FROM audit_incoming s JOIN audit_event e USING (org_id, ts, id) "
    "WHERE e.ts BETWEEN %s AND %s AND s.node <> 'ingest' AND (s.count > e.count OR "
    f"({', '.join(map(_staged, _COMPARED))}) IS DISTINCT FROM ({', '.join(f'e.{name}' for name in _COMPARED)}))"
)
_STORED_OF = "SELECT sum(count) FROM audit_event WHERE org_id = %s AND (ts = %s AND id = %s OR repeats = %s)"
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
# Locked as a foreign key would: an organization cannot be deleted between this look and the commit.
_THERE = "SELECT id FROM orgs_organization WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE"
_COUNT = (
    "INSERT INTO audit_journal (node, incarnation, stored, lost, first_at, last_at) "
    "VALUES (%s, %s, %s, 0, now(), now()) "
    "ON CONFLICT (node, incarnation) DO UPDATE SET stored = audit_journal.stored + excluded.stored, last_at = now()"
)


def store(rows: Sequence[Row]) -> int:
    """Store ``rows`` in one transaction and commit; returns how many were new.

    Rows of an organization that does not exist become the platform's own. What is stored never changes: a row that has
    the key of another and says something else is not stored, and a critical event says so. Raises ``django.db.Error``
    untouched; nothing is stored then.
    """
    rows, clashes = merged(rows)
    if not rows:
        return 0
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
        rows, late = lost.without_second_ends(cursor, _own(cursor, rows))
        new = insert(cursor, rows)
        fresh = Counter((row[NODE], row[INCARNATION]) for row in new)
        begun = {row[SESSION] for row in new if row[KIND] == CONNECT}
        lost.note(cursor, begun=begun, ended={row[SESSION] for row in new if row[KIND] in _ENDS})
        for journal, count in sorted((fresh + late).items()):
            if journal[1]:
                cursor.execute(_COUNT, [*journal, count])
        further = [clash_row(row, columns) for row, columns in clashes]
        if len(new) < len(rows):
            further += _further(cursor, rows)
        insert(cursor, further)
    return len(new)


def _further(cursor: CursorWrapper, rows: Sequence[Row]) -> list[Row]:
    """The rows to be stored on account of staged ones whose keys were there already."""
    stage(cursor, rows)
    cursor.execute(_OTHER, [min(row[TS] for row in rows), max(row[TS] for row in rows)])
    by_key = {key_of(row): row for row in rows}
    further: list[Row] = []
    for *key, more, columns in sorted(cursor.fetchall()):
        row = by_key[key[0], key[1], key[2]]
        if columns:
            logger.error("ingest: event %s came a second time and differs in %s", row[ID], ", ".join(columns))
            further.append(clash_row(row, columns))
        elif more:
            cursor.execute(_ALONE, [str(row[ID])])  # two consumers must not add the same difference twice
            cursor.execute(_STORED_OF, [*key, row[ID]])
            stored = int(cursor.fetchone()[0])
            if row[COUNT] > stored:
                further.append(further_row(row, row[COUNT] - stored))
    return further


def _own(cursor: CursorWrapper, rows: Sequence[Row]) -> Sequence[Row]:
    named = {row[ORG] for row in rows} - {PLATFORM_ORG}
    if not named:
        return rows
    cursor.execute(_THERE, [list(named)])
    there = {PLATFORM_ORG, *(name for (name,) in cursor.fetchall())}
    return [row if row[ORG] in there else without_org(row) for row in rows]

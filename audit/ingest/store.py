"""Store rows in PostgreSQL, count them in their journals, and look at those whose keys were there already."""

# ruff: noqa: S608 - SQL of constants

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from django.db import connection

from audit.ingest import lost
from audit.ingest.insert import Cursor, insert, stage
from audit.ingest.packed import copy_data
from audit.ingest.rows import (
    COLUMNS,
    COUNT,
    ID,
    INCARNATION,
    NODE,
    ORG,
    TS,
    Row,
    clash_row,
    further_row,
    key_of,
    merged,
    without_org,
)
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.tenancy.scopes import platform_scope

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 20
"""No statement of ingest takes longer; when one does (somebody holds a lock), the batch is tried again."""

PATIENCE = f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"
_COMPARED = [name for name, _ in COLUMNS[:-1] if name not in {"org_id", "ts", "id", "count"}]
_STAGED, _STORED = (", ".join(f"{table}.{name}" for name in _COMPARED) for table in "se")
_DIFFERS = f"({_STAGED}) IS DISTINCT FROM ({_STORED})"
# Row by row through the key, whatever the planner knows of the temporary table; each looks into one partition.
_THERE = (
    "FROM audit_incoming s CROSS JOIN LATERAL (SELECT * FROM audit_event AS stored WHERE stored.org_id = s.org_id "
    "AND stored.ts = s.ts AND stored.id = s.id AND stored.ts BETWEEN %s AND %s LIMIT 1) AS e WHERE true"
)
# What was there and says something else. Notes of ingest itself may word an error as another version would not.
_OTHER = (
    "SELECT s.org_id, s.ts, s.id, s.count > e.count, array_remove(ARRAY["
    + ", ".join(f"CASE WHEN s.{name} IS DISTINCT FROM e.{name} THEN '{name}' END" for name in _COMPARED)
    + f"], NULL) {_THERE} AND s.node <> 'ingest' AND (s.count > e.count OR {_DIFFERS})"
)
SAME = f"SELECT count(*) {_THERE} AND s.count <= e.count AND NOT {_DIFFERS}"
"""Counts the staged rows that are stored already, word for word."""
_STORED_OF = "SELECT sum(count) FROM audit_event WHERE org_id = %s AND (ts = %s AND id = %s OR repeats = %s)"
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
# Locked as a foreign key would: an organization cannot be deleted between this look and the commit.
_ORGANIZATIONS = "SELECT audit_organizations(%s)"
_COUNT = (
    "INSERT INTO audit_journal (node, incarnation, stored, lost, first_at, last_at) "
    "VALUES (%s, %s, %s, 0, now(), now()) "
    "ON CONFLICT (node, incarnation) DO UPDATE SET stored = audit_journal.stored + excluded.stored, last_at = now()"
)


def store(rows: Sequence[Row]) -> int:
    """Store ``rows`` in one transaction as the application's role and commit; returns how many were new.

    Raises ``django.db.Error`` untouched; nothing is stored then.
    """
    if not rows:
        return 0
    with platform_scope(), connection.cursor() as cursor:
        return store_within(cursor, rows)


def store_within(cursor: Cursor, rows: Sequence[Row]) -> int:
    """Store ``rows`` in the transaction of ``cursor``; returns how many were new.

    Rows of an organization that does not exist become the platform's own. What is stored never changes: a row that has
    the key of another and says something else is not stored, and a critical event says so.
    """
    cursor.execute(PATIENCE)
    rows, clashes = merged(_own(cursor, rows))  # only now: rows of two organizations that are gone may share a key
    rows, late = lost.without_second_ends(cursor, rows)
    fresh = insert(cursor, rows)
    lost.note(cursor, fresh)
    count(cursor, Counter((row[NODE], row[INCARNATION]) for row in fresh) + late)
    further = [clash_row(row, columns) for row, columns in clashes]
    if len(fresh) < len(rows):
        further += _further(cursor, rows)
    insert(cursor, further)
    return len(fresh)


def count(cursor: Cursor, stored: Counter[tuple[str, str]]) -> None:
    """Count stored events to the journals, by node and incarnation, that they come from."""
    for journal, number in sorted(stored.items()):
        if journal[1]:
            cursor.execute(_COUNT, [*journal, number])


def existing(cursor: Cursor, named: Iterable[str]) -> set[str]:
    """The organizations that exist, the platform included; they cannot be deleted before the commit."""
    asked = sorted(set(named) - {PLATFORM_ORG})
    if not asked:
        return {PLATFORM_ORG}
    cursor.execute(_ORGANIZATIONS, [asked])
    return {PLATFORM_ORG, *(name for (name,) in cursor.fetchall())}


def _own(cursor: Cursor, rows: Sequence[Row]) -> Sequence[Row]:
    there = existing(cursor, (row[ORG] for row in rows))
    return [row if row[ORG] in there else without_org(row) for row in rows]


def _further(cursor: Cursor, rows: Sequence[Row]) -> list[Row]:
    """The rows to be stored on account of those whose keys were there already."""
    by_key = {key_of(row): row for row in rows}
    stage(cursor, copy_data(rows))
    times = [row[TS] for row in rows]
    cursor.execute(_OTHER, [min(times), max(times)])
    further: list[Row] = []
    for *key, more, columns in sorted(cursor.fetchall()):
        row = by_key[tuple(key)]
        if columns:
            logger.error("ingest: event %s came a second time and differs in %s", row[ID], ", ".join(columns))
            further.append(clash_row(row, columns))
        elif more:
            cursor.execute(_ALONE, [str(row[ID])])  # two consumers must not add the same difference twice
            cursor.execute(_STORED_OF, [*key, row[ID]])
            [(stored,)] = cursor.fetchall()
            if row[COUNT] > stored:
                further.append(further_row(row, row[COUNT] - int(stored)))
    return further

"""Insert rows with their leaves in the transparency log: binary COPY into a temporary table, then one insert.

It works on any connection, also as the application's role, into whose tables PostgreSQL lets nobody COPY who is bound
by row-level security. The faster way is :mod:`audit.ingest.append`, which comes here with what it cannot do. The
temporary table lives as long as the connection, so that a batch does not write to the system catalog.
"""

# ruff: noqa: S608 - SQL of constants

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from django.db import OperationalError, connection
from django.db.backends.utils import CursorWrapper

from audit.ingest.packed import COPIED, copy_data, values_of
from audit.ingest.rows import COLUMNS, ID, ORG, TS, Row, key_of
from audit.services.commitments import commit_rows

Cursor = CursorWrapper | psycopg.Cursor[Any]
"""A cursor of Django's connection, or of the one of ``DATABASE_INGEST_URL``."""

_NAMES = ", ".join(COPIED)
_COPY = f"COPY audit_incoming ({_NAMES}) FROM STDIN (FORMAT BINARY)"
_TEMPORARY = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS audit_incoming ("
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS[:-1])
    + ", actor text, target text, log_leaf int8, salt bytea) ON COMMIT DELETE ROWS"
)
_INSERT = (
    f"INSERT INTO audit_event ({_NAMES}) SELECT {_NAMES} FROM audit_incoming ORDER BY org_id, ts, id "
    "ON CONFLICT (org_id, ts, id) DO NOTHING"
)
_THERE = (
    "SELECT org_id, ts, id FROM unnest(%s::text[], %s::timestamptz[], %s::uuid[]) AS asked (org_id, ts, id) "
    "JOIN audit_event AS e USING (org_id, ts, id) WHERE e.ts BETWEEN %s AND %s"
)


def insert(cursor: Cursor, rows: Sequence[Row]) -> Sequence[Row]:
    """Insert those of ``rows`` whose keys are not there yet, each with its leaf, and return them.

    Of rows of one key the first counts. All are taken to be new at first. When one was not, nothing of the attempt
    stays, so that no leaf is without a row.

    Raises ``django.db.OperationalError`` when a row is refused though none has its key: somebody deleted that one
    meanwhile, and the batch is to be tried again in another transaction.
    """
    rows = list({key_of(row): row for row in reversed(rows)}.values())[::-1]
    while rows and not _inserted(cursor, rows):
        there = _there(cursor, rows)
        fresh = [row for row in rows if key_of(row) not in there]
        if len(fresh) == len(rows):
            raise OperationalError(f"{len(rows)} audit rows could not be inserted: the row of one's key is gone again")
        rows = fresh
    return rows


def stage(cursor: Cursor, data: Iterable[bytes]) -> None:
    """Put the rows of a binary COPY into the temporary table ``audit_incoming``, in place of what it holds."""
    cursor.execute(_TEMPORARY)
    cursor.execute("DELETE FROM audit_incoming")  # holds rows only inside somebody else's transaction
    with connection.wrap_database_errors, cursor.copy(_COPY) as copy:
        for part in data:
            copy.write(part)


def _inserted(cursor: Cursor, rows: Sequence[Row]) -> bool:
    cursor.execute("SAVEPOINT audit_insert")
    leaves = commit_rows(cursor, [values_of(row) for row in rows])
    stage(cursor, copy_data(rows, leaves))
    cursor.execute(_INSERT)
    if cursor.rowcount == len(rows):
        cursor.execute("RELEASE SAVEPOINT audit_insert")
        return True
    cursor.execute("ROLLBACK TO SAVEPOINT audit_insert")
    return False


def _there(cursor: Cursor, rows: Sequence[Row]) -> set[tuple[object, ...]]:
    keys = [[row[at] for row in rows] for at in (ORG, TS, ID)]
    cursor.execute(_THERE, [*keys, min(keys[1]), max(keys[1])])
    return set(cursor.fetchall())

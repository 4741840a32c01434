"""Insert rows with their leaves in the transparency log: binary COPY into a temporary table, then one insert.

Straight into ``audit_event`` would be faster and is not possible: PostgreSQL refuses COPY FROM on a table with
row-level security to a role that it binds. The temporary table lives as long as the connection, so that a batch does
not write to the system catalogue.
"""

# ruff: noqa: S608 - SQL of constants

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from audit.ingest.rows import COLUMNS, DETAILS, ID, ORG, TS, Row, key_of
from audit.services.commitments import commit_rows

_NAMES = tuple(name for name, _ in COLUMNS)
_LOGGED = (*COLUMNS, ("log_leaf", "int8"), ("salt", "bytea"))
_STORED = ", ".join(name for name, _ in _LOGGED if name != "incarnation")
_COPY = f"COPY audit_incoming ({', '.join(name for name, _ in _LOGGED)}) FROM STDIN (FORMAT BINARY)"
_TEMPORARY = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS audit_incoming ("
    + ", ".join(f"{name} {kind}" for name, kind in _LOGGED)
    + ") ON COMMIT DELETE ROWS"
)
# The columns of administrative changes have no default in the table.
_INSERT = (
    f"INSERT INTO audit_event ({_STORED}, actor, target) "
    f"SELECT {_STORED.replace('details', 'details::jsonb')}, '', '' FROM audit_incoming ORDER BY org_id, ts, id "
    "ON CONFLICT (org_id, ts, id) DO NOTHING"
)
_THERE = (
    "SELECT org_id, ts, id FROM unnest(%s::text[], %s::timestamptz[], %s::uuid[]) AS asked (org_id, ts, id) "
    "JOIN audit_event AS e USING (org_id, ts, id) WHERE e.ts BETWEEN %s AND %s"
)
_NO_LEAF = (None, None)


def insert(cursor: CursorWrapper, rows: Sequence[Row]) -> Sequence[Row]:
    """Insert those of ``rows`` whose keys are not there yet, each with its leaf, and return them.

    All are taken to be new at first. When one was not, nothing of the attempt stays, so that no leaf is without a row.
    """
    while rows and not _inserted(cursor, rows):
        there = _there(cursor, rows)
        rows = [row for row in rows if key_of(row) not in there]
    return rows


def stage(cursor: CursorWrapper, rows: Sequence[Row], leaves: Sequence[tuple[int, bytes]] = ()) -> None:
    """Put ``rows`` into the temporary table ``audit_incoming``, in place of what it holds."""
    cursor.execute(_TEMPORARY)
    cursor.execute("DELETE FROM audit_incoming")  # holds rows only inside somebody else's transaction
    with connection.wrap_database_errors, cursor.copy(_COPY) as copy:
        copy.set_types([kind for _, kind in _LOGGED])
        for at, row in enumerate(rows):
            copy.write_row(row + (leaves[at] if leaves else _NO_LEAF))


def _inserted(cursor: CursorWrapper, rows: Sequence[Row]) -> bool:
    with transaction.atomic():
        stage(cursor, rows, commit_rows(cursor, [_values(row) for row in rows]))
        cursor.execute(_INSERT)
        if cursor.rowcount == len(rows):
            return True
        transaction.set_rollback(True)
    return False


def _there(cursor: CursorWrapper, rows: Sequence[Row]) -> set[tuple[object, ...]]:
    keys = [[row[at] for row in rows] for at in (ORG, TS, ID)]
    cursor.execute(_THERE, [*keys, min(keys[1]), max(keys[1])])
    return set(cursor.fetchall())


def _values(row: Row) -> Mapping[str, object]:
    """The values of a row by column, as they are read back."""
    values = dict(zip(_NAMES, row, strict=True))
    if row[DETAILS]:
        values["details"] = json.loads(row[DETAILS])
    return values

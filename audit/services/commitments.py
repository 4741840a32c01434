"""Commit to rows in the transparency log: a salt and a leaf for each, in the transaction that writes the row.

Leaves wait in a queue until :mod:`audit.transparency.growing` gives them their index. Writers of one organization
therefore never wait for each other, however long their transactions last: only the queue's reader knows an order.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper

from audit.log.rows import log_row
from audit.log.verifier import SALT_BYTES, canonical

RUN = 8_192
"""Leaves of one run at most. Numbers of runs are multiples of it; a leaf's number is its run's plus its place there."""

_QUEUE = (
    "INSERT INTO audit_log_queue (org_id, entries) SELECT * FROM unnest(%s::text[], %s::bytea[]) RETURNING org_id, run"
)
_RESERVE = "SELECT nextval('audit_log_run') FROM generate_series(1, %s)"
_QUEUE_RESERVED = (
    "INSERT INTO audit_log_queue (org_id, run, entries) SELECT * FROM unnest(%s::text[], %s::int8[], %s::bytea[])"
)
_ENCODER = msgspec.json.Encoder(order="sorted")


def commit_rows(
    cursor: CursorWrapper | psycopg.Cursor[Any], rows: Sequence[Mapping[str, object]]
) -> list[tuple[int, bytes]]:
    """Queue a leaf for each of ``rows`` (values by column); returns the number of its leaf and the salt of each."""
    random = os.urandom(SALT_BYTES * len(rows))
    salts = [random[at : at + SALT_BYTES] for at in range(0, len(random), SALT_BYTES)]
    places: dict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        places[str(row["org_id"])].append(at)
    runs = [(org, of[at : at + RUN]) for org, of in places.items() for at in range(0, len(of), RUN)]
    entries = [b"".join(sha256(salts[at] + row_bytes(rows[at])).digest() for at in run) for _, run in runs]
    cursor.execute(_QUEUE, [[org for org, _ in runs], entries])
    numbers: dict[str, list[int]] = defaultdict(list)
    for org, number in sorted(cursor.fetchall(), reverse=True):
        numbers[org].append(number)
    leaves = [0] * len(rows)
    for org, run in runs:
        first = numbers[org].pop()
        for place, at in enumerate(run):
            leaves[at] = first + place
    return list(zip(leaves, salts, strict=True))


class ReservedLeaves:
    """Leaves whose numbers are reserved first, so that PostgreSQL takes rows while the next ones are hashed.

    ``sizes`` is how many rows each organization will have; :meth:`queue` comes after the last of them.
    """

    def __init__(self, cursor: psycopg.Cursor[Any], sizes: Mapping[str, int]) -> None:
        self._cursor = cursor
        self._random = os.urandom(SALT_BYTES * sum(sizes.values()))
        self._used = 0
        self._entries: dict[str, list[bytes]] = {org: [] for org in sizes}
        self._numbers: dict[str, list[int]] = {org: [] for org in sizes}
        runs = [org for org, size in sizes.items() for _ in range(0, size, RUN)]
        cursor.execute(_RESERVE, [len(runs)])
        for org, (number,) in zip(runs, cursor.fetchall(), strict=True):
            self._numbers[org].append(number)

    def add(self, org: str, data: bytes) -> tuple[int, bytes]:
        """Commit to a row by its canonical bytes; returns the number of its leaf and the salt."""
        salt = self._random[self._used : self._used + SALT_BYTES]
        self._used += SALT_BYTES
        entries = self._entries[org]
        run, place = divmod(len(entries), RUN)
        entries.append(sha256(salt + data).digest())
        return self._numbers[org][run] + place, salt

    def queue(self) -> None:
        """Queue them all."""
        runs = [(org, at, number) for org, of in self._numbers.items() for at, number in enumerate(of)]
        entries = [b"".join(self._entries[org][at * RUN : (at + 1) * RUN]) for org, at, _ in runs]
        self._cursor.execute(_QUEUE_RESERVED, [[org for org, _, _ in runs], [number for _, _, number in runs], entries])


def queue_entries(org_id: str, entries: Sequence[bytes]) -> int:
    """Queue one run of entries that are no rows; returns the number of the first leaf."""
    with connection.cursor() as cursor:
        cursor.execute(_QUEUE, [[org_id], [b"".join(entries)]])
        return int(cursor.fetchone()[1])


def row_bytes(values: Mapping[str, object]) -> bytes:
    """The canonical bytes of a row: :func:`audit.log.verifier.canonical`, faster where it holds no fraction."""
    row = log_row(values)
    if any(_fractional(row[name]) for name in ("before", "after", "details")):
        return canonical(row)
    return _ENCODER.encode({name: value for name, value in row.items() if value is not None and value != ""})


def _fractional(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_fractional, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_fractional, value))
    return value is not None and not isinstance(value, str | bool | int)

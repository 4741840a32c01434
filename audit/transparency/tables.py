"""Read and append to the tables of the log. Tiles are not stored: each is made of leaves, or of hashes above them.

Everything runs in the scope of the caller; row-level security holds besides the organization that statements name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from audit.log.verifier import TILE, leaf_hash
from audit.services.commitments import RUN
from cloudsignal.ids import CHECKPOINT_LOG

_LAST = "SELECT start + octet_length(entries) / 32 FROM audit_log_leaves WHERE org_id = %s ORDER BY start DESC LIMIT 1"
_ENTRIES = """
SELECT substring(entries FROM greatest(%(start)s - start, 0)::int * 32 + 1
    FOR (least(%(end)s, start + octet_length(entries) / 32) - greatest(start, %(start)s))::int * 32)
FROM audit_log_leaves WHERE org_id = %(org)s AND start < %(end)s AND start + octet_length(entries) / 32 > %(start)s
    AND start >= coalesce(
    (SELECT start FROM audit_log_leaves WHERE org_id = %(org)s AND start <= %(start)s ORDER BY start DESC LIMIT 1), 0)
ORDER BY start
"""
_HASHES = (
    "SELECT hash FROM audit_log_hash WHERE org_id = %s AND level = %s AND position >= %s AND position < %s "
    "ORDER BY position"
)
_ADD_HASHES = (
    "INSERT INTO audit_log_hash (org_id, level, position, hash) SELECT %s, %s, * FROM unnest(%s::bigint[], %s::bytea[])"
)
_CHECKPOINT = "SELECT size, root, note, at, leaf FROM audit_log_checkpoint WHERE org_id = %s "
_ADD_CHECKPOINT = (
    "INSERT INTO audit_log_checkpoint (org_id, size, root, note, at, leaf) VALUES (%s, %s, %s, %s, %s, %s)"
)
# The key of cosignatures begins with the witness: each one's newest are read, and never all.
_COSIGNED = """AND size = (
    WITH RECURSIVE witnesses AS (
        (SELECT vkey FROM audit_log_cosignature WHERE org_id = %s ORDER BY vkey LIMIT 1)
        UNION ALL
        SELECT (SELECT vkey FROM audit_log_cosignature WHERE org_id = %s AND vkey > w.vkey ORDER BY vkey LIMIT 1)
        FROM witnesses w WHERE w.vkey IS NOT NULL
    ), newest AS (
        SELECT s.size, count(*) AS cosigned FROM witnesses w CROSS JOIN LATERAL (
            SELECT size FROM audit_log_cosignature WHERE org_id = %s AND vkey = w.vkey ORDER BY size DESC LIMIT 20
        ) s GROUP BY s.size ORDER BY s.size DESC LIMIT 20
    )
    SELECT newest.size FROM newest ORDER BY cosigned DESC, newest.size DESC LIMIT 1
)"""
# Leaves of the platform's log are queued by one process at a time, so their numbers rise with their indexes.
_WITHIN = """AND leaf < (
    SELECT run + %s - start FROM audit_log_leaves WHERE org_id = %s AND start < %s ORDER BY start DESC LIMIT 1
) ORDER BY size DESC LIMIT 1"""
_STARTS = "SELECT run, start FROM audit_log_leaves WHERE org_id = %s AND run = ANY(%s)"
_INDEX = "SELECT start + %s FROM audit_log_leaves WHERE org_id = %s AND run = %s AND octet_length(entries) > 32 * %s"


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed checkpoint of an organization's log."""

    size: int
    root: bytes
    note: bytes
    at: datetime
    leaf: int | None
    """Number of its leaf in the platform's log of checkpoints; None for a checkpoint of that log itself."""


class LogReader:
    """The tiles of one organization's log. Whole tiles that were read last are kept."""

    def __init__(self, org_id: str) -> None:
        self.org_id = org_id
        self._held: dict[tuple[int, int, int], bytes] = {}

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The tile as C2SP tlog-tiles defines it; shorter than ``width`` hashes when the tree has no more."""
        key = (level, index, width)
        if key not in self._held:
            if len(self._held) >= 64:
                self._held.clear()
            start = index * TILE
            if level == 0:
                entries = read_entries(self.org_id, start, start + width)
                self._held[key] = b"".join(leaf_hash(entries[at : at + 32]) for at in range(0, len(entries), 32))
            else:
                self._held[key] = b"".join(read_hashes(self.org_id, level, start, start + width))
        return self._held[key]


def placed(org_id: str) -> int:
    """Leaves that have an index."""
    with connection.cursor() as cursor:
        cursor.execute(_LAST, [org_id])
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def read_entries(org_id: str, start: int, end: int) -> bytes:
    """The log entries (commitments of 32 bytes) from index ``start`` to before ``end``, as far as there are any."""
    with connection.cursor() as cursor:
        cursor.execute(_ENTRIES, {"org": org_id, "start": start, "end": end})
        return b"".join(bytes(part) for (part,) in cursor.fetchall())


def read_hashes(org_id: str, level: int, start: int, end: int) -> list[bytes]:
    """The hashes at ``level`` (1 and above) from position ``start`` to before ``end``."""
    with connection.cursor() as cursor:
        cursor.execute(_HASHES, [org_id, level, start, end])
        return [bytes(one) for (one,) in cursor.fetchall()]


def add_hashes(org_id: str, level: int, hashes: Sequence[tuple[int, bytes]]) -> None:
    """Append hashes (position, hash) at ``level``."""
    if hashes:
        with connection.cursor() as cursor:
            cursor.execute(_ADD_HASHES, [org_id, level, [at for at, _ in hashes], [one for _, one in hashes]])


def last_checkpoint(org_id: str) -> StoredCheckpoint | None:
    """The newest checkpoint."""
    return _checkpoint(_CHECKPOINT + "ORDER BY size DESC LIMIT 1", org_id)


def last_cosigned(org_id: str) -> StoredCheckpoint | None:
    """Of the 20 newest checkpoints with cosignatures, the newest with the most; without any, the newest of all."""
    return _checkpoint(_CHECKPOINT + _COSIGNED, org_id, org_id, org_id, org_id) or last_checkpoint(org_id)


def newest_within(org_id: str, size: int) -> StoredCheckpoint | None:
    """The newest checkpoint whose leaf is among the first ``size`` of the platform's log."""
    return _checkpoint(_CHECKPOINT + _WITHIN, org_id, size, CHECKPOINT_LOG, size)


def add_checkpoint(org_id: str, found: StoredCheckpoint) -> None:
    """Append a checkpoint."""
    with connection.cursor() as cursor:
        values: list[Any] = [org_id, found.size, found.root, found.note, found.at, found.leaf]
        cursor.execute(_ADD_CHECKPOINT, values)


def index_of_leaf(org_id: str, leaf: int) -> int | None:
    """The index of a leaf by its number; None while it waits in the queue."""
    place = leaf % RUN
    with connection.cursor() as cursor:
        cursor.execute(_INDEX, [place, org_id, leaf - place, place])
        row = cursor.fetchone()
    return int(row[0]) if row else None


def indexes_of_leaves(org_id: str, leaves: Sequence[int]) -> dict[int, int]:
    """The indexes of many leaves by their numbers; those that wait in the queue are missing."""
    with connection.cursor() as cursor:
        cursor.execute(_STARTS, [org_id, sorted({leaf - leaf % RUN for leaf in leaves})])
        starts = {int(run): int(start) for run, start in cursor.fetchall()}
    return {leaf: starts[leaf - leaf % RUN] + leaf % RUN for leaf in leaves if leaf - leaf % RUN in starts}


_WAITING = """
SELECT count(*) FILTER (WHERE leaves <= %(leaves)s), count(*) FROM (
    SELECT sum(octet_length(entries) / 32) OVER (ORDER BY run) AS leaves FROM audit_log_queue
    ORDER BY run LIMIT %(runs)s
) first
"""


def place_queued(runs: int, leaves: int) -> bool:
    """Give queued leaves their index, of ``runs`` and ``leaves`` at most, but of one run; returns whether more wait."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"runs": runs + 1, "leaves": leaves})
        within, waiting = cursor.fetchone()
        taken = min(runs, max(within, 1))
        cursor.execute("SELECT audit_log_place(%s)", [taken])
        return bool(waiting > taken)


# Logs that have lost all their leaves count too, so those are looked for by leaves and by checkpoints.
_GROWN = """
WITH RECURSIVE logs AS (
    SELECT least((SELECT org_id FROM audit_log_leaves ORDER BY org_id LIMIT 1),
        (SELECT org_id FROM audit_log_checkpoint ORDER BY org_id LIMIT 1)) AS org_id
    UNION ALL
    SELECT least((SELECT org_id FROM audit_log_leaves WHERE org_id > logs.org_id ORDER BY org_id LIMIT 1),
        (SELECT org_id FROM audit_log_checkpoint WHERE org_id > logs.org_id ORDER BY org_id LIMIT 1))
    FROM logs WHERE logs.org_id IS NOT NULL
)
SELECT logs.org_id FROM logs
LEFT JOIN LATERAL (
    SELECT size, at FROM audit_log_checkpoint WHERE org_id = logs.org_id ORDER BY size DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT start + octet_length(entries) / 32 AS size FROM audit_log_leaves
    WHERE org_id = logs.org_id ORDER BY start DESC LIMIT 1
) l ON true
WHERE logs.org_id IS NOT NULL AND coalesce(l.size, 0) <> coalesce(c.size, 0)
ORDER BY c.at NULLS FIRST
"""


def grown() -> list[str]:
    """Organizations whose log has more leaves than its newest checkpoint, or fewer; those that wait longest first."""
    with connection.cursor() as cursor:
        cursor.execute(_GROWN)
        return [str(org) for (org,) in cursor.fetchall()]


def add_key(public: bytes, at: datetime) -> None:
    """Note a signing key, when it signs for the first time."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_log_key (public, first_used_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", [public, at]
        )


def cosigned_size(vkey: str) -> int:
    """The largest checkpoint of the platform's log that a witness has cosigned; 0 for none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(max(size), 0) FROM audit_log_cosignature WHERE org_id = %s AND vkey = %s",
            [CHECKPOINT_LOG, vkey],
        )
        return int(cursor.fetchone()[0])


def add_cosignature(org_id: str, size: int, vkey: str, line: bytes) -> None:
    """Keep the cosignature of a witness."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_log_cosignature (org_id, size, vkey, line) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [org_id, size, vkey, line],
        )


def cosignatures(org_id: str, size: int) -> list[bytes]:
    """The cosignature lines of a checkpoint."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT line FROM audit_log_cosignature WHERE org_id = %s AND size = %s ORDER BY vkey", [org_id, size]
        )
        return [bytes(line) for (line,) in cursor.fetchall()]


def signing_keys() -> list[bytes]:
    """The public keys that have signed checkpoints, newest first by when each signed for the first time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT public FROM audit_log_key ORDER BY first_used_at DESC")
        return [bytes(one) for (one,) in cursor.fetchall()]


def _checkpoint(query: str, *values: str | int) -> StoredCheckpoint | None:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        row = cursor.fetchone()
    return _stored(row) if row else None


def _stored(row: Sequence[Any]) -> StoredCheckpoint:
    return StoredCheckpoint(int(row[0]), bytes(row[1]), bytes(row[2]), row[3], row[4])

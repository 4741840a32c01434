"""Grow the logs: place queued leaves, add the hashes above them, sign checkpoints, and log those in the platform's log.

One worker at a time does it, every five seconds, in rounds of a bounded size. Each is one transaction, so whatever a
kill leaves, the next round continues. No checkpoint is signed that does not continue the one before; a log that is
damaged stops alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from time import monotonic
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from audit.kinds import LOG_CONFLICT, LOG_KEY_CHANGED
from audit.log.signing import Signer, signed_checkpoint
from audit.log.tree import completed
from audit.log.verifier import (
    ED25519,
    CheckedTiles,
    Checkpoint,
    VerifyError,
    key_id,
    parse_checkpoint,
    parse_note,
    root_of_tiles,
)
from audit.models import Event
from audit.services.commitments import RUN, queue_entries
from audit.services.record import record
from audit.transparency import tables
from audit.transparency.tables import LogReader, StoredCheckpoint
from cloudsignal.ids import CHECKPOINT_LOG, PLATFORM_ORG
from cloudsignal.secrets.keyring import log_key, previous_log_key
from cloudsignal.tenancy.scopes import platform_scope
from orgs.actors import PLATFORM

logger = logging.getLogger(__name__)

RUNS_MAX, LEAVES_MAX = 20_000, 1_000_000
"""Runs and leaves placed in one round; what is left waits for the next, which follows at once."""
ROUND_SECONDS = 10
"""After so long a round signs what it has: other logs come first in the next one."""
SECONDS = 60
"""No round of a task begins later. With the last ones it stays below the task's limit of 120 s."""
AGAIN = timedelta(hours=1)
"""Time between two events about the same conflict."""
_GROW_LOCK = 4_081_600_415
"""Advisory lock of whoever grows: a redelivered task must not do it beside the first."""


@dataclass(frozen=True, slots=True)
class _Grown:
    """A log whose hashes are complete, with the checkpoint that is to be signed."""

    org_id: str
    checkpoint: Checkpoint
    last: StoredCheckpoint | None


def grow() -> int:
    """Bring every log up to date; returns how many checkpoints were signed. Does nothing beside another process."""
    signed, more = _round()
    end = monotonic() + SECONDS
    while more and monotonic() < end:
        again, more = _round()
        signed += again
    return signed + _round()[0] if signed else signed  # the last one places the checkpoints of those before


def origin_of(org_id: str) -> str:
    """The origin of an organization's log: what its first checkpoint said, whatever the installation is called now."""
    last = tables.last_checkpoint(org_id)
    if last is not None:
        return parse_checkpoint(parse_note(last.note).text).origin
    return f"{urlsplit(settings.PUBLIC_URL).netloc}/log/{org_id}"


def _round() -> tuple[int, bool]:
    """Place and sign in one transaction; returns how many checkpoints, and whether more waits than a round takes."""
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_GROW_LOCK])
        if not cursor.fetchone()[0]:
            return 0, False
        more = tables.place_queued(RUNS_MAX, LEAVES_MAX)
        found: list[_Grown] = []
        end = monotonic() + ROUND_SECONDS
        for org_id in tables.grown():
            if found and monotonic() > end:
                more = True
                break
            one = _grow_one(org_id)
            if one is not None:
                found.append(one)
        _sign(found)
        return len(found), more


def _grow_one(org_id: str) -> _Grown | None:
    """Add the hashes over the new leaves; None when what is there is damaged, which stops this one log alone."""
    last = None
    try:
        with transaction.atomic():
            last = tables.last_checkpoint(org_id)
            return _Grown(org_id, _continue(org_id, last), last)
    except (VerifyError, IndexError, IntegrityError) as error:
        _conflict(org_id, last, error)
        return None


def _continue(org_id: str, last: StoredCheckpoint | None) -> Checkpoint:
    reader, new, old = LogReader(org_id), tables.placed(org_id), last.size if last is not None else 0
    if last is not None:
        if new < old:
            raise VerifyError(f"{old - new} leaves are missing at its end")
        # The last leaf too: hashes above whole tiles lead to the root without any leaf.
        CheckedTiles(reader.tile, Checkpoint("", old, last.root)).leaf(old - 1)
    for level in range(1, 8):
        tables.add_hashes(org_id, level, list(completed(reader.tile, old, new, level)))
        if not new >> 8 * level:
            break
    return Checkpoint(origin_of(org_id), new, root_of_tiles(LogReader(org_id).tile, new))


def _sign(found: list[_Grown]) -> None:
    """Sign and store; the leaves of all these checkpoints in the platform's log are few runs, not one each."""
    entries = [sha256(one.checkpoint.text()).digest() for one in found if one.org_id != CHECKPOINT_LOG]
    leaves: list[int] = []
    for at in range(0, len(entries), RUN):
        run = entries[at : at + RUN]
        first = queue_entries(CHECKPOINT_LOG, run)
        leaves += range(first, first + len(run))
    numbers, now = iter(leaves), datetime.now(UTC)
    for one in found:
        leaf = None if one.org_id == CHECKPOINT_LOG else next(numbers)
        note = signed_checkpoint(one.checkpoint, _signers(one.checkpoint.origin, one.last, now))
        tables.add_checkpoint(one.org_id, StoredCheckpoint(one.checkpoint.size, one.checkpoint.root, note, now, leaf))


def _signers(origin: str, last: StoredCheckpoint | None, now: datetime) -> list[Signer]:
    """The log's key; on the first checkpoint after a change the key before it too."""
    current, before = Signer(origin, log_key()), previous_log_key()
    tables.add_key(current.key.public, now)
    if last is None:
        return [current]
    used = [one.key for one in parse_note(last.note).signatures]
    if used[0] == current.key.id:
        return [current]
    both = before is not None and Signer(origin, before).key.id in used
    _tell_change(origin, used[0], current.key.public, both_signed=both)
    return [current, Signer(origin, before)] if before is not None and both else [current]


def _tell_change(origin: str, last: bytes, public: bytes, *, both_signed: bool) -> None:
    """One event for all logs: none when the newest one names ``public``. A key that comes back is a change too."""
    key = {"key": public.hex()}
    told = Event.objects.filter(org_id=PLATFORM_ORG, kind=LOG_KEY_CHANGED).order_by("-ts").first()
    if told is None or (told.after or {}).get("key") != key["key"]:
        before = next((one.hex() for one in tables.signing_keys() if key_id(origin, ED25519, one) == last), "")
        after = {**key, "both_signed": both_signed}
        record(PLATFORM, LOG_KEY_CHANGED, target="log", before={"key": before}, after=after)


def _conflict(org_id: str, last: StoredCheckpoint | None, error: Exception) -> None:
    """Tell that what is stored of a log does not lead to what was signed, or to one tree."""
    size, root = (last.size, last.root.hex()) if last is not None else (0, "")
    logger.critical(
        "the log of %s is damaged after its checkpoint of %d rows; it is not signed: %s", org_id, size, error
    )
    said = Event.objects.filter(
        org_id=PLATFORM_ORG, ts__gte=datetime.now(UTC) - AGAIN, kind=LOG_CONFLICT, target=f"log:{org_id}"
    )
    if not said.exists():
        record(PLATFORM, LOG_CONFLICT, target=f"log:{org_id}", after={"size": size, "root": root})

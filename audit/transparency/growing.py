"""Grow the logs: place queued leaves, add the hashes above them, sign checkpoints, and log those in the platform's log.

One worker at a time does it, every five seconds. What is written for one log is written in one transaction, so whatever
a kill leaves, the next round continues. No checkpoint is signed that does not continue the one before.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection

from audit.kinds import LOG_CONFLICT, LOG_KEY_CHANGED
from audit.log.signing import Signer, signed_checkpoint
from audit.log.tree import completed
from audit.log.verifier import Checkpoint, parse_checkpoint, parse_note, root_of_tiles
from audit.models import Event
from audit.services.commitments import queue_entries
from audit.services.record import record
from audit.transparency import tables
from audit.transparency.tables import LogReader, StoredCheckpoint
from cloudsignal.ids import CHECKPOINT_LOG, PLATFORM_ORG
from cloudsignal.secrets.keyring import log_key, previous_log_key
from cloudsignal.tenancy.scopes import platform_scope
from orgs.actors import PLATFORM

logger = logging.getLogger(__name__)

RUNS_MAX = 2_000
"""Runs placed in one round; what is left waits for the next."""
AGAIN = timedelta(hours=1)
"""Time between two events about the same conflict."""
_GROW_LOCK = 4_081_600_415
"""Advisory lock of whoever grows: a redelivered task must not do it beside the first."""


def grow() -> int:
    """Bring every log up to date; returns how many checkpoints were signed. Does nothing beside another process."""
    signed = _round()
    return signed + _round() if signed else signed  # the second one places the checkpoints of the first


def origin_of(org_id: str) -> str:
    """The origin of an organization's log: what its first checkpoint said, whatever the installation is called now."""
    last = tables.last_checkpoint(org_id)
    if last is not None:
        return parse_checkpoint(parse_note(last.note).text).origin
    return f"{urlsplit(settings.PUBLIC_URL).netloc}/log/{org_id}"


def _round() -> int:
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_GROW_LOCK])
        if not cursor.fetchone()[0]:
            return 0
        tables.place_queued(RUNS_MAX)
        return sum(_grow_one(org_id, old) for org_id, old in tables.grown())


def _grow_one(org_id: str, old: int) -> bool:
    reader, new = LogReader(org_id), tables.placed(org_id)
    last = tables.last_checkpoint(org_id)
    if last is not None and root_of_tiles(reader.tile, last.size) != last.root:
        _conflict(org_id, last)
        return False
    for level in range(1, 8):
        tables.add_hashes(org_id, level, list(completed(reader.tile, old, new, level)))
        if not new >> 8 * level:
            break
    checkpoint = Checkpoint(origin_of(org_id), new, root_of_tiles(LogReader(org_id).tile, new))
    leaf = None
    if org_id != CHECKPOINT_LOG:
        leaf = queue_entries(CHECKPOINT_LOG, [sha256(checkpoint.text()).digest()])
    now = datetime.now(UTC)
    note = signed_checkpoint(checkpoint, _signers(checkpoint.origin, last, now))
    tables.add_checkpoint(org_id, StoredCheckpoint(new, checkpoint.root, note, now, leaf))
    return True


def _signers(origin: str, last: StoredCheckpoint | None, now: datetime) -> list[Signer]:
    """The log's key; on the first checkpoint after a change the key before it too."""
    current, before = Signer(origin, log_key()), previous_log_key()
    changed = tables.add_key(current.key.public, now)
    used = {one.key for one in parse_note(last.note).signatures} if last is not None else set()
    both = [current]
    if before is not None and current.key.id not in used and Signer(origin, before).key.id in used:
        both.append(Signer(origin, before))
    if changed:
        after = {"key": current.key.public.hex(), "both_signed": _can_sign(before)}
        record(PLATFORM, LOG_KEY_CHANGED, target="log", before={"key": tables.signing_keys()[1].hex()}, after=after)
    return both


def _can_sign(key: Ed25519PrivateKey | None) -> bool:
    """Whether ``key`` is the one before the present one."""
    return key is not None and tables.signing_keys()[1] == key.public_key().public_bytes_raw()


def _conflict(org_id: str, last: StoredCheckpoint) -> None:
    """Tell that the leaves do not lead to a root that was signed."""
    logger.critical("the log of %s does not lead to its checkpoint of %d rows; nothing is signed", org_id, last.size)
    said = Event.objects.filter(
        org_id=PLATFORM_ORG, ts__gte=datetime.now(UTC) - AGAIN, kind=LOG_CONFLICT, target=f"log:{org_id}"
    )
    if not said.exists():
        record(PLATFORM, LOG_CONFLICT, target=f"log:{org_id}", after={"size": last.size, "root": last.root.hex()})

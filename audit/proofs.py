"""Serve the transparency log of an organization: checkpoint, tiles, entries, keys, proofs of rows and packs of them."""

from __future__ import annotations

import io
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

from audit.access import get_event
from audit.log.proofs import encode_proof, salted_row, write_pack
from audit.log.rows import log_row
from audit.log.tree import inclusion_proof
from audit.log.verifier import ED25519, TILE, Key, LogProof, parse_checkpoint, parse_note, tile_path, tile_width
from audit.models import Event
from audit.transparency import growing, tables
from audit.transparency.tables import LogReader, StoredCheckpoint
from cloudsignal.errors import Conflict, Invalid, NotFound
from cloudsignal.ids import CHECKPOINT_LOG
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.permissions import Permission

PACK_ROWS = 10_000
"""Rows of a pack at most."""

_TILE = re.compile(r"(0|[1-9]\d?|entries)/((?:x\d{3}/){0,6})(\d{3})(?:\.p/([1-9]\d{0,2}))?")


@dataclass(frozen=True, slots=True)
class LogState:
    """The place of a row in the transparency log."""

    index: int | None
    """None while the leaf waits for its index, or for a checkpoint over it."""
    checkpoint: StoredCheckpoint | None


def checkpoint(access: Access) -> bytes:
    """The newest signed checkpoint; raises :class:`NotFound` before the first one."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        found = tables.last_checkpoint(access.org_id)
    if found is None:
        raise NotFound("The checkpoint")
    return found.note


def verifier_keys(access: Access) -> tuple[str, list[str]]:
    """The origin of the log and its verifier keys (vkeys), newest first."""
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        origin = growing.origin_of(access.org_id)
        return origin, [Key(origin, ED25519, public).vkey for public in tables.signing_keys()]


def platform_keys(access: Access) -> list[str]:
    """The verifier keys of the platform's log of checkpoints, newest first."""
    access.require(Permission.AUDIT_READ)
    with platform_scope():
        origin = growing.origin_of(CHECKPOINT_LOG)
        return [Key(origin, ED25519, public).vkey for public in tables.signing_keys()]


def platform_proof(access: Access) -> bytes:
    """The ``.tlog-proof`` that a checkpoint of the organization is in the platform's log, with what witnesses signed.

    It is of the newest checkpoint that the cosigned part of the platform's log holds, however old that is; raises
    :class:`NotFound` before there is one.
    """
    access.require(Permission.AUDIT_READ)
    with platform_scope():
        platform = tables.last_cosigned(CHECKPOINT_LOG)
        held = tables.newest_within(access.org_id, platform.size) if platform is not None else None
        index = tables.index_of_leaf(CHECKPOINT_LOG, held.leaf or 0) if held is not None else None
        if platform is None or held is None or index is None:
            raise NotFound("A checkpoint in the platform's log")
        path = tuple(inclusion_proof(LogReader(CHECKPOINT_LOG).tile, index, platform.size))
        note = platform.note + b"".join(tables.cosignatures(CHECKPOINT_LOG, platform.size))
    return encode_proof(LogProof(index, path, note, held.note))


def tile(access: Access, path: str) -> tuple[bytes, bool]:
    """A tile, or an entry bundle, by its path after ``tile/``; and whether it is whole and so never changes.

    Raises :class:`NotFound` for a path that is not canonical, or reaches beyond the newest checkpoint.
    """
    access.require(Permission.AUDIT_READ)
    found = _TILE.fullmatch(path)
    if found is None:
        raise NotFound("The tile")
    entries, level = found[1] == "entries", 0 if found[1] == "entries" else int(found[1])
    index = int(re.sub(r"[x/]", "", found[2]) + found[3])
    width = int(found[4]) if found[4] else TILE
    canonical = tile_path(level, index, width)
    if level > 7 or (canonical.replace("tile/0/", "tile/entries/", 1) if entries else canonical) != f"tile/{path}":
        raise NotFound("The tile")
    with org_scope(access.org_id):
        last = tables.last_checkpoint(access.org_id)
        if last is None or tile_width(level, index, last.size) < width:
            raise NotFound("The tile")
        if not entries:
            return LogReader(access.org_id).tile(level, index, width), width == TILE
        raw = tables.read_entries(access.org_id, index * TILE, index * TILE + width)
    return b"".join(b"\x00\x20" + raw[at : at + 32] for at in range(0, len(raw), 32)), width == TILE


def state_of(access: Access, event: Event) -> LogState | None:
    """The place of an event in the log; None for one recorded before there was a log."""
    if event.log_leaf is None or event.salt is None:
        return None
    with org_scope(access.org_id):
        index = tables.index_of_leaf(access.org_id, event.log_leaf)
        last = tables.last_checkpoint(access.org_id)
    return LogState(index if last is not None and index is not None and index < last.size else None, last)


def row_proof(access: Access, ts: datetime, event_id: uuid.UUID) -> bytes:
    """The ``.tlog-proof`` of an event; raises :class:`NotFound` and :class:`Conflict` when there is none (yet)."""
    event = get_event(access, ts, event_id)
    state = state_of(access, event)
    if state is None:
        raise Conflict("no_proof", "This event was recorded before it could be part of the transparency log.")
    if state.index is None or state.checkpoint is None:
        raise Conflict(
            "proof_pending",
            "No checkpoint covers the event yet. Try again in ten seconds; should that go on, no worker runs.",
        )
    with org_scope(access.org_id):
        path = inclusion_proof(LogReader(access.org_id).tile, state.index, state.checkpoint.size)
    extra = salted_row(bytes(event.salt or b""), log_row(vars(event)))
    return encode_proof(LogProof(state.index, tuple(path), state.checkpoint.note, extra))


def pack(access: Access, since: datetime, until: datetime) -> bytes:
    """A pack of the events of ``since`` to before ``until`` that a checkpoint covers, by index.

    Raises :class:`Invalid` for more than :data:`PACK_ROWS` and :class:`NotFound` when there are none.
    """
    access.require(Permission.AUDIT_READ)
    with org_scope(access.org_id):
        last = tables.last_checkpoint(access.org_id)
        asked = Event.objects.filter(org_id=access.org_id, ts__gte=since, ts__lt=until, log_leaf__isnull=False)
        events = list(asked[: PACK_ROWS + 1])
        if len(events) > PACK_ROWS:
            raise Invalid("too_many", f"More than {PACK_ROWS:,} events; ask for a shorter time.", field="until")
        size = last.size if last is not None else 0
        places = tables.indexes_of_leaves(access.org_id, [event.log_leaf for event in events if event.log_leaf])
        placed = ((places.get(event.log_leaf or 0, size), event) for event in events)
        found = sorted(((index, event) for index, event in placed if index < size), key=itemgetter(0))
        if last is None or not found:
            raise NotFound("An event with a checkpoint over it")
        indexes = [index for index, _ in found]
        whole = range(indexes[0], indexes[-1] + 1)
        file = io.BytesIO()
        write_pack(
            file,
            checkpoint=parse_checkpoint(parse_note(last.note).text),
            note=last.note,
            complete=whole if len(whole) == len(indexes) else None,
            rows=((index, bytes(event.salt or b""), log_row(vars(event))) for index, event in found),
            tiles=LogReader(access.org_id).tile,
        )
    return file.getvalue()

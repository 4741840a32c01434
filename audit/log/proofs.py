"""Write ``.tlog-proof`` files and packs of rows (C2SP tlog-proof; packs: ``docs/audit-log.md``)."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from audit.log.verifier import (
    PACK_FORMAT,
    PROOF_HEADER,
    TILE,
    Checkpoint,
    LogProof,
    Tiles,
    canonical,
    read_tile,
    tile_path,
    tile_width,
)

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the same rows give the same bytes."""


def encode_proof(proof: LogProof) -> bytes:
    """The bytes of a ``.tlog-proof``."""
    lines = [PROOF_HEADER]
    if proof.extra:
        lines.append(f"extra {base64.b64encode(proof.extra).decode()}")
    lines += [f"index {proof.index}", *(base64.b64encode(one).decode() for one in proof.path)]
    return "\n".join(lines).encode() + b"\n\n" + proof.checkpoint


def salted_row(salt: bytes, row: dict[str, object]) -> bytes:
    """The extra data of a row's proof: its salt and its fields."""
    return b'{"row":' + canonical(row) + b',"salt":"' + salt.hex().encode() + b'"}'


def write_pack(
    file: BinaryIO,
    *,
    checkpoint: Checkpoint,
    note: bytes,
    complete: range | None,
    rows: Iterable[tuple[int, bytes, dict[str, object]]],
    tiles: Tiles,
) -> None:
    """Write a pack of ``rows`` (index, salt, fields; by index) with the tiles that lead to ``checkpoint``.

    ``complete`` is the range of indexes that ``rows`` is; None for a selection. ``note`` is the signed checkpoint.
    """
    wanted = set(_right_edge(checkpoint.size))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        head = {"format": PACK_FORMAT, "range": [complete.start, complete.stop] if complete is not None else None}
        archive.writestr(_member("pack.json"), json.dumps(head) + "\n")
        archive.writestr(_member("checkpoint"), note)
        with archive.open(_member("rows.jsonl"), "w") as lines:
            for index, salt, row in rows:
                lines.write(b'{"index":%d,' % index + salted_row(salt, row)[1:] + b"\n")
                wanted.update(_above(index, checkpoint.size))
        for level, index in sorted(wanted):
            width = tile_width(level, index, checkpoint.size)
            tile = b"".join(read_tile(tiles, level, index, checkpoint.size))
            archive.writestr(_member(tile_path(level, index, width)), tile)


def _right_edge(size: int) -> Iterable[tuple[int, int]]:
    """The partial tiles of a tree."""
    return ((level, size >> 8 * (level + 1)) for level in range(8) if (size >> 8 * level) % TILE)


def _above(index: int, size: int) -> Iterable[tuple[int, int]]:
    """The tiles over a leaf, up to the first one that is partial."""
    for level in range(8):
        tile = index >> 8 * (level + 1)
        yield level, tile
        if tile_width(level, tile, size) < TILE:
            return


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info

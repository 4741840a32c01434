"""A small log in memory: rows, its signed checkpoint, packs and proofs, and packs whose members were changed."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.proofs import encode_proof, salted_row, write_pack
from audit.log.rows import log_row
from audit.log.signing import Cosigner, Signer, signed_checkpoint
from audit.log.tree import inclusion_proof
from audit.log.verifier import Checkpoint, LogProof, Tiles, canonical, commitment, root_of_tiles
from tests.support import log_reference as reference

SIGNER = Signer("log.example/org_a", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
WITNESS = Cosigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))

Members = dict[str, bytes]


def row_at(index: int, org: str = "org_a") -> dict[str, object]:
    """The fields of the row at ``index``."""
    return log_row(
        {
            "org_id": org,
            "ts": datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(seconds=index),
            "id": uuid.UUID(int=index + 1),
            "kind": "acl_denied",
            "ip": "10.0.0.1",
            "topic": f"plant/{index}/temp",
            "qos": 1,
            "retain": False,
            "count": 3,
            "details": {"tries": 1.5, "words": ["é", None, {"b": 1, "a": True}]},
        }
    )


@dataclass
class MemoryLog:
    """A log of ``size`` rows of one organization."""

    size: int
    org: str = "org_a"
    signer: Signer = SIGNER
    rows: list[dict[str, object]] = field(default_factory=list)
    tiles: Tiles = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [row_at(index, self.org) for index in range(self.size)]
        self.tiles = reference.tiles_of(
            [commitment(self.salt(index), canonical(row)) for index, row in enumerate(self.rows)]
        )

    def salt(self, index: int) -> bytes:
        """The salt of the row at ``index``; a fixed one, so that the log is the same every time."""
        return index.to_bytes(16, "big")

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        """The tree head at ``size``."""
        size = self.size if size is None else size
        return Checkpoint(self.signer.name, size, root_of_tiles(self.tiles, size))

    def note(self, size: int | None = None) -> bytes:
        """The signed and cosigned tree head at ``size``."""
        checkpoint = self.checkpoint(size)
        return signed_checkpoint(checkpoint, [self.signer]) + WITNESS.line(checkpoint.text(), at=1_800_000_000)

    def proof(self, index: int, size: int | None = None) -> bytes:
        """The ``.tlog-proof`` of the row at ``index``."""
        size = self.size if size is None else size
        path = tuple(inclusion_proof(self.tiles, index, size))
        extra = salted_row(self.salt(index), self.rows[index])
        return encode_proof(LogProof(index, path, self.note(size), extra))

    def pack(self, complete: range | None, indexes: list[int] | None = None, size: int | None = None) -> bytes:
        """A pack of a range of rows, or of the selection ``indexes``."""
        chosen = complete if complete is not None else indexes or []
        file = io.BytesIO()
        write_pack(
            file,
            checkpoint=self.checkpoint(size),
            note=self.note(size),
            complete=complete,
            rows=((index, self.salt(index), self.rows[index]) for index in chosen),
            tiles=self.tiles,
        )
        return file.getvalue()


def changed(pack: bytes, change: Callable[[Members], None]) -> bytes:
    """The pack with its members changed."""
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_rows(pack: bytes, change: Callable[[list[dict[str, object]]], None], *, renumber: bool = True) -> bytes:
    """The pack with its rows changed, and numbered again as a careful attacker would."""

    def edit(members: Members) -> None:
        lines = [json.loads(line) for line in members["rows.jsonl"].splitlines()]
        first = lines[0]["index"]
        change(lines)
        if renumber:
            lines = [{**line, "index": first + at} for at, line in enumerate(lines)]
        members["rows.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    return changed(pack, edit)


def put(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path

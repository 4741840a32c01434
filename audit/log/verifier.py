#!/usr/bin/env python3
"""Verify CloudSignal audit proofs offline. One file: the Python standard library and ``cryptography``, no network.

    python verify.py FILE --key VKEY [--key VKEY ...] [--witness VKEY ...]

FILE is a ``.tlog-proof`` of one row or a pack (``.zip``) of rows. VKEY is the log's verifier key, as the operator
published it: trust comes from this key alone, never from anything in FILE. Exit code 0: everything verified; 1: it
did not, and the message names the first row that was changed, dropped, added or moved; 2: wrong usage.

Formats: RFC 6962 s2.1 (Merkle tree) and C2SP signed-note, tlog-checkpoint, tlog-tiles, tlog-proof, tlog-cosignature/v1.
``docs/audit-log.md`` describes what is CloudSignal's own: the canonical bytes of a row, its commitment, and packs.
"""

# Over 400 lines: an auditor gets it as one file.

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SALT_BYTES = 16
TILE = 256
"""Hashes of a full tile."""
SIZE_MAX = 2**63 - 1
SIGNATURES_MAX = 64
"""Signature lines of a note; the specification asks for at least 16."""
FILE_BYTES_MAX = 1 << 20
"""Bytes of a proof, or of one small member of a pack."""
LINE_BYTES_MAX = 4 << 20
"""Bytes of one row in a pack."""
SHOWN_MAX = 64
"""Characters of a row's kind and id in a message."""
ED25519, COSIGNATURE = 0x01, 0x04
"""Signature types of signed-note: the log's own signature, and a witness's cosignature/v1."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile(r"— (\S+) ([A-Za-z0-9+/]+={0,2})")


class VerifyError(ValueError):
    """The input does not verify; the message says why, and which row."""


# --- Merkle tree hashing, RFC 6962 s2.1 -------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over ``hashes``, whose number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def fold(peaks: Sequence[bytes]) -> bytes:
    """The root of a tree from the roots of its perfect subtrees, largest first."""
    if not peaks:
        return hashlib.sha256(b"").digest()
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def root_of_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that ``path`` leads to from the leaf at ``index`` (RFC 9162 s2.1.3.2 in words, RFC 6962's proof).

    Raises :class:`VerifyError` when the path has the wrong length: a proof has exactly one form.
    """
    if not 0 <= index < size:
        raise VerifyError(f"index {index} is not in a tree of {size} leaves")
    node, last, root, rest = index, size - 1, leaf, list(path)
    while last:
        if node & 1:
            root = node_hash(_next(rest), root)
        elif node < last:
            root = node_hash(root, _next(rest))
        node, last = node >> 1, last >> 1
    if rest:
        raise VerifyError("the inclusion proof is too long")
    return root


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree of ``new`` leaves begins with the tree of ``old`` leaves (RFC 6962 s2.1.2)."""
    if not 0 <= old <= new:
        raise VerifyError(f"a tree of {new} leaves cannot continue one of {old}")
    if old in {0, new}:
        if path:
            raise VerifyError("the consistency proof is too long")
        if old_root != (new_root if old else fold(())):
            raise VerifyError(f"two different trees of {old} leaves")
    elif _consistent_roots(old, old_root, new, path) != (old_root, new_root):
        raise VerifyError(f"the tree of {new} leaves does not continue the tree of {old}")


def _consistent_roots(old: int, old_root: bytes, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof leads to, for ``0 < old < new``."""
    rest = list(path)
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # A perfect old tree is a node of the new one; its root is not repeated in the proof.
    old_found = new_found = _next(rest) if node else old_root
    while last:
        if node & 1:
            sibling = _next(rest)
            old_found, new_found = node_hash(sibling, old_found), node_hash(sibling, new_found)
        elif node < last:
            new_found = node_hash(new_found, _next(rest))
        node, last = node >> 1, last >> 1
    if rest:
        raise VerifyError("the consistency proof is too long")
    return old_found, new_found


def _next(rest: list[bytes]) -> bytes:
    if not rest:
        raise VerifyError("the proof is too short")
    return rest.pop(0)


# --- Rows: canonical bytes and commitment -----------------------------------------------------------------------------


def canonical(row: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a row: JSON with sorted names, no blanks, and without fields that are null or empty."""
    try:
        return _json({name: value for name, value in row.items() if value is not None and value != ""}).encode()
    except (UnicodeEncodeError, RecursionError):
        raise VerifyError("a row is nested too deeply, or has text that is not Unicode") from None


def commitment(salt: bytes, row: bytes) -> bytes:
    """The log entry of a row: SHA-256 over 16 random bytes and the row's canonical bytes. It reveals nothing."""
    return hashlib.sha256(salt + row).digest()


def _json(value: Any) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_json(str(name))}:{_json(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_json, value)) + "]"
    raise VerifyError(f"a {type(value).__name__} has no canonical form")


def _number(value: float | Decimal) -> str:
    """The exact decimal value, without exponent and trailing zeros: one form whatever a database made of it."""
    if isinstance(value, int):
        return str(value)
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    if not exact.is_finite() or abs(exact.adjusted()) > 400:
        raise VerifyError("a number of a row is out of range")
    text = format(exact, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"", "-0", "0"} else text


# --- Notes, keys and checkpoints --------------------------------------------------------------------------------------


def decode64(text: str, what: str) -> bytes:
    """Standard base64 in its one canonical form."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise VerifyError(f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise VerifyError(f"{what} is not canonical base64")
    return raw


def decode_hash(text: str, what: str) -> bytes:
    """A SHA-256 hash in base64."""
    raw = decode64(text, what)
    if len(raw) != 32:
        raise VerifyError(f"{what} is not a SHA-256 hash")
    return raw


def decode_number(text: str, what: str) -> int:
    """An ASCII decimal without leading zeros, below 2**63."""
    if not _NUMBER.fullmatch(text) or int(text) > SIZE_MAX:
        raise VerifyError(f"{what} is not a decimal number without leading zeros")
    return int(text)


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The four bytes that name a key: SHA-256(name || newline || signature type || public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class Key:
    """A verifier key: the log's (``ED25519``) or a witness's (``COSIGNATURE``)."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The key ID."""
        return key_id(self.name, self.kind, self.public)

    @property
    def vkey(self) -> str:
        """``name+hash+base64(type || public key)``."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (without the key ID) is one of ``text`` by this key."""
        if self.kind == COSIGNATURE:
            if len(signature) != 72 or signature[0] & 0x80:
                return False
            text = cosigned(int.from_bytes(signature[:8], "big"), text)
            signature = signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


def cosigned(timestamp: int, text: bytes) -> bytes:
    """The text that a cosignature/v1 signs: header line, time line in POSIX seconds, the whole note text."""
    return b"cosignature/v1\ntime %d\n" % timestamp + text


def fit_name(name: str) -> bool:
    """Whether ``name`` may name a key: not empty, no spaces, no plus, no control characters."""
    return bool(name) and "+" not in name and not any(one.isspace() or one < " " for one in name)


def parse_key(vkey: str, kind: int | None = None) -> Key:
    """Read a verifier key, of the signature type ``kind`` if one is wanted; raises :class:`VerifyError`."""
    name, _, rest = vkey.partition("+")
    digest, _, encoded = rest.partition("+")
    if not fit_name(name) or not re.fullmatch("[0-9a-f]{8}", digest) or not encoded:
        raise VerifyError("a verifier key is written NAME+HASH+KEY")
    raw = decode64(encoded, "the verifier key")
    if len(raw) != 33 or raw[0] not in {ED25519, COSIGNATURE}:
        raise VerifyError("the verifier key is not an Ed25519 key of type 1 (log) or 4 (witness)")
    key = Key(name, raw[0], raw[1:])
    if key.id.hex() != digest:
        raise VerifyError("the verifier key's hash does not match: it was not copied whole")
    if kind is not None and key.kind != kind:
        raise VerifyError(f"{name}: this is not the verifier key of {'a witness' if kind == COSIGNATURE else 'a log'}")
    return key


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note."""

    name: str
    key: bytes
    blob: bytes

    @property
    def timestamp(self) -> int:
        """The POSIX seconds of a cosignature/v1."""
        return int.from_bytes(self.blob[:8], "big")


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note whose signatures are not checked yet."""

    text: bytes
    signatures: tuple[Signature, ...]


def parse_note(raw: bytes) -> Note:
    """Read a signed note; raises :class:`VerifyError` for anything after or beside its one form."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise VerifyError("the note is not UTF-8") from None
    if any(one < " " and one != "\n" for one in text):
        raise VerifyError("the note contains control characters")
    body, blank, tail = text.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise VerifyError("the note has no signature lines, or something follows them")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise VerifyError(f"the note has more than {SIGNATURES_MAX} signatures")
    return Note((body + "\n").encode(), tuple(_signature(line) for line in lines))


def parse_signatures(raw: bytes) -> tuple[Signature, ...]:
    """Read signature lines alone, as a witness answers them."""
    return parse_note(b"-\n\n" + raw).signatures


def _signature(line: str) -> Signature:
    found = _SIGNATURE_LINE.fullmatch(line)
    if found is None or not fit_name(found[1]):
        raise VerifyError("a line after the note is not a signature")
    raw = decode64(found[2], "a signature")
    if len(raw) < 5:
        raise VerifyError("a signature is too short")
    return Signature(found[1], raw[:4], raw[4:])


def signers(note: Note, keys: Sequence[Key]) -> dict[str, Signature]:
    """The verified signatures of ``note`` by the vkey of their key. Lines of unknown keys are ignored.

    Raises :class:`VerifyError` when a line that names a known key does not verify.
    """
    known = {(key.name, key.id): key for key in keys}
    found = {}
    for line in note.signatures:
        key = known.get((line.name, line.key))
        if key is None:
            continue
        if not key.verifies(note.text, line.blob):
            raise VerifyError(f"the signature of {key.name} does not verify")
        found[key.vkey] = line
    return found


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: origin, size and root. ``extensions`` are the lines after them, of which nothing is proven."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> bytes:
        """The text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return ("\n".join(lines) + "\n").encode()


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read the text of a checkpoint (without signatures); raises :class:`VerifyError`."""
    lines = text.decode().split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise VerifyError("a checkpoint is at least three lines, none of them empty")
    size = decode_number(lines[1], "the tree size")
    root = decode_hash(lines[2], "the root hash")
    if size == 0 and root != fold(()):
        raise VerifyError("an empty tree has another root")
    return Checkpoint(lines[0], size, root, tuple(lines[3:]))


def open_checkpoint(raw: bytes, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> Checkpoint:
    """The checkpoint in a note that is signed by one of ``keys`` for its own origin, and by all ``witnesses``."""
    note = parse_note(raw)
    found = signers(note, (*keys, *witnesses))
    checkpoint = parse_checkpoint(note.text)
    logs = {key.vkey for key in keys if key.kind == ED25519 and key.name == checkpoint.origin}
    if not logs & set(found):
        raise VerifyError(f"the checkpoint of {checkpoint.origin} is not signed by a key that you trust")
    for witness in witnesses:
        if witness.vkey not in found:
            raise VerifyError(f"the checkpoint is not cosigned by the witness {witness.name}")
    return checkpoint


# --- Proofs of one row, C2SP tlog-proof -------------------------------------------------------------------------------

PROOF_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class LogProof:
    """A ``.tlog-proof``. ``extra`` is not authenticated by itself: CloudSignal puts the salt and the row there."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def parse_proof(raw: bytes) -> LogProof:
    """Read a ``.tlog-proof``; raises :class:`VerifyError`."""
    head, blank, checkpoint = raw.partition(b"\n\n")
    try:
        lines = head.decode().split("\n")
    except UnicodeDecodeError:
        raise VerifyError("the proof is not UTF-8") from None
    if not blank or lines.pop(0) != PROOF_HEADER:
        raise VerifyError(f"the file does not begin with {PROOF_HEADER}")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode64(lines.pop(0)[6:], "the extra data")
    if not lines or not lines[0].startswith("index "):
        raise VerifyError("the proof has no index line")
    index = decode_number(lines.pop(0)[6:], "the index")
    if len(lines) > 63:
        raise VerifyError("the inclusion proof is too long")
    return LogProof(index, tuple(decode_hash(line, "a line of the proof") for line in lines), checkpoint, extra)


def check_proof(proof: LogProof, entry: bytes, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> Checkpoint:
    """Check that ``entry`` stands at the proof's index under a trusted checkpoint; returns that checkpoint."""
    checkpoint = open_checkpoint(proof.checkpoint, keys, witnesses)
    if root_of_inclusion(proof.index, checkpoint.size, leaf_hash(entry), proof.path) != checkpoint.root:
        raise VerifyError(f"row {proof.index} was changed, or the proof is not of this row")
    return checkpoint


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON without a name that occurs twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise VerifyError("a name occurs twice in a JSON object")
    return found


def read_json(raw: bytes, what: str) -> dict[str, Any]:
    """One JSON object with exact numbers; raises :class:`VerifyError`."""
    try:
        found = json.loads(raw, object_pairs_hook=unique_names, parse_float=Decimal, parse_constant=_no_constant)
    except VerifyError:
        raise
    except (ValueError, ArithmeticError, RecursionError):  # ArithmeticError: an exponent that no Decimal holds
        raise VerifyError(f"{what} is not JSON") from None
    if not isinstance(found, dict):
        raise VerifyError(f"{what} is not a JSON object")
    return found


def _no_constant(name: str) -> float:
    raise VerifyError(f"{name} is not a number of JSON")


@dataclass(frozen=True, slots=True)
class SaltedRow:
    """A row with the salt of its commitment."""

    row: dict[str, Any]
    salt: bytes

    @property
    def entry(self) -> bytes:
        """The log entry."""
        return commitment(self.salt, canonical(self.row))

    def __str__(self) -> str:
        return f"{_shown(self.row.get('kind'))} {_shown(self.row.get('id'))}"


def _shown(value: object) -> str:
    """A field of a row that nobody has verified yet: a bounded text that steers no terminal and ends no sentence."""
    return re.sub(r"[^A-Za-z0-9._-]", "?", value[:SHOWN_MAX]) if isinstance(value, str) else "?"


def salted(found: dict[str, Any]) -> SaltedRow:
    """``{"salt": HEX, "row": {...}}`` and nothing else; raises :class:`VerifyError`."""
    if set(found) != {"salt", "row"} or not isinstance(found["row"], dict) or not isinstance(found["salt"], str):
        raise VerifyError("a row is written with salt and row, and nothing else")
    if not re.fullmatch("[0-9a-f]{32}", found["salt"]):
        raise VerifyError(f"a salt is {SALT_BYTES} bytes in hex")
    return SaltedRow(found["row"], bytes.fromhex(found["salt"]))


def verify_proof(raw: bytes, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> tuple[SaltedRow, int, Checkpoint]:
    """Verify the ``.tlog-proof`` of a row; returns the row, its index and the checkpoint."""
    proof = parse_proof(raw)
    if not proof.extra:
        raise VerifyError("the proof carries no row")
    row = salted(read_json(proof.extra, "the row of the proof"))
    return row, proof.index, check_proof(proof, row.entry, keys, witnesses)


# --- Tiles, C2SP tlog-tiles -------------------------------------------------------------------------------------------

Tiles = Callable[[int, int, int], bytes]
"""Reads the tile at (level, index, width)."""


def tile_path(level: int, index: int, width: int = TILE) -> str:
    """``tile/LEVEL/INDEX`` with the index in groups of three digits, and ``.p/WIDTH`` for a partial tile."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/{'/'.join(groups)}" + (f".p/{width}" if width < TILE else "")


def tile_width(level: int, index: int, size: int) -> int:
    """The number of hashes of a tile in a tree of ``size`` leaves; 0 when there is no such tile."""
    return max(0, min(TILE, (size >> 8 * level) - index * TILE))


def split(tile: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [tile[at : at + 32] for at in range(0, len(tile), 32)]


def read_tile(tiles: Tiles, level: int, index: int, size: int) -> list[bytes]:
    """The hashes of a tile in a tree of ``size`` leaves; raises :class:`VerifyError` when it has another length."""
    width = tile_width(level, index, size)
    tile = tiles(level, index, width)
    if len(tile) != 32 * width:
        raise VerifyError(f"{tile_path(level, index, width)} is not {width} hashes long")
    return split(tile)


def peaks_of(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees over up to 256 hashes, largest first."""
    found, at = [], 0
    for bit in range(8, -1, -1):
        if len(hashes) & 1 << bit:
            found.append(perfect_root(hashes[at : at + (1 << bit)]))
            at += 1 << bit
    return found


def root_of_tiles(tiles: Tiles, size: int) -> bytes:
    """The root of the tree of ``size`` leaves, from the partial tiles at its right edge."""
    peaks: list[bytes] = []
    for level in range(7, -1, -1):
        index = size >> 8 * (level + 1)
        if tile_width(level, index, size):
            peaks += peaks_of(read_tile(tiles, level, index, size))
    return fold(peaks)


class CheckedTiles:
    """Reads leaf tiles and checks each against a checkpoint, over the tiles above it."""

    def __init__(self, tiles: Tiles, checkpoint: Checkpoint) -> None:
        self._tiles = tiles
        self._size = checkpoint.size
        self._held: dict[int, tuple[int, list[bytes]]] = {}
        if root_of_tiles(tiles, checkpoint.size) != checkpoint.root:
            raise VerifyError(f"the tiles do not lead to the root of the checkpoint of {checkpoint.size} rows")

    def leaf(self, index: int) -> bytes:
        """The leaf hash at ``index``."""
        return self._hashes(0, index // TILE)[index % TILE]

    def _hashes(self, level: int, index: int) -> list[bytes]:
        held = self._held.get(level)
        if held is None or held[0] != index:
            hashes = read_tile(self._tiles, level, index, self._size)
            # The partial tile of a level was checked with the root; a full one must lead to its place above.
            if len(hashes) == TILE and self._hashes(level + 1, index // TILE)[index % TILE] != perfect_root(hashes):
                raise VerifyError(f"{tile_path(level, index)} does not belong to the tree of the checkpoint")
            held = self._held[level] = (index, hashes)
        return held[1]


# --- Packs: rows with the tiles that prove them -----------------------------------------------------------------------

PACK_FORMAT = "cloudsignal-audit-pack-1"
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError, OverflowError,
)  # fmt: skip
"""What ``zipfile`` raises for archives that are none: by far not only its own error."""


class Pack:
    """An archive of ``pack.json``, ``checkpoint``, ``rows.jsonl`` and tiles. Other members are not looked at."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            names = self._zip.namelist()
            with path.open("rb") as file:
                begins = file.read(4)
                file.seek(-22, 2)
                ends = file.read(4)
        except _DAMAGES:
            raise VerifyError(f"{path} is not a pack") from None
        if len(set(names)) != len(names) or (begins, ends) != (b"PK\x03\x04", b"PK\x05\x06"):
            raise VerifyError("the archive has a name twice, or something beside its members")
        self.head = read_json(self._member("pack.json"), "pack.json")
        if self.head.get("format") != PACK_FORMAT:
            raise VerifyError(f"the pack is not of the format {PACK_FORMAT}; a newer verifier may read it")
        self.checkpoint = self._member("checkpoint")

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        """A member, stored or deflated: the other methods of compression need more memory, and nobody writes them."""
        info = self._zip.NameToInfo.get(name)
        if info is not None and info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise VerifyError(f"{name} is neither stored nor deflated")
        try:
            with self._zip.open(name) as file:
                yield file
        except VerifyError:
            raise
        except (KeyError, *_DAMAGES):
            raise VerifyError(f"{name} is missing from the pack, or damaged") from None

    def _member(self, name: str, limit: int = FILE_BYTES_MAX) -> bytes:
        with self._open(name) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise VerifyError(f"{name} is longer than {limit} bytes")
        return raw

    def range(self, size: int) -> range | None:
        """The indexes that the pack says it holds completely; None for a selection of rows."""
        found = self.head.get("range")
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != 2 or not all(type(one) is int for one in found):
            raise VerifyError("the range of the pack is not two numbers")
        if not 0 <= found[0] <= found[1] <= size:
            raise VerifyError(f"the pack speaks of rows {found[0]} to {found[1]}; the checkpoint has {size}")
        return range(found[0], found[1])

    def tile(self, level: int, index: int, width: int) -> bytes:
        """A tile of the pack."""
        return self._member(tile_path(level, index, width), 32 * TILE)

    def rows(self) -> Iterator[tuple[int, SaltedRow]]:
        """Each row with the index that its line says."""
        with self._open("rows.jsonl") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX or not line.endswith(b"\n"):
                    raise VerifyError(f"line {number} of rows.jsonl is too long or cut")
                found = read_json(line, f"line {number} of rows.jsonl")
                index = found.pop("index", None)
                if type(index) is not int:
                    raise VerifyError(f"line {number} of rows.jsonl has no index")
                yield index, salted(found)


@dataclass(frozen=True, slots=True)
class Verified:
    """The content of a verified pack."""

    rows: int
    complete: range | None
    checkpoint: Checkpoint


def verify_pack(path: Path, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> Verified:
    """Verify every row of a pack; raises :class:`VerifyError` that names the first wrong one."""
    pack = Pack(path)
    checkpoint = open_checkpoint(pack.checkpoint, keys, witnesses)
    tiles = CheckedTiles(pack.tile, checkpoint)
    complete = pack.range(checkpoint.size)
    count = 0
    if complete is None:
        before = -1
        for index, row in pack.rows():
            if not before < index < checkpoint.size:
                raise VerifyError(f"row {index} ({row}) was added or moved: it does not follow row {before}")
            if leaf_hash(row.entry) != tiles.leaf(index):
                raise VerifyError(f"row {index} ({row}) was changed, or is not in the log")
            before, count = index, count + 1
        return Verified(count, None, checkpoint)
    for index, row in pack.rows():
        wanted = complete.start + count
        if wanted >= complete.stop or leaf_hash(row.entry) != tiles.leaf(wanted):
            raise VerifyError(_what_happened(pack, tiles, complete))
        if index != wanted:
            raise VerifyError(f"row {wanted} ({row}) was moved: its line says {index}")
        count += 1
    if count < len(complete):
        raise VerifyError(_what_happened(pack, tiles, complete))
    return Verified(count, complete, checkpoint)


def _what_happened(pack: Pack, tiles: CheckedTiles, complete: range) -> str:
    """Name the first row that differs. A second pass, which holds the hash of every leaf and of twice as many rows."""
    places = {tiles.leaf(index): index for index in complete}
    rows = [(leaf_hash(row.entry), str(row)) for _, row in islice(pack.rows(), 2 * len(complete) + 1)]
    there = {found for found, _ in rows}
    for at, (found, row) in enumerate(rows):
        wanted = complete.start + at
        if wanted >= complete.stop:
            return f"a row ({row}) was added after row {complete.stop - 1}"
        if found == tiles.leaf(wanted):
            continue
        place = places.get(found)
        missing = tiles.leaf(wanted) not in there
        if place is None:
            return f"row {wanted} ({row}) was changed" if missing else f"a row ({row}) was added before row {wanted}"
        if place < wanted:
            return f"row {place} ({row}) was added a second time, before row {wanted}"
        return f"row {wanted} was dropped" if missing else f"row {place} ({row}) was moved to {wanted}"
    return f"row {complete.start + len(rows)} was dropped"


# --- The command ------------------------------------------------------------------------------------------------------


def verify_file(path: Path, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> str:
    """Verify a proof or a pack and say in a sentence what it proves; raises :class:`VerifyError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise VerifyError(f"{path} cannot be read: {error.strerror}") from None
    if not raw.startswith(b"PK"):
        if len(raw) > FILE_BYTES_MAX:
            raise VerifyError(f"{path} is longer than {FILE_BYTES_MAX} bytes, so it is no proof")
        proof = parse_proof(raw)
        if proof.extra and not proof.extra.startswith(b"{"):
            return _checkpoint_proof(proof, keys, witnesses)
        row, index, checkpoint = verify_proof(raw, keys, witnesses)
        return f"verified: row {index} of {checkpoint.origin} ({row}), in its tree of {checkpoint.size} rows"
    found = verify_pack(path, keys, witnesses)
    if found.complete is None:
        return (
            f"verified: {found.rows} rows of {found.checkpoint.origin}, in its tree of {found.checkpoint.size} rows; "
            "the pack is a selection, so nothing is said of rows that are not in it"
        )
    return (
        f"verified: rows {found.complete.start} to {found.complete.stop} (exclusive) of {found.checkpoint.origin}, "
        f"complete and in order, in its tree of {found.checkpoint.size} rows"
    )


def _checkpoint_proof(proof: LogProof, keys: Sequence[Key], witnesses: Sequence[Key]) -> str:
    """Verify that a checkpoint is in the platform's log of checkpoints, and say so."""
    inner = parse_checkpoint(parse_note(proof.extra).text)
    outer = check_proof(proof, hashlib.sha256(inner.text()).digest(), keys, witnesses)
    seen = f", cosigned by {', '.join(key.name for key in witnesses)}" if witnesses else ""
    return f"verified: the checkpoint of {inner.size} rows of {inner.origin} is in {outer.origin}{seen}"


def _plain(text: str) -> str:
    """Names in a file are others' text: what would steer a terminal is written out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Verify a .tlog-proof or a pack of audit rows. Works offline.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", action="append", required=True, metavar="VKEY", help="the log's verifier key")
    parser.add_argument("--witness", action="append", default=[], metavar="VKEY", help="a witness that must cosign")
    asked = parser.parse_args(arguments)
    try:
        keys = [parse_key(one, ED25519) for one in asked.key]
        witnesses = [parse_key(one, COSIGNATURE) for one in asked.witness]
    except VerifyError as error:
        parser.error(_plain(str(error)))
    try:
        print(_plain(verify_file(asked.file, keys, witnesses)))
    except VerifyError as error:
        print(_plain(f"NOT verified: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The requests of a log to a witness, and what a witness answers (C2SP tlog-witness)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from audit.log.verifier import (
    COSIGNATURE,
    Checkpoint,
    Key,
    Note,
    VerifyError,
    check_consistency,
    decode_hash,
    decode_number,
    fold,
    parse_checkpoint,
    parse_key,
    parse_note,
    signers,
)

PROOF_LINES_MAX = 63
REQUEST_BYTES_MAX = 64 * 1024
"""Bytes of a request or an answer; a checkpoint with 64 signatures and a proof of 63 hashes is far below."""
SIZE_TYPE = "text/x.tlog.size"


class WitnessRefusal(Exception):  # noqa: N818 - what a witness says, with the status it says it with
    """A witness does not cosign. ``body`` and ``content_type`` are those of the answer."""

    def __init__(self, status: int, body: str, content_type: str = "text/plain; charset=utf-8") -> None:
        super().__init__(f"{status}: {body.strip()}")
        self.status = status
        self.body = body
        self.content_type = content_type


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of ``POST /add-checkpoint``: a signed checkpoint, and its consistency with an older size."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The bytes of the request."""
        lines = [f"old {self.old}", *(base64.b64encode(one).decode() for one in self.proof)]
        return "\n".join(lines).encode() + b"\n\n" + self.note


@dataclass(frozen=True, slots=True)
class Accepted:
    """A checkpoint that a witness may cosign, once it has stored it as the latest of its origin."""

    checkpoint: Checkpoint
    text: bytes


def parse_request(raw: bytes) -> tuple[AddCheckpoint, Note, Checkpoint]:
    """Read a request; raises :class:`WitnessRefusal` with 400."""
    try:
        request = _request(raw)
        note = parse_note(request.note)
        return request, note, parse_checkpoint(note.text)
    except (VerifyError, UnicodeDecodeError) as error:
        raise WitnessRefusal(400, f"{error}\n") from None


def _request(raw: bytes) -> AddCheckpoint:
    head, blank, note = raw.partition(b"\n\n")
    lines = head.decode("ascii").split("\n")
    if len(raw) > REQUEST_BYTES_MAX:
        raise VerifyError(f"the request is longer than {REQUEST_BYTES_MAX} bytes")
    if not blank or not lines[0].startswith("old "):
        raise VerifyError("the request does not begin with an old size line")
    if len(lines) > PROOF_LINES_MAX + 1:
        raise VerifyError(f"the request has more than {PROOF_LINES_MAX} proof lines")
    proof = tuple(decode_hash(line, "a proof line") for line in lines[1:])
    return AddCheckpoint(decode_number(lines[0][4:], "the old size"), proof, note)


def judge(
    request: AddCheckpoint, note: Note, checkpoint: Checkpoint, keys: Sequence[Key], latest: tuple[int, bytes] | None
) -> Accepted:
    """Whether a witness that saw ``latest`` (size, root) of this origin may cosign; raises :class:`WitnessRefusal`.

    ``keys`` are those it trusts for the origin; none means the origin is unknown.
    """
    if not keys:
        raise WitnessRefusal(404, "this witness does not know the origin\n")
    try:
        trusted = signers(note, keys)
    except VerifyError as error:
        raise WitnessRefusal(403, f"{error}\n") from None
    if not trusted:
        raise WitnessRefusal(403, "no signature of a key that this witness trusts for the origin\n")
    if request.old > checkpoint.size:
        raise WitnessRefusal(400, "the old size is larger than the checkpoint\n")
    size, root = latest or (0, fold(()))
    if request.old != size:
        raise WitnessRefusal(409, f"{size}\n", SIZE_TYPE)
    if checkpoint.size == size and checkpoint.root != root:
        raise WitnessRefusal(409, f"{size}\n", SIZE_TYPE)
    try:
        check_consistency(size, root, checkpoint.size, checkpoint.root, request.proof)
    except VerifyError as error:
        raise WitnessRefusal(422, f"{error}\n") from None
    return Accepted(checkpoint, note.text)


def parse_witnesses(text: str) -> list[tuple[str, Key]]:
    """A list of witnesses, ``URL VKEY`` a line; empty lines and those with ``#`` are skipped."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        url, _, vkey = line.strip().partition(" ")
        try:
            found.append((url, parse_key(vkey.strip(), COSIGNATURE)))
        except VerifyError as error:
            raise VerifyError(f"line {number}: {error}") from None
    return found

"""Answers of a witness: each status of C2SP tlog-witness, and requests that are not requests."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.signing import Signer, signed_checkpoint
from audit.log.tree import consistency_proof
from audit.log.verifier import Checkpoint
from audit.log.witness import SIZE_TYPE, Accepted, AddCheckpoint, WitnessRefusal, judge, parse_request
from tests.support import log_reference as reference
from tests.support.log_reference import EXAMPLE

ENTRIES = [b"%d" % index for index in range(40)]
LOG = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
OTHER = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"\x03" * 32))


def ask(
    size: int, old: int, *, entries: list[bytes] = ENTRIES, signer: Signer = LOG, proof: tuple[bytes, ...] | None = None
) -> bytes:
    """A request for a checkpoint of ``size`` leaves after ``old``."""
    if proof is None:
        proof = tuple(consistency_proof(reference.tiles_of(entries), old, size)) if old <= size else ()
    note = signed_checkpoint(Checkpoint("log.example/one", size, reference.root(entries[:size])), [signer])
    return AddCheckpoint(old, proof, note).encode()


def answer(raw: bytes, latest: int | None, *, known: bool = True) -> Accepted:
    """The answer of a witness that saw ``latest`` leaves."""
    return judge(
        *parse_request(raw),
        [LOG.key] if known else [],
        None if latest is None else (latest, reference.root(ENTRIES[:latest])),
    )


def test_the_request_of_the_specification_is_read_and_written_alike() -> None:
    request, _, checkpoint = parse_request(EXAMPLE.encode())
    assert (request.old, len(request.proof)) == (20_852_014, 4)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert request.encode() == EXAMPLE.encode()


@pytest.mark.parametrize(("size", "old"), [(1, 0), (40, 0), (33, 32), (40, 7), (12, 12), (0, 0)])
def test_a_tree_that_continues_is_accepted(size: int, old: int) -> None:
    assert answer(ask(size, old), old or None).checkpoint.size == size


@pytest.mark.parametrize(
    ("raw", "latest", "status"),
    [
        (ask(9, 4, signer=OTHER), 4, 403),
        (ask(4, 9), 9, 400),
        (ask(9, 4), 5, 409),
        (ask(9, 0), 5, 409),
        (ask(9, 4), None, 409),
        (ask(9, 4, proof=()), 4, 422),
        (ask(9, 0, proof=(b"\0" * 32,)), None, 422),
        (ask(9, 9, proof=(b"\0" * 32,)), 9, 422),
        (ask(9, 4, entries=[b"fork", *ENTRIES[1:]]), 4, 422),
        (ask(9, 9, entries=[b"fork", *ENTRIES[1:]]), 9, 409),
    ],
)
def test_each_refusal_has_the_status_of_the_specification(raw: bytes, latest: int | None, status: int) -> None:
    with pytest.raises(WitnessRefusal) as refused:
        answer(raw, latest)
    assert refused.value.status == status
    if status == 409:
        assert (refused.value.body, refused.value.content_type) == (f"{latest or 0}\n", SIZE_TYPE)


def test_an_unknown_origin_is_not_found() -> None:
    with pytest.raises(WitnessRefusal) as refused:
        answer(ask(9, 0), None, known=False)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n",
        EXAMPLE.replace("old 2", "old 02").encode(),
        EXAMPLE.replace("old ", "size ").encode(),
        EXAMPLE.replace("PlRN", "!!!!").encode(),
        EXAMPLE.replace("PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n", "AAAA\n" * 1).encode(),
        EXAMPLE.replace("PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n", f"{'A' * 43}=\n" * 61).encode(),
        EXAMPLE.encode() + b"more\n",
        EXAMPLE.encode() + b"\n",
        EXAMPLE.replace("20852163", "0").encode(),
        EXAMPLE.encode() + b"x" * 70_000,
    ],
)
def test_what_is_not_a_request_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(WitnessRefusal) as refused:
        parse_request(raw)
    assert refused.value.status == 400

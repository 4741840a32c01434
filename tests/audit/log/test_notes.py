"""Signed notes, keys, checkpoints and cosignatures: published vectors, and what is refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.signing import Cosigner, Signer, signed_checkpoint
from audit.log.verifier import (
    COSIGNATURE,
    Checkpoint,
    VerifyError,
    cosigned,
    open_checkpoint,
    parse_checkpoint,
    parse_key,
    parse_note,
    parse_signatures,
    signers,
)

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
"""Keys and signatures of the tests of golang.org/x/mod/sumdb/note."""

ROOT = bytes(range(32))
LOG = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
WITNESS = Cosigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
CHECKPOINT = Checkpoint("log.example/one", 7, ROOT)


def test_the_published_notes_verify_with_one_key_and_with_two() -> None:
    note = parse_note(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode())
    assert note.text.decode() == TEXT
    assert set(signers(note, [parse_key(PETER)])) == {PETER}
    assert set(signers(note, [parse_key(PETER), parse_key(ENOCH)])) == {PETER, ENOCH}
    assert signers(note, []) == {}


def test_signing_gives_the_published_signature_and_key() -> None:
    seed = base64.b64decode(PETER_SEED)[1:]
    signer = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))
    assert signer.key.vkey == PETER
    assert signer.line(TEXT.encode()).decode() == PETER_LINE


def test_a_published_witness_key_and_the_time_of_a_published_cosignature() -> None:
    assert parse_key("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2").kind == COSIGNATURE
    line = "ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA=="
    assert parse_signatures(f"— w {line}\n".encode())[0].timestamp == 1_727_964_367


def test_a_cosignature_signs_the_message_of_the_specification() -> None:
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosigned(1_679_315_147, text) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_no_part_of_a_key_and_no_changed_character_is_a_key() -> None:
    for start in range(len(PETER)):
        for end in range(start + 1, len(PETER) + 1):
            if (start, end) != (0, len(PETER)):
                with pytest.raises(VerifyError):
                    parse_key(PETER[start:end])
    for at, one in enumerate(PETER):
        with pytest.raises(VerifyError):
            parse_key(PETER[:at] + chr(ord(one) + 1) + PETER[at + 1 :])
    for wrong in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        with pytest.raises(VerifyError):
            parse_key(wrong)


@pytest.mark.parametrize(
    "raw",
    [
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n{PETER_LINE[:-1]}",
        f"\x01{TEXT}\n{PETER_LINE}",
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Bad Name')}",
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Bad+Name')}",
        f"{TEXT}\n{PETER_LINE}Unexpected line.\n",
        f"{TEXT}\n{PETER_LINE}\n",
        f"{TEXT}\n{PETER_LINE * 65}",
        f"{TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}",
    ],
)
def test_what_is_not_exactly_a_note_is_refused(raw: str) -> None:
    with pytest.raises(VerifyError):
        parse_note(raw.encode())
    with pytest.raises(VerifyError):
        parse_note(b"\xff" + raw.encode())


def test_a_known_key_with_a_wrong_signature_refuses_the_note_even_beside_a_right_one() -> None:
    wrong = PETER_LINE.replace("x08go/Z", "x08go/Y")
    for lines in (wrong, wrong + ENOCH_LINE, ENOCH_LINE + PETER_LINE + wrong):
        with pytest.raises(VerifyError, match="of PeterNeumann does not verify"):
            signers(parse_note(f"{TEXT}\n{lines}".encode()), [parse_key(PETER), parse_key(ENOCH)])


def test_lines_of_unknown_keys_are_ignored_also_under_a_known_name() -> None:
    other = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"\x09" * 32))
    raw = signed_checkpoint(CHECKPOINT, [other, LOG, other])
    assert open_checkpoint(raw, [LOG.key]) == CHECKPOINT
    assert open_checkpoint(raw + WITNESS.line(CHECKPOINT.text(), at=1), [LOG.key]) == CHECKPOINT


def test_a_checkpoint_needs_the_log_s_signature_and_every_witness_asked_for() -> None:
    raw = signed_checkpoint(CHECKPOINT, [LOG])
    text = CHECKPOINT.text()
    assert open_checkpoint(raw + WITNESS.line(text, at=1_700_000_000), [LOG.key], [WITNESS.key]) == CHECKPOINT
    with pytest.raises(VerifyError, match=r"not cosigned by the witness witness\.example/w1"):
        open_checkpoint(raw, [LOG.key], [WITNESS.key])
    with pytest.raises(VerifyError, match="not signed by a key that you trust"):
        open_checkpoint(text + b"\n" + WITNESS.line(text, at=1), [LOG.key, WITNESS.key])
    elsewhere = Signer("log.example/two", LOG.private)
    with pytest.raises(VerifyError, match="not signed by a key that you trust"):
        open_checkpoint(signed_checkpoint(CHECKPOINT, [elsewhere]), [elsewhere.key])


def test_any_byte_of_a_checkpoint_changed_is_refused() -> None:
    raw = signed_checkpoint(CHECKPOINT, [LOG]) + WITNESS.line(CHECKPOINT.text(), at=1_700_000_000)
    for at in range(len(raw)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytes([*raw[:at], raw[at] ^ flip, *raw[at + 1 :]])
            with pytest.raises(VerifyError):
                open_checkpoint(changed, [LOG.key], [WITNESS.key])


@pytest.mark.parametrize(
    "lines",
    [
        ["log.example/one", "7"],
        ["", "7", base64.b64encode(ROOT).decode()],
        ["log.example/one", "07", base64.b64encode(ROOT).decode()],
        ["log.example/one", "+7", base64.b64encode(ROOT).decode()],
        ["log.example/one", "-1", base64.b64encode(ROOT).decode()],
        ["log.example/one", str(2**63), base64.b64encode(ROOT).decode()],
        ["log.example/one", "٧", base64.b64encode(ROOT).decode()],
        ["log.example/one", "7", base64.b64encode(ROOT[:31]).decode()],
        ["log.example/one", "7", base64.b64encode(ROOT).decode() + " "],
        ["log.example/one", "0", base64.b64encode(ROOT).decode()],
        ["log.example/one", "7", base64.b64encode(ROOT).decode(), "", "x"],
    ],
)
def test_what_is_not_exactly_a_checkpoint_is_refused(lines: list[str]) -> None:
    with pytest.raises(VerifyError):
        parse_checkpoint(("\n".join(lines) + "\n").encode())


def test_extension_lines_are_kept_and_signed() -> None:
    found = Checkpoint("log.example/one", 7, ROOT, ("more",))
    assert parse_checkpoint(found.text()) == found
    raw = signed_checkpoint(found, [LOG])
    assert open_checkpoint(raw, [LOG.key]) == found
    with pytest.raises(VerifyError):
        open_checkpoint(raw.replace(b"more", b"less"), [LOG.key])

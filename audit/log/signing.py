"""Sign notes and checkpoints, and cosign checkpoints as a witness (C2SP signed-note, tlog-cosignature/v1)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.verifier import COSIGNATURE, ED25519, Checkpoint, Key, cosigned, fit_name


@dataclass(frozen=True, slots=True)
class Signer:
    """A named private key of the log."""

    name: str
    private: Ed25519PrivateKey

    def __post_init__(self) -> None:
        if not fit_name(self.name):
            raise ValueError(f"{self.name!r} cannot name a key: it has a space or a plus, or is empty")

    @property
    def key(self) -> Key:
        """The verifier key."""
        return Key(self.name, ED25519, self.private.public_key().public_bytes_raw())

    def line(self, text: bytes) -> bytes:
        """The signature line for a note's ``text``."""
        return _line(self.key, self.private.sign(text))


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A named private key of a witness. One key serves one name: the cosigned message does not contain it."""

    name: str
    private: Ed25519PrivateKey

    @property
    def key(self) -> Key:
        """The verifier key."""
        return Key(self.name, COSIGNATURE, self.private.public_key().public_bytes_raw())

    def line(self, text: bytes, *, at: int) -> bytes:
        """The cosignature line for a checkpoint's ``text``, as of ``at`` (POSIX seconds)."""
        return _line(self.key, at.to_bytes(8, "big") + self.private.sign(cosigned(at, text)))


def signed_checkpoint(checkpoint: Checkpoint, signers: Iterable[Signer]) -> bytes:
    """The checkpoint as a note with one signature line for each of ``signers``."""
    text = checkpoint.text()
    return text + b"\n" + b"".join(signer.line(text) for signer in signers)


def _line(key: Key, signature: bytes) -> bytes:
    return f"— {key.name} {base64.b64encode(key.id + signature).decode()}\n".encode()

"""The signed envelope of bundles, lists of heads and orders: Ed25519 over context and record.

The context says which kind of record it is, so that a signature under one kind is none under another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloudsignal.wire.codec import WireError, decode, encode


@dataclass(frozen=True, slots=True)
class Signed:
    """The envelope of a signed record on Redis."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """Signs and opens records of one kind."""

    context: bytes
    complaint: str
    """The error about a document whose signature does not verify."""
    hashed: bool = False
    """Whether the SHA-256 of the record is signed: of what may be a megabyte, so that it need not be read twice."""

    def sign(self, record: object, key: Ed25519PrivateKey) -> bytes:
        """Encode and sign ``record``; returns the envelope's bytes."""
        payload = encode(record)
        return encode(Signed(payload, key.sign(self._signed(payload))))

    def open(self, data: bytes, key: Ed25519PublicKey) -> bytes:
        """The record's bytes; raises :class:`WireError` when the envelope is malformed or signed by another key."""
        envelope = decode(data, Signed)
        try:
            key.verify(envelope.signature, self._signed(envelope.payload))
        except InvalidSignature as error:
            raise WireError(self.complaint) from error
        return envelope.payload

    def _signed(self, payload: bytes) -> bytes:
        return self.context + (hashlib.sha256(payload).digest() if self.hashed else payload)

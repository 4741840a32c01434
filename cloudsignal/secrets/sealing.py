"""Small secrets at rest: AES-256-GCM under keys derived from the pepper, which stands in no database.

What is sealed is bound to a purpose and to a context (whose it is), so that a sealed value copied to another row opens
for nobody.
"""

from __future__ import annotations

import os
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloudsignal.secrets.keyring import pepper

NONCE = 12


class SealError(Exception):
    """A sealed value cannot be opened: another key, another context, or a changed value."""


def seal(purpose: str, context: str, plain: bytes) -> bytes:
    """``plain`` encrypted and authenticated: a 12-byte nonce, the ciphertext and its tag."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(derive(purpose)).encrypt(nonce, plain, context.encode())


def unseal(purpose: str, context: str, sealed: bytes) -> bytes:
    """Decrypt a value of :func:`seal`; raises :class:`SealError`."""
    try:
        return AESGCM(derive(purpose)).decrypt(sealed[:NONCE], sealed[NONCE:], context.encode())
    except (InvalidTag, ValueError) as error:
        raise SealError("the sealed value does not open") from error


@cache
def derive(purpose: str) -> bytes:
    """A 32-byte key for one purpose (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"cloudsignal {purpose} v1".encode()).derive(pepper())

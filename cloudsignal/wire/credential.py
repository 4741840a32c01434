"""The credential record: the sealed data with which an edge verifies one username's passwords.

A secret is stored only as ``HMAC-SHA256(pepper, org | username | secret | expires_at)``. Token secrets carry at
least 128 random bits, so a fast keyed hash is right here (human passwords use Argon2). The record as a whole,
claims and revision included, is sealed with a second HMAC under the same pepper, which Redis never sees: claims
can change without knowing the secrets, and a record that is copied to another name, cut or edited verifies for
nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cloudsignal.wire.codec import WireError, decode, encode

VERSION = 1

ClaimValue = str | int | float | bool | Sequence[str]
"""The value of a claim: a string, a number, a truth value, or a list of strings."""


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_PREFIX = "tkn_"

_RANDOM = 22
"""Random base62 characters of a secret: 131 bits."""

_TAG = 6
"""Base62 characters of each of the two tags: 35 bits."""

_TAGS: int = 62**_TAG
"""How many tags there are."""

_PAIRS: tuple[str, ...] = tuple(low + high for high in _BASE62 for low in _BASE62)
"""The two base62 digits of every number below 62 squared, lowest first."""

_DIGITS = bytes(ord(_BASE62[byte % 62]) for byte in range(256))
_UNEVEN = bytes(range(248, 256))
"""Random bytes that are thrown away: what is left maps onto the 62 digits evenly."""


class Origin(Enum):
    """The origin of a secret, derived from its two tags without a look-up."""

    OWN = "own"
    """Made by this control plane for the organization it is presented to."""
    OTHER_ORG = "other_org"
    """Made by this control plane, for another organization."""
    FOREIGN = "foreign"
    """Not made by this control plane, or mistyped."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret that signs its username in until it expires."""

    token_id: str
    mac: bytes
    """:func:`secret_mac`, 32 bytes."""
    expires_at: int
    """Seconds since the epoch, UTC. ``0`` marks a static credential, which does not expire."""
    revoked: bool = False
    """A revoked secret stays listed until its expiry, so that its use is reported as ``revoked``."""
    until: int = 0
    """Later than ``expires_at`` for a first secret whose client has refreshed without a break: it signs in until then.
    Not part of the hash."""
    retired: bool = False
    """Retired to make room for newer ones: it signs in no more, and its sessions go on."""

    @property
    def ends_at(self) -> int:
        """The expiry of the secret in seconds since the epoch; 0 means never."""
        return max(self.expires_at, self.until) if self.expires_at else 0


@dataclass(frozen=True, slots=True)
class Credential:
    """The secrets and claims of one username of one organization."""

    org: str
    username: str
    """The local part, without ``@org``."""
    revision: int
    """Rises with every change of this identity; an edge never goes back to an older one."""
    secrets: tuple[Secret, ...] = ()
    claims: Mapping[str, ClaimValue] = field(default_factory=dict)
    revoked: bool = False
    """The identity itself is revoked: no secret of it signs in."""
    v: int = VERSION


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """The envelope of a credential record on Redis."""

    payload: bytes
    seal: bytes


def make_secret(pepper: bytes, org: str) -> str:
    """A new secret for a credential of ``org``: ``tkn_``, 131 random bits and two 35-bit tags, all base62.

    The first tag says "for this organization", the second, over all before it, "this control plane made it"; both are
    keyed with the pepper, so neither tells anything to somebody else. They let an edge report the credential of one
    organization that is presented to another as ``wrong_org``, and a mistyped one as ``bad_secret``, without searching
    other organizations. They grant nothing: only the record on Redis signs a client in.
    """
    body = ""
    while len(body) < _RANDOM:
        body += os.urandom(2 * _RANDOM).translate(_DIGITS, _UNEVEN).decode()
    body = body[:_RANDOM]
    body += _tag(pepper, org.encode(), body)
    return _PREFIX + body + _tag(pepper, b"any", body)


def secret_origin(pepper: bytes, org: str, secret: str) -> Origin:
    """The origin of ``secret`` when it is presented to ``org``, from its tags, in constant time."""
    body = secret.removeprefix(_PREFIX)
    random, org_tag, any_tag = body[:_RANDOM], body[_RANDOM : _RANDOM + _TAG], body[_RANDOM + _TAG :]
    own = _equal(_tag(pepper, org.encode(), random), org_tag)
    ours = _equal(_tag(pepper, b"any", random + org_tag), any_tag)
    if not ours:
        return Origin.FOREIGN
    return Origin.OWN if own else Origin.OTHER_ORG


def secret_belongs_to(pepper: bytes, org: str, secret: str) -> bool:
    """Whether ``secret`` was issued for ``org``."""
    return secret_origin(pepper, org, secret) is Origin.OWN


def secret_mac(pepper: bytes, *, org: str, username: str, secret: str, expires_at: int) -> bytes:
    """The keyed hash a secret is stored as: 32 bytes. The parts are length-prefixed, so none can run into the next."""
    parts = [b"secret v1", org.encode(), username.encode(), secret.encode(), str(expires_at).encode()]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(pepper, message, hashlib.sha256)


def seal_credential(credential: Credential, pepper: bytes) -> bytes:
    """Encode and seal a record for Redis."""
    payload = encode(credential)
    return encode(SealedCredential(payload=payload, seal=_seal(pepper, payload)))


def open_credential(data: bytes, pepper: bytes, *, org: str, username: str) -> Credential:
    """Verify and decode a record that was looked up for ``(org, username)``; raises :class:`WireError` otherwise."""
    envelope = decode(data, SealedCredential)
    if not hmac.compare_digest(envelope.seal, _seal(pepper, envelope.payload)):
        raise WireError("the credential's seal does not verify")
    credential = decode(envelope.payload, Credential)
    if credential.v != VERSION:
        raise WireError(f"credential version {credential.v}, expected {VERSION}")
    if (credential.org, credential.username) != (org, username):
        raise WireError("the credential was stored under another name")
    return credential


def _equal(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _tag(pepper: bytes, scope: bytes, random: str) -> str:
    message = b"secret tag v1\0" + scope + b"\0" + random.encode("utf-8", "replace")
    value = int.from_bytes(hmac.digest(pepper, message, hashlib.sha256)[:16], "big") % _TAGS
    return _PAIRS[value % 3844] + _PAIRS[value // 3844 % 3844] + _PAIRS[value // 3844**2]


def _seal(pepper: bytes, payload: bytes) -> bytes:
    return hmac.digest(pepper, b"record v1\0" + payload, hashlib.sha256)

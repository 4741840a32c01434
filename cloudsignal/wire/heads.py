"""The list of heads: the newest bundle of each organization, dated and signed by the control plane.

A signature on a bundle does not say that it is the newest. An edge that has seen a newer one knows better; one that has
not (started for the first time, or with an empty disk) asks this list: a bundle that is older than its head is refused,
and so is every bundle of an organization that the list does not name, unless it was made after the list. A list is
trusted for a while after it was signed; an edge never goes back to an older one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloudsignal.wire.bundle import Bundle
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.signed import Seal

VERSION = 1

EVERY = 10
"""Seconds between two lists, as the worker's comparison runs."""
AGE_MAX = 900
"""Seconds after its signing that a list vouches for bundles of organizations that an edge has never seen."""
SLACK = 60
"""Seconds by which a bundle may be older than a list that does not name its organization yet: a commit under way, and
clocks that differ."""

_SEAL = Seal(b"cloudsignal heads v1\0", "the signature of the list of heads does not verify", hashed=True)


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest bundle of every organization there is."""

    revision: int
    """Milliseconds since the epoch by the database's clock, when it was read: rises from list to list."""
    orgs: dict[str, tuple[int, bytes]]
    """Organization -> revision, and the 32 bytes of its policy's digest."""
    v: int = VERSION

    @property
    def signed_at(self) -> float:
        """Seconds since the epoch."""
        return self.revision / 1000

    def objection(self, bundle: Bundle) -> str:
        """The reason why ``bundle`` cannot be the newest of its organization; empty when it may be."""
        revision, digest = self.orgs.get(bundle.org, (0, b""))
        if bundle.revision < revision:
            return f"revision {bundle.revision} is older than {revision}, which the control plane calls the newest"
        if bundle.revision == revision and bundle.digest != f"sha256:{digest.hex()}":
            return f"revision {revision} is not the policy that the control plane calls the newest"
        if not revision and bundle.issued_at < self.signed_at - SLACK:
            return "the control plane knows no such organization"
        return ""


def digest_bytes(digest: str) -> bytes:
    """The 32 bytes of ``sha256:...``."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


def sign_heads(heads: Heads, key: Ed25519PrivateKey) -> bytes:
    """Encode and sign a list."""
    return _SEAL.sign(heads, key)


def open_heads(data: bytes, key: Ed25519PublicKey) -> Heads:
    """Verify and decode a list; raises :class:`WireError`."""
    heads = decode(_SEAL.open(data, key), Heads)
    if heads.v != VERSION:
        raise WireError(f"list of heads of version {heads.v}, expected {VERSION}")
    return heads

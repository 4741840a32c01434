"""The bundle: the policy, quotas and state of one organization for the edge, signed by the control plane.

Redis is not trusted. A bundle is accepted only when its Ed25519 signature verifies with the public key that the
edge was started with, it names the organization it was looked up for, and its revision is not older than the one
in force.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.signed import Seal

VERSION = 1

LAST_REVISION = 999_999_999_999_999
"""The revision of the last word about an organization: above every other (fifteen digits are the most on Redis)."""

_SEAL = Seal(b"cloudsignal bundle v1\0", "the bundle's signature does not verify")


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of one organization, enforced by every edge process. ``0`` means "no limit of its own"."""

    connections: int = 1_000
    """Live connections per edge node."""
    messages_per_minute: int = 60_000
    """PUBLISH packets from clients, per edge node and minute."""
    packet_bytes: int = 262_144
    """Largest MQTT packet, in bytes, in either direction."""
    subscriptions_per_session: int = 100
    retained_messages: int = 10_000
    """Retained messages at the broker, over all edges."""
    retained_bytes: int = 16 * 1024 * 1024
    """Bytes of them, as PUBLISH packets, over all edges."""
    stored_sessions: int = 1_000
    """Sessions that outlive their connection, over all edges; each may hold a queue of the broker's length."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One organization's desired state at the edge."""

    org: str
    revision: int
    """Rises with every change of the organization, over all of its life. A newer one always wins."""
    digest: str
    """``sha256:`` and 64 hex digits over :attr:`policy`."""
    policy: bytes
    """The policy document as canonical JSON (``acl.policy.canonical``)."""
    status: Literal["active", "suspended", "deleted"]
    """``deleted`` is the last word: edges forget the organization."""
    issued_at: float
    """Seconds since the epoch, UTC: when the change was committed."""
    deployment: str = ""
    """Id of the deployment whose version this is, echoed in the edge's report."""
    quotas: Quotas = field(default_factory=Quotas)
    publish_while_split: str = "accept"
    """``refuse``: no publish is acknowledged while the edge knows that broker nodes are split. Another word: accept."""
    v: int = VERSION


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey) -> bytes:
    """Encode and sign ``bundle``; returns the envelope's bytes."""
    return _SEAL.sign(bundle, key)


def open_bundle(data: bytes, key: Ed25519PublicKey, *, org: str) -> Bundle:
    """Verify and decode an envelope that was looked up for ``org``.

    Raises :class:`WireError` when it is malformed, has another version, is signed by another key, or belongs to
    another organization.
    """
    bundle = decode(_SEAL.open(data, key), Bundle)
    if bundle.v != VERSION:
        raise WireError(f"bundle version {bundle.v}, expected {VERSION}")
    if bundle.org != org:
        raise WireError(f"the bundle of {bundle.org} was stored for {org}")
    return bundle

"""Signed orders to the edges: clear retained messages, discard sessions, erase an organization.

An order does lasting things, so it is signed like a bundle: who can write to Redis can repeat or drop one, not make one
up. Each says until when it holds, and one edge carries it out (a consumer group on the stream).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.signed import Seal

VERSION = 1

NAMES_MAX = 500
"""Topics or client IDs in one order."""

HOLDS_SECONDS = 3_600.0
"""How long an order holds unless it says otherwise; a repeated one changes nothing after that."""

ERASE_SECONDS = 90 * 86_400.0
"""How long the order to erase an organization holds: its id is never used again."""

GROUP = "edges"
"""The consumer group of all edges."""

_SEAL = Seal(b"cloudsignal order v1\0", "the order's signature does not verify")


@dataclass(frozen=True, slots=True)
class Order:
    """A change to make at the broker under one organization's mountpoint."""

    kind: Literal["clear_retained", "discard_sessions", "erase"]
    org: str
    issued_at: float
    """Seconds since the epoch. A session that began later is not discarded."""
    ends_at: float
    names: tuple[str, ...] = ()
    """Topics of retained messages, or client IDs of sessions."""
    username: str = ""
    """Sessions of this local username only; empty for whoever has them."""
    v: int = VERSION


def sign_order(order: Order, key: Ed25519PrivateKey) -> bytes:
    """Encode and sign an order."""
    return _SEAL.sign(order, key)


def open_order(data: bytes, key: Ed25519PublicKey, *, now: float) -> Order:
    """Verify and decode an order; raises :class:`WireError` when it is forged, malformed or over."""
    order = decode(_SEAL.open(data, key), Order)
    if order.v != VERSION:
        raise WireError(f"order version {order.v}, expected {VERSION}")
    if now >= order.ends_at:
        raise WireError("the order is over")
    return order

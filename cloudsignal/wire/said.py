"""What edges say of themselves (audit batches, reports, heartbeats), sealed: nobody who only has Redis can say it.

The seal is an HMAC under the node key, 32 bytes behind the record, over what kind of record it is and the record. It
tells that an edge (or another holder of the key) has said it, not when, nor that it was said once: what is said names
its node, its time and ids of its own, by which readers skip what they know. Edges derive the key from the pepper;
ingest is given the key alone, so that it cannot make credentials.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum

from cloudsignal.wire.codec import WireError

SEAL = 32


class Kind(StrEnum):
    """What is said; a record of one kind is none of another."""

    AUDIT = "audit"
    REPORT = "report"
    HEARTBEAT = "heartbeat"


def node_key(pepper: bytes) -> bytes:
    """The key that edges seal with."""
    return hmac.digest(pepper, b"cloudsignal node key v1", hashlib.sha256)


def say(kind: Kind, record: bytes, key: bytes) -> bytes:
    """The record with its seal behind it."""
    return record + _seal(kind, record, key)


def hear(kind: Kind, data: bytes, key: bytes) -> bytes:
    """The record, when an edge has sealed it; raises :class:`WireError`."""
    record, seal = data[:-SEAL], data[-SEAL:]
    if not hmac.compare_digest(seal, _seal(kind, record, key)):
        raise WireError("no edge has sealed it")
    return record


def unchecked(data: bytes) -> bytes:
    """The record without a look at its seal: for those who have no key, and for whom it changes nothing lasting."""
    return data[:-SEAL]


def _seal(kind: Kind, record: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"edge says v1\0" + kind.encode() + b"\0" + record, hashlib.sha256)

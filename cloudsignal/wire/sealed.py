"""Seal the records that edges write (audit batches, reports, heartbeats) with an HMAC under the node key.

The seal is 32 bytes behind the record, an HMAC over the kind of the record and the record itself. It tells that an edge
(or another holder of the key) has written the record, not when, nor that it was written once: a record names its node,
its time and IDs of its own, by which readers skip duplicates. Edges derive the key from the pepper; ingest is given the
key alone, so that it cannot make credentials.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum

from cloudsignal.wire.codec import WireError

SEAL = 32


class Kind(StrEnum):
    """The kind of a sealed record; the seal of one kind is not valid for another."""

    AUDIT = "audit"
    REPORT = "report"
    HEARTBEAT = "heartbeat"


def node_key(pepper: bytes) -> bytes:
    """The key that edges seal with."""
    return hmac.digest(pepper, b"cloudsignal node key v1", hashlib.sha256)


def seal_record(kind: Kind, record: bytes, key: bytes) -> bytes:
    """Append the seal to a record."""
    return record + _seal(kind, record, key)


def open_record(kind: Kind, data: bytes, key: bytes) -> bytes:
    """Verify the seal and return the record; raises :class:`WireError` when no edge has sealed it."""
    record, seal = data[:-SEAL], data[-SEAL:]
    if not hmac.compare_digest(seal, _seal(kind, record, key)):
        raise WireError("no edge has sealed it")
    return record


def unchecked(data: bytes) -> bytes:
    """The record without verifying its seal: for readers without the key, which store nothing from it."""
    return data[:-SEAL]


def _seal(kind: Kind, record: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"edge says v1\0" + kind.encode() + b"\0" + record, hashlib.sha256)

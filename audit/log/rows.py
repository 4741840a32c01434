"""An audit row as the log sees it: its fields as plain JSON values that do not depend on a database's formatting."""

from __future__ import annotations

import ipaddress
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from audit.log.verifier import SALT_BYTES

FIELDS = (
    "org_id", "ts", "id", "kind", "node", "session", "username", "client_id", "ip", "port", "transport", "mqtt_version",
    "tls_version", "tls_cipher", "reason", "action", "topic", "qos", "retain", "size", "rule", "policy_digest", "count",
    "actor", "target", "before", "after", "details", "repeats",
)  # fmt: skip
"""The fields that are committed to. One that is added later is empty (null or "") in every row before it, so it changes
no row's canonical bytes; none is ever taken away or changes its meaning."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def log_row(values: Mapping[str, object]) -> dict[str, object]:
    """The fields of a row, from the Python values of its columns; further names in ``values`` are not looked at.

    ``ts`` becomes whole microseconds since 1970 (UTC), ``id`` and ``repeats`` their 36 characters, ``ip`` the hex of
    its 4 or 16 bytes.
    """
    row = {name: values.get(name) for name in FIELDS}
    ts = row["ts"]
    if isinstance(ts, datetime):
        row["ts"] = (ts - _EPOCH) // _MICROSECOND
    for name in ("id", "repeats"):
        if isinstance(row[name], uuid.UUID):
            row[name] = str(row[name])
    if row["ip"] is not None:
        row["ip"] = packed(str(row["ip"]))
    return row


def new_salt() -> bytes:
    """A salt for one row."""
    return os.urandom(SALT_BYTES)


@lru_cache(maxsize=65_536)
def packed(address: str) -> str:
    """The bytes of an IP address in hex: text forms of IPv6 differ between versions of Python and PostgreSQL."""
    return ipaddress.ip_address(address).packed.hex()

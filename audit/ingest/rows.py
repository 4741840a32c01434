"""Events of the wire as rows of the table, and rows into the table."""

from __future__ import annotations

import ipaddress
import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from audit.kinds import KINDS
from cloudsignal import ids
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.codec import WireError
from orgs.models import Organization
from orgs.tenancy import platform_scope

COLUMNS: tuple[tuple[str, str], ...] = (
    ("ts", "timestamptz"),
    ("id", "uuid"),
    ("org_id", "varchar"),
    ("kind", "varchar"),
    ("node", "varchar"),
    ("session", "varchar"),
    ("username", "text"),
    ("client_id", "text"),
    ("ip", "inet"),
    ("port", "int4"),
    ("transport", "varchar"),
    ("mqtt_version", "varchar"),
    ("tls_version", "varchar"),
    ("tls_cipher", "varchar"),
    ("reason", "varchar"),
    ("action", "varchar"),
    ("topic", "text"),
    ("qos", "int2"),
    ("retain", "bool"),
    ("size", "int8"),
    ("rule", "varchar"),
    ("policy_digest", "varchar"),
    ("count", "int8"),
    ("actor", "varchar"),
    ("target", "varchar"),
    ("details", "text"),
)
_NAMES = ", ".join(name for name, _ in COLUMNS)
_COPY = f"COPY audit_incoming ({_NAMES}) FROM STDIN (FORMAT BINARY)"
_TEMPORARY = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS audit_incoming ("
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS)
    + ") ON COMMIT DELETE ROWS"
)
_SELECTED = ", ".join("details::jsonb" if name == "details" else name for name, _ in COLUMNS)
# A folded denial arrives again with a higher count, even twice within one batch: one row a key, the highest count.
_MERGE = (
    f"INSERT INTO audit_event ({_NAMES}) "
    f"SELECT DISTINCT ON (ts, id) {_SELECTED} FROM audit_incoming ORDER BY ts, id, count DESC "
    "ON CONFLICT (ts, id) DO UPDATE SET count = excluded.count WHERE audit_event.count < excluded.count"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_FUTURE = timedelta(days=1)

Row = tuple[Any, ...]


def row_of(event: AuditEvent, *, node: str) -> Row:
    """One event as a row in the order of :data:`COLUMNS`; raises :class:`WireError` when it cannot be one.

    Overlong texts of clients are cut, not refused: an attacker must not be able to keep an event out of the audit.
    """
    try:
        event_id = uuid.UUID(event.id)
        at = _EPOCH + timedelta(microseconds=event.ts)
    except (ValueError, OverflowError) as error:
        raise WireError(f"the event's id or time is malformed: {error}") from error
    if event.kind not in KINDS:
        raise WireError(f"there is no event kind {event.kind[:40]!r}")
    if not _EARLIEST <= at <= datetime.now(UTC) + _FUTURE:
        raise WireError("the event's time is not of this world")
    return (
        at,
        event_id,
        event.org if ids.ORG.match(event.org) else None,
        event.kind,
        _text(event.node or node, 128),
        _text(event.session, 64),
        _text(event.username, 65_535),
        _text(event.client_id, 65_535),
        _ip(event.ip),
        event.port if 0 <= event.port <= 65_535 else 0,
        _text(event.transport, 16),
        _text(event.mqtt_version, 16),
        _text(event.tls_version, 16),
        _text(event.tls_cipher, 64),
        _text(event.reason, 64),
        _text(event.action, 16),
        _text(event.topic, 65_535),
        event.qos if -1 <= event.qos <= 2 else -1,
        event.retain,
        _whole(event.size, low=0),
        _text(event.rule, 64),
        _text(event.policy_digest, 71),
        _whole(event.count, low=1),
        "",
        "",
        _details(event),
    )


def store(rows: Sequence[Row]) -> None:
    """Write the rows in one transaction: binary COPY into a temporary table, then one insert that drops duplicates.

    Rows of an organization that does not exist go to the platform's log. Raises ``django.db.Error`` untouched.
    """
    if not rows:
        return
    with platform_scope():
        rows = _own(rows)
        with connection.cursor() as cursor:
            cursor.execute(_TEMPORARY)
            cursor.execute("DELETE FROM audit_incoming")
            with connection.wrap_database_errors, cursor.copy(_COPY) as copy:
                copy.set_types([kind for _, kind in COLUMNS])
                for row in rows:
                    copy.write_row(row)
            cursor.execute(_MERGE)


def days_of(rows: Iterable[Row]) -> set[Any]:
    """The days, in UTC, that the rows belong to."""
    return {row[0].date() for row in rows}


def platform_row(*, key: str, at_ms: int, kind: str, reason: str) -> Row:
    """An event of the platform's own about the stream entry ``key``; the same entry gives the same row."""
    at = _EPOCH + timedelta(milliseconds=at_ms)
    if not _EARLIEST <= at <= datetime.now(UTC) + _FUTURE:
        at = datetime.now(UTC)
    event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, key))
    event = AuditEvent(id=event_id, ts=(at - _EPOCH) // timedelta(microseconds=1), kind=kind, reason="unreadable_entry")
    event.details = {"entry": key, "error": reason[:200]}
    return row_of(event, node="ingest")


def _own(rows: Sequence[Row]) -> list[Row]:
    named = {row[2] for row in rows if row[2] is not None}
    there = set(Organization.objects.filter(pk__in=named).values_list("pk", flat=True)) if named else set()
    return [row if row[2] in there or row[2] is None else (*row[:2], None, *row[3:]) for row in rows]


def _text(value: str, limit: int) -> str:
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return value[:limit]


def _whole(value: int, *, low: int) -> int:
    return max(low, min(value, 2**63 - 1))


def _ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None


def _details(event: AuditEvent) -> str | None:
    details: dict[str, Any] = dict(event.details)
    if event.org and not ids.ORG.match(event.org):
        details["org"] = event.org[:64]
    if not details:
        return None
    finite = {_text(name, 64): value for name, value in list(details.items())[:50]}
    text = json.dumps(finite, ensure_ascii=False, allow_nan=True).replace("\\u0000", "\\ufffd")
    return json.dumps({"omitted": len(text)}) if len(text) > 16_384 or "NaN" in text or "Infinity" in text else text

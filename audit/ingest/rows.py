"""Convert audit events from the wire to rows of the audit table. Pure: no database, no Redis.

Nothing a client writes can keep an event out of the audit: texts that are too long are cut and say so, numbers are
brought into range, and only an event without a usable id or kind is refused.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
import uuid
from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from audit.bounds import LATEST_US, cut, microseconds, moment
from audit.kinds import CRITICAL, KINDS, Source
from cloudsignal import ids
from cloudsignal.errors import quoted
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.codec import WireError

COLUMNS: tuple[tuple[str, str], ...] = (
    ("ts", "timestamptz"),
    ("id", "uuid"),
    ("org_id", "text"),
    ("kind", "text"),
    ("node", "text"),
    ("session", "text"),
    ("username", "text"),
    ("client_id", "text"),
    ("ip", "inet"),
    ("port", "int4"),
    ("transport", "text"),
    ("mqtt_version", "text"),
    ("tls_version", "text"),
    ("tls_cipher", "text"),
    ("reason", "text"),
    ("action", "text"),
    ("topic", "text"),
    ("qos", "int2"),
    ("retain", "bool"),
    ("size", "int8"),
    ("rule", "text"),
    ("policy_digest", "text"),
    ("count", "int8"),
    ("details", "jsonb"),
    ("repeats", "uuid"),
    ("incarnation", "text"),
)
"""Name and PostgreSQL type of each element of a :data:`Row`. ``incarnation`` is counted, not stored with the event."""

Row = tuple[Any, ...]
Key = tuple[str, datetime, uuid.UUID]
TS, ID, ORG, KIND, NODE, SESSION, COUNT, DETAILS, REPEATS, INCARNATION = (
    [name for name, _ in COLUMNS].index(name)
    for name in ("ts", "id", "org_id", "kind", "node", "session", "count", "details", "repeats", "incarnation")
)


def key_of(row: Row) -> Key:
    """The key of a row."""
    return row[ORG], row[TS], row[ID]


DETAILS_BYTES = 16_384

OF_EDGES = frozenset({Source.EDGE, Source.NODE})
"""Origins of the kinds that an edge may write."""

_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


def row_of(event: AuditEvent, *, node: str = "", incarnation: str = "") -> Row:
    """One event of ``node`` as a row in the order of :data:`COLUMNS`.

    Raises :class:`WireError` when its id is no UUID, or its kind is none an edge may write: an administrative change
    comes from a service, in its own transaction, and nobody who can write to Redis may make one up. A kind that is not
    known here but has the form of one is kept: a newer edge may have sent it.
    """
    try:
        event_id = uuid.UUID(event.id)
    except ValueError as error:
        raise WireError(f"an event has the id {quoted(event.id[:60])}, which is no UUID") from error
    if not is_written_by_edges(event.kind):
        raise WireError(f"an edge may not write events of the kind {quoted(event.kind[:40])}")
    if event.org and belongs_to_nobody(event.kind):
        raise WireError(f"events of the kind {quoted(event.kind)} belong to no organization")
    return _row(event, event_id, node=node, incarnation=incarnation)


def is_written_by_edges(kind: str) -> bool:
    """Whether an edge, perhaps a newer one, may write events of ``kind``."""
    known = KINDS.get(kind)
    return bool(_KIND.match(kind)) if known is None else known.source in OF_EDGES


def belongs_to_nobody(kind: str) -> bool:
    """Whether events of ``kind`` are about a node, and so of no organization."""
    known = KINDS.get(kind)
    return known is not None and known.source is Source.NODE


def platform_row(*, key: str, at_ms: int, kind: str, reason: str, details: dict[str, str | int | float | bool]) -> Row:
    """Make a row of the platform's log. The same ``key`` and time (milliseconds since the epoch) give the same row."""
    event_id = uuid.uuid5(uuid.NAMESPACE_URL, f"cloudsignal:{key}")
    event = AuditEvent(id=str(event_id), ts=at_ms * 1_000, kind=kind, reason=reason, details=details)
    return _row(event, event_id, node="ingest", incarnation="")


def merged(rows: Iterable[Row]) -> tuple[list[Row], list[tuple[Row, list[str]]]]:
    """Rows of distinct keys, ordered by key, and those that repeat a key with other content, with the columns.

    Copies from an edge of the release before differ in ``count`` alone: the highest stays.
    """
    kept: dict[Key, Row] = {}
    clashes: list[tuple[Row, list[str]]] = []
    for row in rows:
        key = key_of(row)
        there = kept.setdefault(key, row)
        if there is row or there == row:
            continue
        if other := [
            name for (name, _), old, new in zip(COLUMNS, there, row, strict=True) if old != new and name != "count"
        ]:
            clashes.append((row, other))
        elif there[COUNT] < row[COUNT]:
            kept[key] = row
    return [kept[key] for key in sorted(kept)], clashes


def clash_row(row: Row, columns: list[str]) -> Row:
    """Make the critical event that says that ``row`` came under the key of another, and was not stored.

    It stands in the log of the organization. The same row gives the same event.
    """
    digest = hashlib.sha256(repr(row).encode()).hexdigest()
    event = AuditEvent(
        id=str(uuid.uuid5(row[ID], digest)), ts=microseconds(row[TS]), kind=CRITICAL, org=row[ORG], node=row[NODE],
        reason="id_repeated", details={"event": str(row[ID]), "differs_in": ", ".join(columns), "sha256": digest},
    )  # fmt: skip
    return _row(event, uuid.UUID(event.id), node="ingest", incarnation="")


def further_row(row: Row, count: int) -> Row:
    """Make the row of the ``count`` repetitions by which a copy of a stored event, ``row``, exceeds what is stored.

    Edges of the release before count them in copies of the event. The same copy gives the same key.
    """
    changed = list(row)
    changed[ID], changed[COUNT], changed[REPEATS] = uuid.uuid5(row[ID], str(row[COUNT])), count, row[ID]
    return tuple(changed)


def without_org(row: Row) -> Row:
    """Move a row whose organization does not exist to the platform's log, with the name in ``details``."""
    details = json.loads(row[DETAILS]) if row[DETAILS] else {}
    details["org"] = row[ORG]
    changed = list(row)
    changed[ORG], changed[DETAILS] = ids.PLATFORM_ORG, json.dumps(details, ensure_ascii=False)
    return tuple(changed)


def days_of(rows: Iterable[Row]) -> set[date]:
    """The days, in UTC, that the rows belong to."""
    return {row[TS].date() for row in rows}


def _row(event: AuditEvent, event_id: uuid.UUID, *, node: str, incarnation: str) -> Row:
    more: dict[str, Any] = {}
    at = max(0, min(event.ts, LATEST_US))
    if at != event.ts:
        more["ts"] = str(event.ts)
    org = event.org
    if not ids.ORG.match(org):
        org = ids.PLATFORM_ORG
        if event.org:
            more["org"] = _cut(event.org, 64)
    if len(event.reason) > 64:
        more["reason"] = event.reason
    ip = address(event.ip)
    if ip is None and event.ip:
        more["ip"] = event.ip
    return (
        moment(at),
        event_id,
        org,
        event.kind,
        _cut(event.node or node, 128),
        _cut(event.session, 64),
        _bounded("username", event.username, more),
        _bounded("client_id", event.client_id, more),
        ip,
        event.port if 0 <= event.port <= 65_535 else 0,
        _cut(event.transport, 16),
        _cut(event.mqtt_version, 16),
        _cut(event.tls_version, 16),
        _cut(event.tls_cipher, 64),
        _cut(event.reason, 64),
        _cut(event.action, 16),
        _bounded("topic", event.topic, more),
        event.qos if -1 <= event.qos <= 2 else -1,
        event.retain,
        max(0, min(event.size, 2**63 - 1)),
        _cut(event.rule, 64),
        _cut(event.policy_digest, 71),
        max(1, min(event.count, 2**63 - 1)),
        json_of({**event.details, **more}) if event.details or more else None,
        uuid.UUID(event.repeats) if event.repeats and event.repeats != event.id else None,
        _cut(incarnation, 36),
    )


def _cut(value: str, characters: int) -> str:
    if "\0" in value:
        value = value.replace("\0", "\ufffd")  # PostgreSQL has no U+0000
    return value[:characters]


def _bounded(name: str, value: str, more: dict[str, Any]) -> str:
    """``value`` cut to ``TEXT_BYTES``; when it is cut, its length is added to ``more``."""
    value = _cut(value, 65_535)
    kept = cut(value)
    if len(kept) != len(value):
        more[f"{name}_bytes"] = len(value.encode())
    return kept


@lru_cache(maxsize=8_192)
def address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address without its zone; None for what is none."""
    try:
        return ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None


def json_of(details: dict[str, Any]) -> str:
    """JSON that ``jsonb`` takes: no U+0000, no infinities, at most 50 names and :data:`DETAILS_BYTES`."""
    clean = {_cut(name, 64): _scalar(value) for name, value in list(details.items())[-50:]}
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False)
    return text if len(text.encode()) <= DETAILS_BYTES else json.dumps({"omitted_bytes": len(text.encode())})


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return _cut(value, 1_000)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

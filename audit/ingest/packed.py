"""Pack audit events as rows of PostgreSQL's binary COPY. Pure: no database, no Redis.

What a session's events have in common, and what a rule's decisions have, is encoded once and found again by its values.
:func:`pack_row` encodes any row; :class:`Packer` does the same for an ordinary event without making a row of it, and
hands everything else (a text to be cut, a number out of range, a strange id) to :func:`~audit.ingest.rows.row_of`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from audit.bounds import LATEST_US, TEXT_BYTES, microseconds
from audit.ingest.rows import COLUMNS, DETAILS, ORG, Row, address, belongs_to_nobody, is_written_by_edges, row_of
from audit.log.rows import packed as hex_of
from audit.services.commitments import row_bytes
from cloudsignal import ids
from cloudsignal.wire.audit import AuditEvent

COPIED = [name for name, _ in COLUMNS if name != "incarnation"] + ["actor", "target", "log_leaf", "salt"]
"""The columns of a packed row, in order. Edges have no actor and no target."""

KEPT = 20_000
"""Encoded parts kept of each sort; then all are forgotten."""

PLAIN = TEXT_BYTES // 4
"""Characters up to which a text fits whatever they are."""

_Y2K_US = 946_684_800_000_000
_NULL = struct.pack(">i", -1)
_NOBODY = struct.pack(">ii", 0, 0)
NO_LEAF = _NULL + _NULL
_LEAF = struct.Struct(">iqi16s")
_HEAD = struct.Struct(">hiqi16s")
_TAIL = struct.Struct(">i")
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
END = struct.pack(">h", -1)


Leaf = tuple[int, bytes]
"""The number of a row's leaf in the transparency log, and its salt."""


def copy_data(rows: Sequence[Row], leaves: Sequence[Leaf] = ()) -> Iterator[bytes]:
    """The data of a binary COPY of ``rows``, with their leaves."""
    yield SIGNATURE
    yield b"".join(pack_row(row) + (leaf_data(leaves[place]) if leaves else NO_LEAF) for place, row in enumerate(rows))
    yield END


def pack_row(row: Row) -> bytes:
    """Encode a row up to its leaf; raises ``UnicodeEncodeError`` for text that is no text."""
    fields = [_field(kind, value) for (_, kind), value in zip(COLUMNS[:-1], row[:-1], strict=True)]
    return b"".join((struct.pack(">h", len(COPIED)), *fields, _NOBODY))


def leaf_data(leaf: Leaf) -> bytes:
    """The end of a packed row: leaf number and salt."""
    return _LEAF.pack(8, leaf[0], 16, leaf[1])


def values_of(row: Row) -> dict[str, object]:
    """The values of a row by column, as they are read back: what its leaf commits to."""
    values: dict[str, object] = dict(zip((name for name, _ in COLUMNS), row, strict=True))
    if row[DETAILS]:
        values["details"] = json.loads(row[DETAILS])
    return values


@dataclass(frozen=True, slots=True)
class _Session:
    """Common parts of the events of one session: packed, and as the parts of a row's canonical bytes."""

    data: bytes
    org: str
    client_id: bytes
    from_ip_to_org: bytes
    port: bytes
    session: bytes
    tls: bytes
    transport: bytes
    username: bytes


@dataclass(frozen=True, slots=True)
class _Decision:
    """Common parts of equal decisions, packed and canonical likewise."""

    before: bytes
    after: bytes
    action: bytes
    count: bytes
    policy_digest: bytes
    from_qos_to_rule: bytes
    size: bytes


class Packer:
    """Encodes the events of one ingest process."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[Any, ...], _Session | None] = {}
        self._decisions: dict[tuple[Any, ...], _Decision | None] = {}

    def pack(self, event: AuditEvent, *, node: str) -> tuple[bytes, str, bytes]:
        """Encode one event of ``node`` up to its leaf; also returns its organization and its canonical bytes.

        Raises like :func:`~audit.ingest.rows.row_of`.
        """
        who = (
            event.org, event.kind, event.node or node, event.session, event.username, event.client_id, event.ip,
            event.port, event.transport, event.mqtt_version, event.tls_version, event.tls_cipher,
        )  # fmt: skip
        what = (
            event.reason, event.action, event.qos, event.retain, event.size, event.rule, event.policy_digest,
            event.count,
        )  # fmt: skip
        of = self._sessions[who] if who in self._sessions else self._session(who)
        by = self._decisions[what] if what in self._decisions else self._decision(what)
        topic, name = event.topic, _name(event.id)
        unusual = not name or not 0 <= event.ts <= LATEST_US or event.details or event.repeats
        if of is None or by is None or unusual or len(topic) > PLAIN or "\0" in topic:
            row = row_of(event, node=node)
            return pack_row(row), row[ORG], row_bytes(values_of(row))
        text = topic.encode()
        head = _HEAD.pack(len(COPIED), 8, event.ts - _Y2K_US, 16, name)
        data = b"".join((head, of.data, by.before, _TAIL.pack(len(text)), text, by.after, _NULL, _NULL, _NOBODY))
        # Names in the order of the alphabet, without what is empty: audit.log.verifier.canonical.
        canonical = b"".join((
            b"{", by.action, of.client_id, by.count, b'"id":"', event.id.encode(), b'",', of.from_ip_to_org,
            by.policy_digest, of.port, by.from_qos_to_rule, of.session, by.size, of.tls, _member("topic", topic),
            of.transport, b'"ts":', str(event.ts).encode(), b",", of.username,
        ))  # fmt: skip
        return data, of.org, canonical[:-1] + b"}"

    def _session(self, who: tuple[Any, ...]) -> _Session | None:
        if len(self._sessions) >= KEPT:
            self._sessions.clear()
        org, kind, node, session, username, client_id, ip, port, *rest = who
        plain = (
            (ids.ORG.match(org) or not org)
            and is_written_by_edges(kind)
            and not (org and belongs_to_nobody(kind))
            and 0 <= port <= 65_535
            and (not ip or address(ip) is not None)
        )
        short = _fit(
            (node, 128), (session, 64), (username, PLAIN), (client_id, PLAIN), *zip(rest, (16, 16, 16, 64), strict=True)
        )
        self._sessions[who] = part = None
        if plain and short:
            owner, at = org or ids.PLATFORM_ORG, address(ip)
            transport, mqtt_version, tls_version, tls_cipher = rest
            texts = (owner, kind, node, session, username, client_id)
            middle = {
                "ip": hex_of(str(at)) if at else "",
                "kind": kind,
                "mqtt_version": mqtt_version,
                "node": node,
                "org_id": owner,
            }
            self._sessions[who] = part = _Session(
                b"".join((*map(_text, texts), _inet(at), _int4(port), *map(_text, rest))),
                owner,
                _member("client_id", client_id),
                b"".join(_member(name, value) for name, value in middle.items()),
                _member("port", port),
                _member("session", session),
                _member("tls_cipher", tls_cipher) + _member("tls_version", tls_version),
                _member("transport", transport),
                _member("username", username),
            )
        return part

    def _decision(self, what: tuple[Any, ...]) -> _Decision | None:
        if len(self._decisions) >= KEPT:
            self._decisions.clear()
        reason, action, qos, retain, size, rule, digest, count = what
        fits = _fit((reason, 64), (action, 16), (rule, 64), (digest, 71))
        self._decisions[what] = part = None
        if fits and -1 <= qos <= 2 and 0 <= size < 2**63 and 1 <= count < 2**63:
            after = (_int2(qos), _bool(retain), _int8(size), _text(rule), _text(digest), _int8(count))
            middle = {"qos": qos, "reason": reason, "retain": retain, "rule": rule}
            self._decisions[what] = part = _Decision(
                _text(reason) + _text(action),
                b"".join(after),
                _member("action", action),
                _member("count", count),
                _member("policy_digest", digest),
                b"".join(_member(name, value) for name, value in middle.items()),
                _member("size", size),
            )
        return part


def _member(name: str, value: str | int) -> bytes:
    """A member of a JSON object with a comma behind it; nothing for an empty text."""
    return b"" if value == "" else b'"%s":%s,' % (name.encode(), msgspec.json.encode(value))


_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def _name(identifier: str) -> bytes:
    """The bytes of a UUID in its canonical form; empty for anything else."""
    return bytes.fromhex(identifier.replace("-", "")) if _ID.fullmatch(identifier) else b""


def _fit(*texts: tuple[str, int]) -> bool:
    return all(len(text) <= most and "\0" not in text for text, most in texts)


def _sized(data: bytes) -> bytes:
    return _TAIL.pack(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _int2(value: int) -> bytes:
    return struct.pack(">ih", 2, value)


def _int4(value: int) -> bytes:
    return struct.pack(">ii", 4, value)


def _int8(value: int) -> bytes:
    return struct.pack(">iq", 8, value)


def _bool(value: bool) -> bytes:
    return struct.pack(">i?", 1, value)


def _uuid(value: uuid.UUID) -> bytes:
    return _sized(value.bytes)


def _json(text: str) -> bytes:
    return _sized(b"\1" + text.encode())


def _time(value: datetime) -> bytes:
    return _int8(microseconds(value) - _Y2K_US)


def _inet(value: Any) -> bytes:
    """Family (2 or 3, as PostgreSQL counts them), bits, no network, bytes of the address."""
    if value is None:
        return _NULL
    value = ipaddress.ip_address(value) if isinstance(value, str) else value
    return _sized(bytes((2 if value.version == 4 else 3, value.max_prefixlen, 0, len(value.packed))) + value.packed)


_FIELDS: dict[str, Callable[[Any], bytes]] = {
    "timestamptz": _time, "uuid": _uuid, "text": _text, "inet": _inet, "int2": _int2, "int4": _int4, "int8": _int8,
    "bool": _bool, "jsonb": _json,
}  # fmt: skip


def _field(kind: str, value: Any) -> bytes:
    return _NULL if value is None else _FIELDS[kind](value)

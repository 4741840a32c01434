"""MQTT packets for tests: written and read byte by byte from the specifications, without the edge's codec.

Encoding is permissive (a test must be able to send nonsense); decoding is strict (a server may not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

NAMES = {
    1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 8: "SUBSCRIBE",
    9: "SUBACK", 10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT", 15: "AUTH",
}  # fmt: skip

PROPERTIES: dict[str, tuple[int, str]] = {
    "payload_format": (1, "u8"),
    "message_expiry": (2, "u32"),
    "content_type": (3, "text"),
    "response_topic": (8, "text"),
    "correlation_data": (9, "binary"),
    "subscription_id": (11, "varint"),
    "session_expiry": (17, "u32"),
    "assigned_client_id": (18, "text"),
    "server_keep_alive": (19, "u16"),
    "authentication_method": (21, "text"),
    "authentication_data": (22, "binary"),
    "request_problem_information": (23, "u8"),
    "will_delay": (24, "u32"),
    "request_response_information": (25, "u8"),
    "response_information": (26, "text"),
    "server_reference": (28, "text"),
    "reason_string": (31, "text"),
    "receive_maximum": (33, "u16"),
    "topic_alias_maximum": (34, "u16"),
    "topic_alias": (35, "u16"),
    "maximum_qos": (36, "u8"),
    "retain_available": (37, "u8"),
    "user_property": (38, "pair"),
    "maximum_packet_size": (39, "u32"),
    "wildcard_available": (40, "u8"),
    "subscription_id_available": (41, "u8"),
    "shared_available": (42, "u8"),
}
"""MQTT 5 s2.2.2.2: name -> (identifier, type)."""

_BY_ID = {identifier: (name, kind) for name, (identifier, kind) in PROPERTIES.items()}

Props = dict[str, Any]
"""Property name -> value; ``user_property`` holds a list of pairs, ``subscription_id`` of a delivery a list."""


class Malformed(Exception):  # noqa: N818 - it reads as what it says
    """The server sent something that is not MQTT."""


def varint(value: int) -> bytes:
    """Variable byte integer, MQTT 5 s1.5.5."""
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    """A string with its length; bytes are taken as they are."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, *parts: bytes) -> bytes:
    """A whole packet from its first byte and the parts of its body."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


def properties(props: Props | None) -> bytes:
    """A property block with its length, in the order given."""
    body = b"".join(
        _property(name, one)
        for name, value in (props or {}).items()
        for one in (value if type(value) is list else [value])
    )
    return varint(len(body)) + body


def _property(name: str, value: Any) -> bytes:
    identifier, kind = PROPERTIES[name]
    head = bytes([identifier])
    if kind == "pair":
        return head + text(value[0]) + text(value[1])
    if kind in ("text", "binary"):
        return head + text(value)
    if kind == "varint":
        return head + varint(value)
    return head + value.to_bytes({"u8": 1, "u16": 2, "u32": 4}[kind], "big")


@dataclass(slots=True)
class Will:
    """A will for :func:`connect`."""

    topic: str | bytes
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    props: Props = field(default_factory=dict)


def connect(
    version: int,
    client_id: str | bytes,
    *,
    username: str | bytes | None = None,
    password: str | bytes | None = None,
    clean: bool = True,
    keep_alive: int = 60,
    will: Will | None = None,
    props: Props | None = None,
    flags: int | None = None,
    name: str | bytes = "MQTT",
    level: int | None = None,
) -> bytes:
    """CONNECT, s3.1. ``flags``, ``name`` and ``level`` override what would be right."""
    right = (2 if clean else 0) | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = [text(client_id)]
    if will is not None:
        right |= 4 | will.qos << 3 | (0x20 if will.retain else 0)
        body += [properties(will.props)] if version == 5 else []
        body += [text(will.topic), text(will.payload)]
    body += [text(value) for value in (username, password) if value is not None]
    head = text(name) + bytes([version if level is None else level, right if flags is None else flags])
    return packet(0x10, head, keep_alive.to_bytes(2, "big"), properties(props) if version == 5 else b"", *body)


def publish(
    version: int,
    topic: str | bytes,
    payload: bytes = b"",
    *,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    mid: int = 0,
    props: Props | None = None,
) -> bytes:
    """PUBLISH, s3.3."""
    first = 0x30 | (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    identifier = mid.to_bytes(2, "big") if qos else b""
    return packet(first, text(topic), identifier, properties(props) if version == 5 else b"", payload)


def subscribe(
    version: int, mid: int, filters: Sequence[tuple[str | bytes, int]], props: Props | None = None, *, first: int = 0x82
) -> bytes:
    """SUBSCRIBE, s3.8: pairs of filter and options byte."""
    block = properties(props) if version == 5 else b""
    return packet(first, mid.to_bytes(2, "big"), block, *(text(name) + bytes([options]) for name, options in filters))


def unsubscribe(
    version: int, mid: int, filters: Sequence[str | bytes], props: Props | None = None, *, first: int = 0xA2
) -> bytes:
    """UNSUBSCRIBE, s3.10."""
    block = properties(props) if version == 5 else b""
    return packet(first, mid.to_bytes(2, "big"), block, *map(text, filters))


def ack(kind: int, mid: int, reason: int | None = None, props: Props | None = None) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, s3.4 to s3.7; a reason is written when given."""
    tail = b"" if reason is None else bytes([reason])
    return packet(
        kind << 4 | (2 if kind == PUBREL else 0), mid.to_bytes(2, "big"), tail, properties(props) if props else b""
    )


def disconnect(version: int, reason: int | None = None, props: Props | None = None) -> bytes:
    """DISCONNECT, s3.14."""
    if version != 5 or (reason is None and not props):
        return b"\xe0\x00"
    return packet(0xE0, bytes([reason or 0]), properties(props) if props else b"")


PING = b"\xc0\x00"


@dataclass(slots=True)
class Packet:
    """One packet from a server, decoded. Fields that its kind does not have keep their defaults."""

    kind: int
    flags: int = 0
    mid: int = 0
    reason: int = 0
    """Return or reason code; for SUBACK and UNSUBACK see ``reasons``."""
    reasons: tuple[int, ...] = ()
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    props: Props = field(default_factory=dict)
    raw: bytes = field(default=b"", repr=False)

    @property
    def qos(self) -> int:
        """QoS of a PUBLISH."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """Retain flag of a PUBLISH."""
        return bool(self.flags & 1)

    @property
    def dup(self) -> bool:
        """DUP flag of a PUBLISH."""
        return bool(self.flags & 8)

    @property
    def name(self) -> str:
        """The packet's name in the specification."""
        return NAMES[self.kind]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Malformed("a packet ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        value = self.binary().decode()
        if "\0" in value:
            raise Malformed("a string contains NUL")
        return value

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            digit = self.number(1)
            value |= (digit & 0x7F) << shift
            if digit < 0x80:
                return value
        raise Malformed("a variable byte integer is too long")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def properties(self) -> Props:
        inner = _Cursor(self.take(self.varint()))
        found: Props = {}
        while inner.at < len(inner.data):
            name, kind = _BY_ID[inner.varint()]
            if kind == "pair":
                found.setdefault(name, []).append((inner.text(), inner.text()))
                continue
            value: Any
            if kind == "text":
                value = inner.text()
            elif kind == "binary":
                value = inner.binary()
            elif kind == "varint":
                value = inner.varint()
            else:
                value = inner.number({"u8": 1, "u16": 2, "u32": 4}[kind])
            if name == "subscription_id":
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Malformed(f"property {name} stands twice")
            else:
                found[name] = value
        return found


def decode(first: int, body: bytes, version: int) -> Packet:
    """Decode a packet of a server; raises :class:`Malformed` for anything the specification does not allow."""
    kind, flags = first >> 4, first & 15
    at = _Cursor(body)
    made = Packet(kind, flags, raw=bytes([first]) + varint(len(body)) + body)
    if kind != PUBLISH and flags != (2 if kind == PUBREL else 0):
        raise Malformed(f"{NAMES.get(kind)} has flags {flags:#x}")
    if kind == CONNACK:
        present = at.number(1)
        if present > 1:
            raise Malformed("the acknowledge flags of CONNACK")
        made.session_present, made.reason = bool(present), at.number(1)
        made.props = at.properties() if version == 5 else {}
    elif kind == PUBLISH:
        if made.qos == 3:
            raise Malformed("QoS 3")
        made.topic = at.text()
        made.mid = at.number(2) if made.qos else 0
        made.props = at.properties() if version == 5 else {}
        made.payload = at.rest()
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        made.mid = at.number(2)
        if version == 5 and at.at < len(body):
            made.reason = at.number(1)
            made.props = at.properties() if at.at < len(body) else {}
    elif kind in (SUBACK, UNSUBACK):
        made.mid = at.number(2)
        made.props = at.properties() if version == 5 else {}
        made.reasons = tuple(at.rest())
    elif kind == DISCONNECT and version == 5:
        made.reason = at.number(1) if body else 0
        made.props = at.properties() if at.at < len(body) else {}
    elif kind != PINGRESP:
        raise Malformed(f"a server may not send packet kind {kind}")
    if at.at != len(body):
        raise Malformed(f"{made.name} has bytes after its end")
    return made


def split(buffer: bytearray) -> tuple[int, bytes] | None:
    """Take the first whole packet off ``buffer``: its first byte and its body; ``None`` when it is not complete."""
    length = 0
    for index in range(1, min(len(buffer), 5)):
        length |= (buffer[index] & 0x7F) << 7 * (index - 1)
        if buffer[index] < 0x80:
            end = index + 1 + length
            if len(buffer) < end:
                return None
            first, body = buffer[0], bytes(buffer[index + 1 : end])
            del buffer[:end]
            return first, body
    if len(buffer) >= 5:
        raise Malformed("a remaining length has more than four bytes")
    return None

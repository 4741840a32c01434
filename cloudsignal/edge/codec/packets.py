"""The packets of a live connection (MQTT 3.1.1 s3, MQTT 5 s3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudsignal.edge.codec.connect import check_topic_filter, check_topic_name
from cloudsignal.edge.codec.primitives import ProtocolError, Reader, binary, malformed, packet, protocol_error, u16
from cloudsignal.edge.codec.properties import Properties, Property, Where, decode_properties
from cloudsignal.edge.codec.reasons import CONNACK_3, Kind, Reason

FILTERS_MAX = 2_000
"""Filters of one SUBSCRIBE or UNSUBSCRIBE; they are counted before any of them is looked at."""


@dataclass(slots=True)
class Publish:
    """A PUBLISH. The payload is carried, never looked at."""

    topic: bytes
    """Empty only where a topic alias stands for it."""
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Subscription:
    """One filter of a SUBSCRIBE with its options byte (MQTT 5 s3.8.3.1)."""

    topic_filter: bytes
    options: int

    @property
    def qos(self) -> int:
        """The QoS asked for."""
        return self.options & 3


@dataclass(slots=True)
class Subscribe:
    """A SUBSCRIBE."""

    packet_id: int
    entries: list[Subscription]
    properties: Properties = field(default_factory=Properties)
    beyond: int = 0
    """How many more there were that nobody looked at."""


@dataclass(slots=True)
class Unsubscribe:
    """An UNSUBSCRIBE."""

    packet_id: int
    filters: list[bytes]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Connack:
    """A CONNACK."""

    code: int
    session_present: bool = False
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Acknowledgement:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    packet_id: int
    code: int = 0


@dataclass(slots=True)
class Disconnect:
    """A DISCONNECT."""

    code: int = 0
    properties: Properties = field(default_factory=Properties)


def decode_publish(first: int, body: bytes, version: int, *, where: Where = "PUBLISH") -> Publish:
    """Decode a PUBLISH; without a topic alias an empty topic is refused."""
    qos = first >> 1 & 3
    if qos == 3:
        raise malformed("QoS 3 does not exist")
    if not qos and first & 8:
        raise malformed("DUP on a QoS 0 message")
    reader = Reader(body)
    topic = reader.text("a topic name", Reason.TOPIC_INVALID)
    packet_id = _packet_id(reader) if qos else 0
    properties = decode_properties(reader, where) if version == 5 else Properties()
    if topic or version != 5 or not properties.number(Property.TOPIC_ALIAS, 0):
        check_topic_name(topic)
    return Publish(topic, reader.rest(), qos, bool(first & 1), bool(first & 8), packet_id, properties)


def encode_publish(message: Publish, version: int) -> bytes:
    """Encode a PUBLISH."""
    first = Kind.PUBLISH | message.duplicate << 3 | message.qos << 1 | message.retain
    identifier = u16(message.packet_id) if message.qos else b""
    properties = message.properties.encode() if version == 5 else b""
    return packet(first, binary(message.topic), identifier, properties, message.payload)


def decode_subscribe(first: int, body: bytes, version: int, look: int = FILTERS_MAX) -> Subscribe:
    """Decode a SUBSCRIBE and check every filter and option of the first ``look``."""
    if first != Kind.SUBSCRIBE | 2:
        raise malformed("the flags of SUBSCRIBE are wrong")
    reader = Reader(body)
    packet_id = _packet_id(reader)
    properties = decode_properties(reader, "SUBSCRIBE") if version == 5 else Properties()
    count = _filters(reader, 1)
    entries: list[Subscription] = []
    for _ in range(min(count, look)):
        topic_filter = reader.text("a topic filter", Reason.FILTER_INVALID)
        options = reader.u8()
        if options & 3 == 3 or options & (0xC0 if version == 5 else 0xFC) or options >> 4 & 3 == 3:
            raise malformed("the options of a subscription are wrong")
        check_topic_filter(topic_filter)
        if options & 4 and topic_filter.startswith(b"$share/"):
            raise protocol_error("No Local on a shared subscription")
        entries.append(Subscription(topic_filter, options))
    if not entries:
        raise protocol_error("SUBSCRIBE without a filter")
    return Subscribe(packet_id, entries, properties, count - len(entries))


def encode_subscribe(message: Subscribe, version: int) -> bytes:
    """Encode a SUBSCRIBE."""
    properties = message.properties.encode() if version == 5 else b""
    entries = [binary(entry.topic_filter) + bytes([entry.options]) for entry in message.entries]
    return packet(Kind.SUBSCRIBE | 2, u16(message.packet_id), properties, *entries)


def decode_unsubscribe(first: int, body: bytes, version: int) -> Unsubscribe:
    """Decode an UNSUBSCRIBE."""
    if first != Kind.UNSUBSCRIBE | 2:
        raise malformed("the flags of UNSUBSCRIBE are wrong")
    reader = Reader(body)
    packet_id = _packet_id(reader)
    properties = decode_properties(reader, "UNSUBSCRIBE") if version == 5 else Properties()
    count = _filters(reader, 0)
    filters: list[bytes] = []
    for _ in range(count):
        topic_filter = reader.text("a topic filter", Reason.FILTER_INVALID)
        check_topic_filter(topic_filter)
        filters.append(topic_filter)
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, filters, properties)


def encode_unsubscribe(message: Unsubscribe, version: int) -> bytes:
    """Encode an UNSUBSCRIBE."""
    properties = message.properties.encode() if version == 5 else b""
    return packet(Kind.UNSUBSCRIBE | 2, u16(message.packet_id), properties, *map(binary, message.filters))


def decode_suback(body: bytes, version: int) -> tuple[int, list[int]]:
    """Packet identifier and reason codes of a SUBACK or UNSUBACK (3.1.1 has no codes in UNSUBACK)."""
    reader = Reader(body)
    packet_id = _packet_id(reader)
    if version == 5:
        decode_properties(reader, "ACK")
    return packet_id, list(reader.rest())


def suback(packet_id: int, codes: Sequence[int], version: int) -> bytes:
    """Encode a SUBACK without properties."""
    return packet(Kind.SUBACK, u16(packet_id), b"\0" if version == 5 else b"", bytes(codes))


def unsuback(packet_id: int, codes: Sequence[int], version: int) -> bytes:
    """Encode an UNSUBACK without properties."""
    return packet(Kind.UNSUBACK, u16(packet_id), *([b"\0", bytes(codes)] if version == 5 else []))


def decode_connack(body: bytes, version: int) -> Connack:
    """Decode a CONNACK."""
    reader = Reader(body)
    flags, code = reader.u8(), reader.u8()
    properties = decode_properties(reader, "CONNACK") if version == 5 else Properties()
    reader.done()
    return Connack(code, bool(flags & 1), properties)


def connack(version: int, reason: int, *, session_present: bool = False, properties: Properties | None = None) -> bytes:
    """Encode a CONNACK; ``reason`` is a code of MQTT 5 and is translated for 3.1.1."""
    if version == 5:
        return packet(Kind.CONNACK, bytes([session_present, reason]), (properties or Properties()).encode())
    code = CONNACK_3.get(Reason(reason), 5) if reason else 0
    return packet(Kind.CONNACK, bytes([session_present, code]))


def decode_acknowledgement(first: int, body: bytes, version: int) -> Acknowledgement:
    """Decode PUBACK, PUBREC, PUBREL or PUBCOMP; in MQTT 5 code and properties may be left out."""
    if first & 15 != (2 if first & 0xF0 == Kind.PUBREL else 0):
        raise malformed("the flags of an acknowledgement are wrong")
    reader = Reader(body)
    packet_id = _packet_id(reader)
    code = 0
    if version == 5 and reader.left:
        code = reader.u8()
        if reader.left:
            decode_properties(reader, "ACK")
    reader.done()
    return Acknowledgement(packet_id, code)


def acknowledgement(kind: Kind, packet_id: int, version: int, reason: int = 0, text: str = "") -> bytes:
    """Encode PUBACK, PUBREC, PUBREL or PUBCOMP; in MQTT 5 with a reason string when ``text`` is given."""
    first = kind | (2 if kind is Kind.PUBREL else 0)
    if text and version == 5:
        properties = Properties([(Property.REASON_STRING, text.encode())])
        return packet(first, u16(packet_id), bytes([reason]), properties.encode())
    return packet(first, u16(packet_id), bytes([reason]) if version == 5 and reason else b"")


def decode_disconnect(first: int, body: bytes, version: int) -> Disconnect:
    """Decode a DISCONNECT; in MQTT 5 code and properties may be left out."""
    if first != Kind.DISCONNECT:
        raise malformed("the flags of DISCONNECT are not zero")
    if version != 5:
        if body:
            raise malformed("DISCONNECT has a body")
        return Disconnect()
    reader = Reader(body)
    code = reader.u8() if reader.left else 0
    properties = decode_properties(reader, "DISCONNECT") if reader.left else Properties()
    reader.done()
    return Disconnect(code, properties)


def disconnect(reason: int, text: str = "") -> bytes:
    """Encode a DISCONNECT of MQTT 5, with a reason string when ``text`` is given."""
    if not text:
        return packet(Kind.DISCONNECT, bytes([reason]))
    properties = Properties([(Property.REASON_STRING, text.encode())])
    return packet(Kind.DISCONNECT, bytes([reason]), properties.encode())


def _filters(reader: Reader, options: int) -> int:
    """How many filters are left to read, each with so many bytes of options behind it."""
    data, position, end = reader.data, reader.position, reader.end
    count = 0
    while position < end - 1:
        position += 2 + (data[position] << 8 | data[position + 1]) + options
        count += 1
        if count > FILTERS_MAX:
            raise ProtocolError(Reason.QUOTA_EXCEEDED, f"a packet has more than {FILTERS_MAX:,} topic filters")
    if position != end:
        raise malformed("a packet ends too early")
    return count


def _packet_id(reader: Reader) -> int:
    packet_id = reader.u16()
    if not packet_id:
        raise protocol_error("a packet identifier is 0")
    return packet_id

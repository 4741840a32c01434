"""MQTT 5 properties (s2.2.2): decoded in order, checked against the packet they stand in, and encoded again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Literal

from cloudsignal.edge.codec.primitives import (
    ProtocolError,
    Reader,
    UnfitError,
    binary,
    malformed,
    protocol_error,
)
from cloudsignal.edge.codec.primitives import varint as encode_varint
from cloudsignal.edge.codec.reasons import Reason


class Property(IntEnum):
    """Identifiers of MQTT 5 s2.2.2.2."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTHENTICATION_METHOD = 21
    AUTHENTICATION_DATA = 22
    REQUEST_PROBLEM_INFORMATION = 23
    WILL_DELAY = 24
    REQUEST_RESPONSE_INFORMATION = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAXIMUM = 33
    TOPIC_ALIAS_MAXIMUM = 34
    TOPIC_ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER_PROPERTY = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARD_AVAILABLE = 40
    SUBSCRIPTION_ID_AVAILABLE = 41
    SHARED_AVAILABLE = 42


Where = Literal["CONNECT", "WILL", "CONNACK", "PUBLISH", "DELIVERY", "ACK", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT"]
"""The packet a property stands in. ``DELIVERY`` is a PUBLISH from the broker, ``ACK`` every kind of acknowledgement."""

Value = int | bytes | tuple[bytes, bytes]

USER_PROPERTIES_MAX = 256
"""User properties of one packet. Every one costs as much to read as a small packet of its own."""

EARLY_USER_PROPERTIES_MAX = 32
"""User properties of a CONNECT, and of its will: nobody has signed in yet."""

_P = Property
_MESSAGE = (
    _P.PAYLOAD_FORMAT,
    _P.MESSAGE_EXPIRY,
    _P.CONTENT_TYPE,
    _P.RESPONSE_TOPIC,
    _P.CORRELATION_DATA,
    _P.USER_PROPERTY,
)
_ALLOWED: dict[Where, frozenset[int]] = {
    "CONNECT": frozenset(
        {
            _P.SESSION_EXPIRY,
            _P.AUTHENTICATION_METHOD,
            _P.AUTHENTICATION_DATA,
            _P.REQUEST_PROBLEM_INFORMATION,
            _P.REQUEST_RESPONSE_INFORMATION,
            _P.RECEIVE_MAXIMUM,
            _P.TOPIC_ALIAS_MAXIMUM,
            _P.USER_PROPERTY,
            _P.MAXIMUM_PACKET_SIZE,
        }
    ),
    "WILL": frozenset({*_MESSAGE, _P.WILL_DELAY}),
    "CONNACK": frozenset(
        {
            _P.SESSION_EXPIRY,
            _P.ASSIGNED_CLIENT_ID,
            _P.SERVER_KEEP_ALIVE,
            _P.AUTHENTICATION_METHOD,
            _P.AUTHENTICATION_DATA,
            _P.RESPONSE_INFORMATION,
            _P.SERVER_REFERENCE,
            _P.REASON_STRING,
            _P.RECEIVE_MAXIMUM,
            _P.TOPIC_ALIAS_MAXIMUM,
            _P.MAXIMUM_QOS,
            _P.RETAIN_AVAILABLE,
            _P.USER_PROPERTY,
            _P.MAXIMUM_PACKET_SIZE,
            _P.WILDCARD_AVAILABLE,
            _P.SUBSCRIPTION_ID_AVAILABLE,
            _P.SHARED_AVAILABLE,
        }
    ),
    "PUBLISH": frozenset({*_MESSAGE, _P.TOPIC_ALIAS}),
    "DELIVERY": frozenset({*_MESSAGE, _P.TOPIC_ALIAS, _P.SUBSCRIPTION_ID}),
    "ACK": frozenset({_P.REASON_STRING, _P.USER_PROPERTY}),
    "SUBSCRIBE": frozenset({_P.SUBSCRIPTION_ID, _P.USER_PROPERTY}),
    "UNSUBSCRIBE": frozenset({_P.USER_PROPERTY}),
    "DISCONNECT": frozenset({_P.SESSION_EXPIRY, _P.SERVER_REFERENCE, _P.REASON_STRING, _P.USER_PROPERTY}),
}

_BYTE = frozenset(
    {
        _P.PAYLOAD_FORMAT,
        _P.REQUEST_PROBLEM_INFORMATION,
        _P.REQUEST_RESPONSE_INFORMATION,
        _P.MAXIMUM_QOS,
        _P.RETAIN_AVAILABLE,
        _P.WILDCARD_AVAILABLE,
        _P.SUBSCRIPTION_ID_AVAILABLE,
        _P.SHARED_AVAILABLE,
    }
)
_TWO = frozenset({_P.SERVER_KEEP_ALIVE, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS_MAXIMUM, _P.TOPIC_ALIAS})
_FOUR = frozenset({_P.MESSAGE_EXPIRY, _P.SESSION_EXPIRY, _P.WILL_DELAY, _P.MAXIMUM_PACKET_SIZE})
_BINARY = frozenset({_P.CORRELATION_DATA, _P.AUTHENTICATION_DATA})
_NOT_ZERO = frozenset({_P.RECEIVE_MAXIMUM, _P.MAXIMUM_PACKET_SIZE, _P.SUBSCRIPTION_ID})


class Properties:
    """An ordered list of ``(identifier, value)``: strings are checked UTF-8 bytes, user properties pairs of them.

    Never changed once made: what was read is written again as the same bytes.
    """

    __slots__ = ("_encoded", "items")

    def __init__(self, items: Iterable[tuple[int, Value]] = (), encoded: bytes | None = None) -> None:
        self.items = list(items)
        self._encoded = encoded

    def __iter__(self) -> Iterator[tuple[int, Value]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Properties) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]

    def number(self, identifier: Property, default: int) -> int:
        """The value of an integer property, or ``default``."""
        for name, value in self.items:
            if name == identifier and isinstance(value, int):
                return value
        return default

    def string(self, identifier: Property) -> bytes | None:
        """The value of a string or binary property."""
        for name, value in self.items:
            if name == identifier and isinstance(value, bytes):
                return value
        return None

    def without(self, *identifiers: Property) -> Properties:
        """The same without these."""
        if all(name not in identifiers for name, _ in self.items):
            return self
        return Properties((name, value) for name, value in self.items if name not in identifiers)

    def with_(self, identifier: Property, value: Value) -> Properties:
        """A copy with one property replaced in place, or added at the end."""
        replaced = [(name, value if name == identifier else old) for name, old in self.items]
        if all(name != identifier for name, _ in self.items):
            replaced.append((identifier, value))
        return Properties(replaced)

    def encode(self) -> bytes:
        """With the length in front."""
        if self._encoded is not None:
            return self._encoded
        body = b"".join(_encode(name, value) for name, value in self.items)
        return encode_varint(len(body)) + body


def decode_properties(reader: Reader, where: Where, user_properties: int = USER_PROPERTIES_MAX) -> Properties:
    """Read a property block; raises :class:`ProtocolError` on any that is unknown, misplaced, repeated or wrong.

    One with more than so many user properties is not read to its end (0x97).
    """
    start = reader.position
    length = reader.varint()
    if length > reader.left:
        raise malformed("the properties end after their packet")
    data, position = reader.data, reader.position
    end = reader.position = position + length
    if not length:
        return Properties()
    allowed = _ALLOWED[where]
    seen: set[int] = set()
    users = 0
    items: list[tuple[int, Value]] = []
    inner = Reader(data, position, end)
    while inner.left:
        identifier = inner.varint()
        if identifier not in allowed:
            raise malformed("a property is unknown or has no place in this packet")
        if identifier == _P.USER_PROPERTY:
            users += 1
            if users > user_properties:
                raise UnfitError(Reason.QUOTA_EXCEEDED, f"a packet has more than {user_properties} user properties")
        elif identifier in seen and not (identifier == _P.SUBSCRIPTION_ID and where == "DELIVERY"):
            raise protocol_error("a property stands twice")
        seen.add(identifier)
        items.append((identifier, _decode(inner, identifier)))
    return Properties(items, data[start:end])


def _decode(reader: Reader, identifier: int) -> Value:
    if identifier == _P.USER_PROPERTY:
        return reader.text(), reader.text()
    if identifier in _BYTE:
        number = reader.u8()
        if number > 1:
            raise protocol_error("a property that may be 0 or 1 is neither")
        return number
    if identifier in _TWO or identifier in _FOUR or identifier == _P.SUBSCRIPTION_ID:
        number = reader.u16() if identifier in _TWO else reader.u32() if identifier in _FOUR else reader.varint()
        if not number and identifier in _NOT_ZERO:
            raise protocol_error("a property that may not be 0 is 0")
        if not number and identifier == _P.TOPIC_ALIAS:
            raise ProtocolError(Reason.TOPIC_ALIAS_INVALID, "a topic alias is 0")
        return number
    if identifier in _BINARY:
        return reader.binary()
    if identifier != _P.RESPONSE_TOPIC:
        return reader.text()
    value = reader.text("a response topic", Reason.TOPIC_INVALID)
    if not value or b"+" in value or b"#" in value:
        raise protocol_error("a response topic is not a topic name")
    return value


def _encode(identifier: int, value: Value) -> bytes:
    head = encode_varint(identifier)
    if isinstance(value, tuple):
        return head + binary(value[0]) + binary(value[1])
    if isinstance(value, bytes):
        return head + binary(value)
    if identifier == _P.SUBSCRIPTION_ID:
        return head + encode_varint(value)
    return head + value.to_bytes(1 if identifier in _BYTE else 2 if identifier in _TWO else 4, "big")

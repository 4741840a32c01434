"""CONNECT (MQTT 3.1.1 s3.1, MQTT 5 s3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudsignal.edge.codec.primitives import ProtocolError, Reader, binary, malformed, packet, protocol_error, u16
from cloudsignal.edge.codec.properties import EARLY_USER_PROPERTIES_MAX, Properties, Property, decode_properties
from cloudsignal.edge.codec.reasons import Kind, Reason

USERNAME, PASSWORD, WILL_RETAIN, WILL, CLEAN = 0x80, 0x40, 0x20, 0x04, 0x02


BRIDGE = 0x80
"""Set by Mosquitto in the protocol version of its bridges, which try again without when they get return code 1."""


@dataclass(slots=True)
class Will:
    """The message the broker publishes when the client is lost. The payload is carried, never looked at."""

    topic: bytes
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Connect:
    """A client's first packet."""

    version: int
    """4 for MQTT 3.1.1, 5 for MQTT 5.0."""
    client_id: str
    clean_start: bool = True
    keep_alive: int = 0
    """Seconds; 0 turns it off."""
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    properties: Properties = field(default_factory=Properties)


class UnsupportedVersionError(ProtocolError):
    """MQTT 3.1, something newer than 5, or a bridge that says so in the version (the highest bit)."""

    def __init__(self, version: int) -> None:
        text = "the protocol version is not supported; 3.1.1 and 5 are"
        if version & BRIDGE and version & ~BRIDGE in {4, 5}:
            text = "a bridge is welcome without the bridge bit in its protocol version; it tries again without"
        super().__init__(Reason.UNSUPPORTED_VERSION, text, 1)
        self.newer = 5 < version < BRIDGE
        """Whether the answer takes the form of MQTT 5."""


def decode_connect(first: int, body: bytes) -> Connect:
    """Decode a CONNECT body; raises :class:`UnsupportedVersionError` for a version that gets an answer of its own."""
    if first != Kind.CONNECT:
        raise malformed("the flags of CONNECT are not zero")
    reader = Reader(body)
    name = reader.binary()
    version = reader.u8()
    if name == b"MQIsdp" or (name == b"MQTT" and version not in {4, 5}):
        raise UnsupportedVersionError(version)
    if name != b"MQTT":
        raise malformed("the protocol name is not MQTT")
    flags = reader.u8()
    keep_alive = reader.u16()
    will_qos = flags >> 3 & 3
    if flags & 1 or will_qos == 3:
        raise malformed("the connect flags are wrong")
    if not flags & WILL and (will_qos or flags & WILL_RETAIN):
        raise malformed("will flags without a will")
    if version == 4 and flags & PASSWORD and not flags & USERNAME:
        raise malformed("a password without a username")
    properties = decode_properties(reader, "CONNECT", EARLY_USER_PROPERTIES_MAX) if version == 5 else Properties()
    method = properties.string(Property.AUTHENTICATION_METHOD)
    if method is None and properties.string(Property.AUTHENTICATION_DATA) is not None:
        raise protocol_error("authentication data without a method")
    client_id = reader.text("the client ID", Reason.CLIENT_ID_INVALID, 2).decode()
    will = None
    if flags & WILL:
        will_properties = Properties()
        if version == 5:
            will_properties = decode_properties(reader, "WILL", EARLY_USER_PROPERTIES_MAX)
        topic = reader.text("the topic of the will", Reason.TOPIC_INVALID, 5)
        check_topic_name(topic)
        will = Will(topic, reader.binary(), will_qos, bool(flags & WILL_RETAIN), will_properties)
    username = reader.text("the username", return_code=4).decode() if flags & USERNAME else None
    password = reader.binary() if flags & PASSWORD else None
    reader.done()
    return Connect(version, client_id, bool(flags & CLEAN), keep_alive, username, password, will, properties)


def encode_connect(connect: Connect) -> bytes:
    """Encode a CONNECT packet."""
    five = connect.version == 5
    flags = CLEAN if connect.clean_start else 0
    parts = [binary(connect.client_id.encode())]
    if connect.will is not None:
        flags |= WILL | connect.will.qos << 3 | (WILL_RETAIN if connect.will.retain else 0)
        parts += [connect.will.properties.encode()] if five else []
        parts += [binary(connect.will.topic), binary(connect.will.payload)]
    if connect.username is not None:
        flags |= USERNAME
        parts.append(binary(connect.username.encode()))
    if connect.password is not None:
        flags |= PASSWORD
        parts.append(binary(connect.password))
    head = binary(b"MQTT") + bytes([connect.version, flags]) + u16(connect.keep_alive)
    return packet(Kind.CONNECT, head, connect.properties.encode() if five else b"", *parts)


def check_topic_name(topic: bytes) -> None:
    """MQTT 5 s3.3.2.1 and s4.7.3: not empty, no wildcards."""
    if not topic:
        raise ProtocolError(Reason.TOPIC_INVALID, "a topic name is empty")
    if b"+" in topic or b"#" in topic:
        raise ProtocolError(Reason.TOPIC_INVALID, "a topic name contains a wildcard")


def check_topic_filter(topic_filter: bytes) -> None:
    """MQTT 5 s4.7.1: wildcards fill whole levels, ``#`` is last; s4.8.2 for ``$share``."""
    if not topic_filter:
        raise protocol_error("a topic filter is empty")
    if topic_filter.startswith(b"$share/"):
        group, slash, inner = topic_filter[7:].partition(b"/")
        if not group or not slash or not inner or b"+" in group or b"#" in group:
            raise ProtocolError(Reason.FILTER_INVALID, "a shared subscription is not $share/GROUP/FILTER")
        topic_filter = inner
    if b"+" not in topic_filter and b"#" not in topic_filter:
        return
    levels = topic_filter.split(b"/")
    for index, level in enumerate(levels):
        wrong = (b"+" in level and level != b"+") or (b"#" in level and (level != b"#" or index != len(levels) - 1))
        if wrong:
            raise ProtocolError(Reason.FILTER_INVALID, "a wildcard does not fill its level")

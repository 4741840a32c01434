"""Packets that were made to be dear: what an attacker sent, byte for byte, for tests and benchmarks to send again.

Every function returns bytes (or a list of them) and knows no connection. Sizes are those of the attacks: just below the
256 KiB a packet may have by default.
"""

from __future__ import annotations

from cloudsignal.edge.codec.primitives import binary, packet, u16, varint

EMPTY = b"\x26\0\0\0\0"
"""A user property without name or value: five bytes."""

USER_PROPERTIES = 52_000
SUBSCRIBE_FILTERS = 65_000
UNSUBSCRIBE_FILTERS = 87_000
SUBSCRIBERS = 60
CONNECTS = 100


def block(user_properties: int = USER_PROPERTIES) -> bytes:
    """A property block of nothing but empty user properties."""
    body = EMPTY * user_properties
    return varint(len(body)) + body


def publish(topic: str, *, user_properties: int = USER_PROPERTIES, qos: int = 0, packet_id: int = 1) -> bytes:
    """PUBLISH of MQTT 5, 260 KB of which are user properties: dear to read, and again for every subscriber."""
    identifier = u16(packet_id) if qos else b""
    return packet(0x30 | qos << 1, binary(topic.encode()), identifier, block(user_properties), b"x")


def connect(
    client_id: str = "c",
    *,
    user_properties: int = USER_PROPERTIES,
    username: str = "nobody@org_aaaaaaaaaaaa",
    password: str = "x",  # noqa: S107 - nobody's
    will: bool = False,
) -> bytes:
    """CONNECT of MQTT 5 with such properties, in its own block or in the will's. No credential is needed for it."""
    flags = 0xC2 | (0x04 if will else 0)
    own, wills = (b"\0", block(user_properties)) if will else (block(user_properties), b"")
    last = [wills, binary(b"will"), binary(b"")] if will else []
    head = binary(b"MQTT") + bytes([5, flags]) + u16(60)
    return packet(
        0x10, head, own, binary(client_id.encode()), *last, *map(binary, (username.encode(), password.encode()))
    )


def subscribe(*, version: int = 5, filters: int = SUBSCRIBE_FILTERS, packet_id: int = 1) -> bytes:
    """SUBSCRIBE with that many filters of one letter."""
    properties = b"\0" if version == 5 else b""
    return packet(0x82, u16(packet_id), properties, b"\0\x01a\0" * filters)


def unsubscribe(*, version: int = 5, filters: int = UNSUBSCRIBE_FILTERS, packet_id: int = 1) -> bytes:
    """UNSUBSCRIBE with that many filters of one letter."""
    properties = b"\0" if version == 5 else b""
    return packet(0xA2, u16(packet_id), properties, b"\0\x01a" * filters)


def small(topic: str, *, count: int = 8_000) -> bytes:
    """As many messages as fit into one read, each with a user property, so that none goes the quick way."""
    return packet(0x30, binary(topic.encode()), block(1), b"x") * count

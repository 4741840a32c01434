"""Packet types and reason codes, by the names of the specification (MQTT 5 s2.1.2 and s2.4)."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """The first four bits of a packet, as they stand in its first byte."""

    CONNECT = 0x10
    CONNACK = 0x20
    PUBLISH = 0x30
    PUBACK = 0x40
    PUBREC = 0x50
    PUBREL = 0x60
    PUBCOMP = 0x70
    SUBSCRIBE = 0x80
    SUBACK = 0x90
    UNSUBSCRIBE = 0xA0
    UNSUBACK = 0xB0
    PINGREQ = 0xC0
    PINGRESP = 0xD0
    DISCONNECT = 0xE0
    AUTH = 0xF0


class Reason(IntEnum):
    """The reason codes of MQTT 5 that the edge sends or looks at."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_INVALID = 0x85
    BAD_LOGIN = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    FILTER_INVALID = 0x8F
    TOPIC_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE = 0x98
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    CONNECTION_RATE_EXCEEDED = 0x9F


TRY_ANOTHER: dict[int, frozenset[int]] = {
    4: frozenset({3}),
    5: frozenset(
        {Reason.SERVER_UNAVAILABLE, Reason.SERVER_BUSY, Reason.USE_ANOTHER_SERVER, Reason.SERVER_MOVED},
    ),
}
"""By protocol level: the CONNACK codes of one broker node after which another is tried (MQTT 5 s3.2.2.2).

The Server Reference that may come with the last two is not followed: the edge knows its broker's nodes itself.
"""

CONNACK_3 = {
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_INVALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.SERVER_BUSY: 3,
    Reason.QUOTA_EXCEEDED: 3,
    Reason.SHUTTING_DOWN: 3,
    Reason.CONNECTION_RATE_EXCEEDED: 3,
    Reason.BAD_LOGIN: 4,
}
"""CONNACK return codes of MQTT 3.1.1 (s3.2.2.3); every other refusal is 5, "not authorized"."""

"""Reason codes and texts for every refusal and end, the CONNECT sent upstream, and the CONNACK passed on."""

from __future__ import annotations

from dataclasses import dataclass

from audit.kinds import AuthReason, CloseCause
from cloudsignal.config import Upstream
from cloudsignal.edge import codec
from cloudsignal.edge.codec import Connect, Kind, Properties, Property, Reason, Will
from cloudsignal.edge.codec.primitives import malformed
from cloudsignal.edge.session.frames import long_length, too_large
from cloudsignal.edge.session.mountpoint import IN_FLIGHT, MOUNT_OVERHEAD, Mount, MountError
from cloudsignal.edge.session.uplink import ALIAS_MAX

__all__ = ["AUTH_ANSWERS", "CAUSE_OF", "CLOSE_ANSWERS", "REFUSAL_OF", "WITHOUT_WILL", "MountError"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a client: a reason code, and for MQTT 5 a sentence."""

    code: Reason
    text: str
    passes: bool = False
    """The refusal is temporary: its code says "try again", never "not authorized"."""


_WRONG = Answer(Reason.BAD_LOGIN, "username or password is wrong")

AUTH_ANSWERS: dict[AuthReason, Answer] = {
    AuthReason.MALFORMED: _WRONG,
    AuthReason.UNKNOWN: _WRONG,
    AuthReason.BAD_SECRET: _WRONG,
    AuthReason.EXPIRED: Answer(Reason.NOT_AUTHORIZED, "credential expired; fetch a new one"),
    AuthReason.RETIRED: Answer(Reason.NOT_AUTHORIZED, "credential retired by newer ones; refresh it"),
    AuthReason.REVOKED: Answer(Reason.NOT_AUTHORIZED, "credential revoked"),
    AuthReason.WRONG_ORG: Answer(Reason.NOT_AUTHORIZED, "credential belongs to another organization"),
    AuthReason.ORG_SUSPENDED: Answer(Reason.SERVER_UNAVAILABLE, "organization suspended; try again later", passes=True),
    AuthReason.NO_POLICY: Answer(
        Reason.SERVER_UNAVAILABLE, "organization has no active policy yet; try again later", passes=True
    ),
    AuthReason.WILL_DENIED: Answer(Reason.NOT_AUTHORIZED, "the policy does not allow the will"),
    AuthReason.QUOTA: Answer(Reason.QUOTA_EXCEEDED, "quota of the organization reached; try again later", passes=True),
    AuthReason.RATE_LIMITED: Answer(
        Reason.CONNECTION_RATE_EXCEEDED,
        "too many failed sign-ins from this address; try again in a minute",
        passes=True,
    ),
    AuthReason.CLIENT_ID_TAKEN: Answer(Reason.CLIENT_ID_INVALID, "another username holds this client ID"),
    AuthReason.UNAVAILABLE: Answer(Reason.SERVER_UNAVAILABLE, "not available right now; try again later", passes=True),
    AuthReason.PROTOCOL: Answer(Reason.PROTOCOL_ERROR, "the CONNECT is wrong"),
}
"""The CONNACK of every refusal (MQTT 5 s3.2.2.2); ``codec.connack`` translates the code for 3.1.1."""

CLOSE_ANSWERS: dict[CloseCause, Answer] = {
    CloseCause.EXPIRED: Answer(Reason.NOT_AUTHORIZED, "credential expired"),
    CloseCause.REVOKED: Answer(Reason.NOT_AUTHORIZED, "credential revoked"),
    CloseCause.ORG_SUSPENDED: Answer(Reason.ADMINISTRATIVE, "organization suspended", passes=True),
    CloseCause.KICKED: Answer(Reason.ADMINISTRATIVE, "closed by an administrator", passes=True),
    CloseCause.TAKEN_OVER: Answer(Reason.TAKEN_OVER, "the client ID has signed in again"),
    CloseCause.WILL_DENIED: Answer(Reason.ADMINISTRATIVE, "the policy no longer allows the will"),
    CloseCause.QUOTA: Answer(Reason.QUOTA_EXCEEDED, "quota of the organization reached", passes=True),
    CloseCause.DRAINING: Answer(Reason.SHUTTING_DOWN, "the server is shutting down; connect again", passes=True),
    CloseCause.UPSTREAM_LOST: Answer(Reason.SERVER_BUSY, "the broker is unavailable; try again later", passes=True),
    CloseCause.SPLIT_OVER: Answer(Reason.SERVER_BUSY, "publishes were not acknowledged; send them again", passes=True),
    CloseCause.PROTOCOL: Answer(Reason.PROTOCOL_ERROR, ""),
    CloseCause.INVARIANT: Answer(Reason.UNSPECIFIED, "internal error"),
}
"""The DISCONNECT when the edge ends a live session (MQTT 5 s3.14.2.1); nobody is told of ``node_lost``."""

CAUSE_OF: dict[int, CloseCause] = {
    Reason.TAKEN_OVER: CloseCause.TAKEN_OVER,
    **dict.fromkeys(
        (
            Reason.MALFORMED,
            Reason.PROTOCOL_ERROR,
            Reason.RECEIVE_MAXIMUM_EXCEEDED,
            Reason.PACKET_TOO_LARGE,
            Reason.QOS_NOT_SUPPORTED,
        ),
        CloseCause.PROTOCOL,
    ),
}
"""Cause of a session's end by the reason code of the broker's DISCONNECT; other codes mean a lost broker."""

REFUSAL_OF: dict[CloseCause, AuthReason] = {
    cause: {
        CloseCause.EXPIRED: AuthReason.EXPIRED,
        CloseCause.REVOKED: AuthReason.REVOKED,
        CloseCause.ORG_SUSPENDED: AuthReason.ORG_SUSPENDED,
        CloseCause.QUOTA: AuthReason.QUOTA,
    }.get(cause, AuthReason.UNAVAILABLE)
    for cause in CloseCause
}
"""Refusal for a session that is ended, by the cause, before it has its CONNACK."""

WITHOUT_WILL = frozenset({CloseCause.REVOKED, CloseCause.ORG_SUSPENDED, CloseCause.WILL_DENIED})
"""Causes for which the broker gets a normal DISCONNECT, so that it drops the will."""

_PASSED_ON = (
    Property.SESSION_EXPIRY,
    Property.RECEIVE_MAXIMUM,
    Property.MAXIMUM_QOS,
    Property.RETAIN_AVAILABLE,
    Property.WILDCARD_AVAILABLE,
    Property.SUBSCRIPTION_ID_AVAILABLE,
    Property.SHARED_AVAILABLE,
)
"""CONNACK properties of the broker that the client sees; the others are the edge's own or could show the mount."""


def first_packet(data: bytes, limit: int) -> tuple[bytes, bytes] | int:
    """Split ``data`` into the body of the first packet, which must be a CONNECT, and the rest.

    While it is incomplete: how many bytes it will have, or 0 when that is not known yet.
    """
    if data and data[0] != Kind.CONNECT:
        raise malformed("the first packet is not CONNECT")
    if len(data) < 2:
        return 0
    length, start = long_length(data, 1, len(data))
    if length > limit:
        raise too_large()
    if length < 0 or start + length > len(data):
        return max(0, start + length)
    return data[start : start + length], data[start + length :]


def upstream_connect(connect: Connect, mount: Mount, *, client_id: str, upstream: Upstream) -> bytes:
    """The CONNECT the broker sees: the organization as username, the will mounted, no aliases, its own keep-alive.

    The edge watches the client's keep-alive itself: denied packets never reach the broker, which would otherwise take
    a busy client for a dead one. By that of the edge, which pings (:mod:`cloudsignal.edge.timeouts`), the broker
    notices that the edge is gone. Raises :class:`MountError`.
    """
    dropped = (Property.TOPIC_ALIAS_MAXIMUM, Property.REQUEST_RESPONSE_INFORMATION, Property.USER_PROPERTY)
    properties = connect.properties.without(*dropped)
    if properties.number(Property.RECEIVE_MAXIMUM, 0) > IN_FLIGHT:
        properties = properties.with_(Property.RECEIVE_MAXIMUM, IN_FLIGHT)
    limit = properties.number(Property.MAXIMUM_PACKET_SIZE, 0)
    if limit:
        properties = properties.with_(Property.MAXIMUM_PACKET_SIZE, min(limit + MOUNT_OVERHEAD, 0xFFFFFFFF))
    return codec.encode_connect(
        Connect(
            version=connect.version,
            client_id=client_id,
            clean_start=connect.clean_start,
            keep_alive=upstream.keep_alive,
            username=mount.org,
            password=upstream.password.encode() or None,
            will=None if connect.will is None else mounted_will(connect.will, mount),
            properties=properties,
        )
    )


def mounted_will(will: Will, mount: Mount) -> Will:
    """The will as the broker gets it. Raises :class:`MountError`."""
    properties = will.properties
    response = properties.string(Property.RESPONSE_TOPIC)
    if response is not None:
        properties = properties.with_(Property.RESPONSE_TOPIC, mount.topic(response))
    return Will(mount.topic(will.topic), will.payload, will.qos, will.retain, properties)


def connack_properties(upstream: Properties, *, assigned: str, packet_limit: int) -> Properties:
    """Properties of the CONNACK that the client gets."""
    items = [(name, value) for name, value in upstream if name in _PASSED_ON]
    if assigned:
        items.append((Property.ASSIGNED_CLIENT_ID, assigned.encode()))
    items.append((Property.TOPIC_ALIAS_MAXIMUM, ALIAS_MAX))
    items.append((Property.MAXIMUM_PACKET_SIZE, packet_limit))
    return Properties(items)


def normal_disconnect(version: int) -> bytes:
    """The DISCONNECT for the broker that drops the will and keeps the session as the client had asked."""
    return codec.disconnect(0) if version == 5 else codec.packet(Kind.DISCONNECT)

"""One client connection as a state machine without any I/O: bytes in, bytes out, events on the trail.

The caller hands in what arrived (:meth:`Session.client_received`, :meth:`Session.broker_received`) and what was
decided elsewhere (:meth:`Session.welcome`, :meth:`Session.refuse`, :meth:`Session.end`). Afterwards it writes
``to_client`` and ``to_broker``, flushing the trail first, and looks at ``phase`` and ``ended``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from acl.policy import Identity
from audit.kinds import (
    AUTH_FAILED,
    CONNECT,
    CRITICAL,
    DISCONNECT,
    SESSION_CLOSED,
    AuthReason,
    CloseCause,
)
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin, Trail
from cloudsignal.edge.codec import Connack, Connect, Kind, Properties, Property, ProtocolError, Reason
from cloudsignal.edge.session import responses
from cloudsignal.edge.session.account import Account
from cloudsignal.edge.session.authorizer import Judge
from cloudsignal.edge.session.downlink import Downlink
from cloudsignal.edge.session.frames import Carry
from cloudsignal.edge.session.memo import SESSION_BYTES, Purse
from cloudsignal.edge.session.mountpoint import MAX_PACKET_BYTES, MAX_TOPIC_BYTES, Mount, upstream_client_id
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.retention import forget_will, reserve_will
from cloudsignal.edge.session.subscriptions import Asked, Subscriptions
from cloudsignal.edge.session.uplink import Uplink
from cloudsignal.wire.credential import ClaimValue

if TYPE_CHECKING:
    from asyncio import Future

CONNECT_MAX = 80 * 1024
"""Largest first packet, in bytes: nobody has signed in yet. There is room for the largest will (64 KiB)."""

EARLY_MAX = CONNECT_MAX
"""Bytes a client may send behind its CONNECT before it is signed in."""

CLIENT_ID_MAX = 1_024
"""Longest client id, in bytes: it is kept as long as the session, here, on Redis and at the broker."""


class Phase(Enum):
    """How far a connection has come."""

    NEW = auto()
    SIGNING_IN = auto()
    """CONNECT has arrived; somebody must call :meth:`Session.welcome` or :meth:`Session.refuse`."""
    CONNECTING = auto()
    """CONNECT is on its way to the broker."""
    LIVE = auto()
    CLOSED = auto()


_LIVE, _CLOSED = Phase.LIVE, Phase.CLOSED  # looking one up in the enumeration costs as much as a call


@dataclass(frozen=True, slots=True)
class Grant:
    """Who has signed in, and until when."""

    org: Organization
    username: str
    client_id: str
    """As the client knows it; made by the edge when the client sent none."""
    token_id: str
    expires_at: int
    """Seconds since the epoch; 0 for a static credential."""
    claims: Mapping[str, ClaimValue]


class Session(Account):
    """One client connection."""

    __slots__ = (
        "_early",
        "_first",
        "at_broker",
        "before",
        "broker_keep_alive",
        "client_packet_limit",
        "connect",
        "cuts",
        "downlink",
        "ended",
        "expires_at",
        "heard_at",
        "held_until",
        "identity",
        "mount",
        "opened_at",
        "ousted",
        "outdated",
        "owed",
        "own_pings",
        "packet_limit",
        "phase",
        "pinged_at",
        "purse",
        "receive_maximum",
        "refusal",
        "remembered",
        "session_expiry",
        "shedding",
        "slow",
        "subscriptions",
        "taking",
        "to_broker",
        "to_client",
        "token_id",
        "took_over",
        "unread",
        "uplink",
        "upstream_password",
        "will_bytes",
        "will_sent",
    )

    mount: Mount
    identity: Identity

    def __init__(self, origin: Origin, trail: Trail, *, node: str = "", upstream_password: str = "") -> None:
        super().__init__(origin, trail, node)
        self.upstream_password = upstream_password
        self.phase = Phase.NEW
        self.refusal: AuthReason | None = None
        """Why its CONNECT was refused."""
        self.ended = False
        """Both sides are to be closed once what is queued has been written."""
        self.unread = self.owed = self.shedding = False
        """More was received, from the client or the broker, than one turn may work off: call :meth:`client_received` or
        :meth:`broker_received` again, with nothing. ``shedding``: the client is so far behind that QoS 0
        messages to it are dropped."""
        self.slow = 0.0
        """How many packets off the hot loop the last read was worth."""
        self.to_client: list[bytes] = []
        self.to_broker: list[bytes] = []
        self.cuts: tuple[int, ...] = ()
        """How many parts of ``to_client`` go out before what follows begins a TLS record or frame of its own."""
        self.connect = Connect(version=4, client_id="")
        self.token_id = ""
        self.expires_at = self.session_expiry = 0
        self.packet_limit = CONNECT_MAX  # of the organization from CONNACK on
        self.client_packet_limit = 1 << 30
        self.receive_maximum = 65_535
        """QoS 2 messages of the client that may be unfinished at a time, as the broker's CONNACK says."""
        self.opened_at = self.heard_at = self.pinged_at = self.connected_at
        self.own_pings = 0
        self.broker_keep_alive = 0
        """Seconds of silence after which the broker ends the session (Server Keep Alive); 0: it bears any."""
        self.will_bytes = 0
        """Room kept for a retained will."""
        self.will_sent = False
        """Whether the broker publishes the will once the connection is gone."""
        self.outdated = self.at_broker = False
        """A rule has expired since subscriptions and will were judged; the broker may hold a session of this one, for
        CONNECT was sent and not refused."""
        self.subscriptions = Subscriptions(self)
        self.before: Session | None = None
        """Whose client id this one asks for, until it has taken the place: a live session of the same username."""
        self.taking: Future[bytes | None] | None = None
        """What its claim to the client id replaces on Redis, until it has taken the place."""
        self.held_until = 0.0
        """Until when Redis said that the client ID is this username's, in seconds since the epoch; 0: it never did."""
        self.took_over = self.ousted = False
        """It was given the client ID though an earlier session had it; the broker ended it, so that another may."""
        self.remembered: Sequence[tuple[Asked, bool]] = ()
        """Subscriptions of the stored session this one may resume, each with whether it was withheld."""
        self.purse = Purse(SESSION_BYTES)
        """What it may remember of topics."""
        self._first = Carry()
        self._early = b""
        self.uplink = Uplink(self)
        self.downlink = Downlink(self)

    @property
    def live(self) -> bool:
        """Whether the client has its CONNACK and is not gone."""
        return self.phase is Phase.LIVE

    def answer(self, packet: bytes) -> None:
        """Send CONNACK or SUBACK, and let nothing that follows share its TLS record or WebSocket frame.

        MQTT.js calls back only after it has handed on every packet of a record: a message beside the answer would come
        before anybody listens for it.
        """
        self.to_client.append(packet)
        self.cuts += (len(self.to_client),)

    # --- what arrives --------------------------------------------------------------------------------------------

    def client_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.bytes_in += len(data)
        try:
            if self.phase is _LIVE:
                self.uplink.feed(data)
            elif self.phase is Phase.NEW:
                self._read_connect(data)
            elif self.phase is not Phase.CLOSED:
                self._keep_early(data)
        except ProtocolError as error:
            self._protocol_error(error)

    def broker_received(self, data: bytes) -> None:
        """Bytes from the broker."""
        if self.phase is _CLOSED:
            return
        try:
            self.downlink.feed(data)
        except ProtocolError as error:
            self.invariant_broken(str(error))

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_MAX:
            raise ProtocolError(Reason.PACKET_TOO_LARGE, "too much was sent before the answer to CONNECT")

    def _read_connect(self, data: bytes) -> None:
        joined = self._first.join(data)
        if joined is None:
            return
        try:
            first = responses.first_packet(joined, CONNECT_MAX)
        except ProtocolError:
            if b"\0\4MQTT\5" in joined[:12]:
                self.version = 5  # so that it is told why
            raise
        if isinstance(first, int):
            self._first.keep(joined, first)
            return
        body, self._early = first
        self.version = 5 if body[:7] == b"\0\4MQTT\5" else 4
        self.connect = connect = codec.decode_connect(Kind.CONNECT, body)
        self.client_id = connect.client_id
        self.client_packet_limit = connect.properties.number(Property.MAXIMUM_PACKET_SIZE, 1 << 30)
        default_expiry = 0 if connect.version == 5 or connect.clean_start else 0xFFFFFFFF
        self.session_expiry = connect.properties.number(Property.SESSION_EXPIRY, default_expiry)
        if connect.properties.string(Property.AUTHENTICATION_METHOD) is not None:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.BAD_AUTHENTICATION_METHOD)
        elif not connect.client_id and connect.version == 4 and not connect.clean_start:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.CLIENT_ID_INVALID)
        elif len(connect.client_id.encode()) > CLIENT_ID_MAX:
            text = f"the client ID is longer than {CLIENT_ID_MAX} bytes"
            self.refuse(AuthReason.PROTOCOL, reason=Reason.CLIENT_ID_INVALID, details={"text": text})
        else:
            self.phase = Phase.SIGNING_IN

    # --- signing in ----------------------------------------------------------------------------------------------

    def welcome(self, grant: Grant) -> None:
        """The credential is good: judge the will, then send CONNECT upstream."""
        self.org, self.mount = grant.org, grant.org.mount
        self.username, self.client_id, self.token_id = grant.username, grant.client_id, grant.token_id
        self.expires_at = grant.expires_at
        self.packet_limit = min(self.org.force.quotas.packet_bytes or MAX_PACKET_BYTES, MAX_PACKET_BYTES)
        self.identity = Identity(self.org.id, grant.username, grant.client_id, grant.claims)
        self.purse.parent = self.org.remembered
        self.judge = Judge(self.org.force, self.identity, self.purse)
        if self._will_refused():
            self.refuse(AuthReason.WILL_DENIED)
            return
        if (full := reserve_will(self)) is not None:
            self.refuse(AuthReason.QUOTA, details={"limit": full.limit})
            return
        client_id = upstream_client_id(self.org.id, self.client_id)
        if len(client_id.encode()) > MAX_TOPIC_BYTES:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.CLIENT_ID_INVALID)
            return
        try:
            upstream = responses.upstream_connect(
                self.connect, self.mount, client_id=client_id, password=self.upstream_password
            )
        except responses.MountError:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.TOPIC_INVALID)
            return
        self.to_broker.append(upstream)
        self.phase = Phase.CONNECTING

    def refuse(
        self,
        why: AuthReason,
        *,
        reason: int | None = None,
        org: str | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse the CONNECT; ``org`` is the organization the event belongs to when none is signed in yet.

        Nothing follows when the session has ended meanwhile: its end is on the trail already.
        """
        if self.phase is Phase.CLOSED:
            return
        owner = org if org is not None else self.org_id()
        self.refusal = why
        event = self.event(AUTH_FAILED, reason=why.value, org=owner, details=dict(details or {}))
        if why is AuthReason.RATE_LIMITED:
            self.trail.fold((why, self.origin.ip, owner), event)
        else:
            self.trail.note(event)
        answer = responses.AUTH_ANSWERS[why]
        told = why in {AuthReason.PROTOCOL, AuthReason.UNAVAILABLE}
        text = (details or {}).get("text", answer.text) if told else answer.text
        self._refused(answer.code if reason is None else reason, text)
        self._close()

    def _refused(self, code: int, text: str) -> None:
        """The CONNACK, with its reason in words unless that exceeds what the client takes (MQTT 5 s3.2.2.3.9)."""
        version = self.version or 4
        packet = codec.connack(version, code, properties=Properties([(Property.REASON_STRING, text.encode())]))
        if version != 5 or len(packet) > self.client_packet_limit:
            packet = codec.connack(version, code)
        self.to_client.append(packet)

    def _disconnect(self, code: int, text: str) -> None:
        """The DISCONNECT of MQTT 5, with its reason in words unless that exceeds what the client takes."""
        packet = codec.disconnect(code, text)
        self.to_client.append(packet if len(packet) <= self.client_packet_limit else codec.disconnect(code))

    def forget_connect(self) -> None:
        """The credential is bad: keep nothing large of the CONNECT while its answer is held back."""
        self.connect = Connect(version=self.version, client_id=self.client_id)
        self._early = b""

    def broker_answered(self, connack: Connack) -> None:
        """The broker's CONNACK."""
        if connack.code:
            self.at_broker = False
            self.refuse(AuthReason.UNAVAILABLE, details={"broker_code": str(connack.code)})
            return
        self.phase = Phase.LIVE
        self.will_sent = True
        if self.before is not None:
            self.before.ousted = True
        self.before = self.taking = None
        self.connected_at = self.heard_at = self.pinged_at = time.time()
        self.receive_maximum = connack.properties.number(Property.RECEIVE_MAXIMUM, 65_535)
        self.broker_keep_alive = connack.properties.number(Property.SERVER_KEEP_ALIVE, 0)
        assigned = "" if self.connect.client_id else self.client_id
        properties = responses.connack_properties(connack.properties, assigned=assigned, packet_limit=self.packet_limit)
        self.trail.record(self.event(CONNECT, details={"clean_start": self.connect.clean_start}))
        self.answer(codec.connack(self.version, 0, session_present=connack.session_present, properties=properties))
        if connack.session_present:
            self.subscriptions.resume(self.remembered)
        else:
            self.subscriptions.start()
        self.remembered = ()
        forget_will(self)
        self.connect.password = None
        self.connect.properties = self.connect.properties.without(Property.USER_PROPERTY, Property.AUTHENTICATION_DATA)
        if self._will_refused():
            # A policy that came while the broker was answering.
            self.end(CloseCause.WILL_DENIED)
            return
        early, self._early = self._early, b""
        if early:
            self.client_received_early(early)

    def client_received_early(self, data: bytes) -> None:
        """What the client sent behind its CONNECT without waiting for the answer."""
        try:
            self.uplink.feed(data)
        except ProtocolError as error:
            self._protocol_error(error)

    # --- changes while live --------------------------------------------------------------------------------------

    def forget(self) -> None:
        """A rule has expired: judge everything anew from here on; what is held already is seen to by the node."""
        self.outdated = True
        self.judge.forget()
        self.uplink.forget()
        self.downlink.forget()

    def adopt(self, *, claims: Mapping[str, ClaimValue] | None = None) -> None:
        """Take over the policy now in force, or new claims: from the next byte on nothing old is believed."""
        if claims is not None:
            self.identity = Identity(self.org.id, self.username, self.client_id, claims)
        self.judge.forget()
        self.judge = Judge(self.org.force, self.identity, self.purse)
        self.packet_limit = min(self.org.force.quotas.packet_bytes or MAX_PACKET_BYTES, MAX_PACKET_BYTES)
        self.uplink.forget()
        self.downlink.forget()

    def rejudge(self) -> None:
        """After :meth:`adopt`: end subscriptions that are no longer granted, and the session if its will is not."""
        if self.phase is not Phase.LIVE:
            return
        self.outdated = False
        if self._will_refused():
            self.end(CloseCause.WILL_DENIED)
            return
        self.subscriptions.rejudge()

    def _will_refused(self) -> bool:
        will = self.connect.will
        if will is None:
            return False
        decision = self.judge.publish(will.topic, will.qos, will.retain)
        if not decision.allowed:
            self.denied("will", will.topic, decision, qos=will.qos, retain=will.retain)
        return not decision.allowed

    @property
    def wants_reasons(self) -> bool:
        """Whether reason strings may be sent with acknowledgements (MQTT 5 s3.1.2.11.7)."""
        return self.version == 5 and self.connect.properties.number(Property.REQUEST_PROBLEM_INFORMATION, 1) == 1

    # --- the end -------------------------------------------------------------------------------------------------

    def end(self, cause: CloseCause, **details: str | int | float | bool) -> None:
        """End a session from our side. The will is published unless the client has lost the right to publish it."""
        if self.phase is Phase.LIVE:
            self.trail.record(self.closing(SESSION_CLOSED, cause.value, details))
            if self.version == 5:
                answer = responses.CLOSE_ANSWERS[cause]
                self._disconnect(answer.code, answer.text)
            if cause in responses.WITHOUT_WILL:
                self.will_sent = False
                self.to_broker.append(responses.normal_disconnect(self.version))
        elif self.phase in {Phase.SIGNING_IN, Phase.CONNECTING}:
            if self.phase is Phase.CONNECTING and cause in responses.WITHOUT_WILL:
                self.to_broker.append(responses.normal_disconnect(self.version))
            self.refuse(responses.REFUSAL_OF[cause])
        self._close()

    def client_leaves(self, code: int, raw: bytes, properties: Properties) -> None:
        """DISCONNECT from the client."""
        clean = code != Reason.DISCONNECT_WITH_WILL
        self.will_sent = not clean
        self.trail.record(self.closing(DISCONNECT, "clean" if clean else "with_will", {"reason_code": code}))
        self.session_expiry = properties.number(Property.SESSION_EXPIRY, self.session_expiry)
        self.to_broker.append(raw)
        self._close()

    def client_lost(self, how: str = "lost") -> None:
        """The client's connection is gone (``lost``) or silent for too long (``keep_alive``)."""
        if self.phase is Phase.LIVE:
            if how == "keep_alive" and self.version == 5:
                self._disconnect(Reason.KEEP_ALIVE_TIMEOUT, "nothing heard for one and a half times the keep-alive")
            self.trail.record(self.closing(DISCONNECT, how, {}))
        self._close()

    def broker_disconnects(self, code: int) -> None:
        """DISCONNECT from the broker (MQTT 5): passed on without its properties."""
        self.ousted = True
        cause = responses.CAUSE_OF.get(code, CloseCause.UPSTREAM_LOST)
        self.trail.record(self.closing(SESSION_CLOSED, cause.value, {"reason_code": code}))
        answer = responses.CLOSE_ANSWERS[cause]
        self._disconnect(code, answer.text)
        self._close()

    def broker_lost(self, *, taken_over: bool = False) -> None:
        """The connection to the broker is gone."""
        self.ousted = True
        self.end(CloseCause.TAKEN_OVER if taken_over else CloseCause.UPSTREAM_LOST)

    def invariant_broken(self, text: str) -> None:
        """Something that cannot happen did; ``text`` never quotes a topic."""
        self.trail.record(self.event(CRITICAL, reason=CloseCause.INVARIANT.value, details={"text": text}))
        self.end(CloseCause.INVARIANT)

    def transport_broken(self, text: str, reason: Reason = Reason.MALFORMED) -> None:
        """What carries the packets (a WebSocket) broke its own protocol, or met a limit."""
        self._protocol_error(ProtocolError(reason, text))

    def _protocol_error(self, error: ProtocolError) -> None:
        if self.phase is Phase.LIVE:
            details: dict[str, str | int | float | bool] = {"reason_code": int(error.reason), "text": str(error)}
            self.trail.record(self.closing(SESSION_CLOSED, CloseCause.PROTOCOL.value, details))
            if self.version == 5:
                self._disconnect(error.reason, str(error))
        elif self.phase is not Phase.CLOSED:
            self.refusal = AuthReason.PROTOCOL
            self.trail.note(self.event(AUTH_FAILED, reason=AuthReason.PROTOCOL.value, details={"text": str(error)}))
            if self.version == 5:
                self._refused(error.reason, str(error))
            elif getattr(error, "newer", False):
                self.to_client.append(codec.connack(5, error.reason))
            elif error.return_code:
                self.to_client.append(codec.packet(Kind.CONNACK, bytes([0, error.return_code])))
        self._close()

    def release(self) -> None:
        """Nothing will arrive any more: break the circles, so that the memory comes back at once.

        Left to the collector, tens of thousands of closed sessions would wait for its next full run.
        """
        if hasattr(self, "org"):
            self.forget()
            self.uplink.finish()
        del self.uplink, self.downlink, self.subscriptions

    def _close(self) -> None:
        self.phase = Phase.CLOSED
        self.ended = True
        self._early = b""

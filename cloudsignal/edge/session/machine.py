"""One client connection as a state machine without any I/O: bytes in, bytes out, audit events.

The caller hands in what arrived (:meth:`Session.client_received`, :meth:`Session.broker_received`) and what was
decided elsewhere (:meth:`Session.welcome`, :meth:`Session.refuse`, :meth:`Session.end`). Afterwards it writes
``to_client`` and ``to_broker``, flushing the journal first, and looks at ``phase`` and ``ended``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from acl.policy import Decision, Identity
from audit.kinds import (
    CONNECT,
    AuthReason,
    CloseCause,
)
from cloudsignal.config import Upstream
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import AuditSink, Origin
from cloudsignal.edge.codec import Connack, Connect, Kind, Property, ProtocolError, Reason
from cloudsignal.edge.codec.reasons import TRY_ANOTHER
from cloudsignal.edge.session import responses
from cloudsignal.edge.session.authorizer import Authorizer
from cloudsignal.edge.session.context import CONNECT_MAX, NO_UPSTREAM, Asked, Grant, Phase
from cloudsignal.edge.session.downlink import Downlink
from cloudsignal.edge.session.ending import Ending
from cloudsignal.edge.session.frames import Carry
from cloudsignal.edge.session.mountpoint import MAX_PACKET_BYTES, MAX_TOPIC_BYTES, upstream_client_id
from cloudsignal.edge.session.retention import forget_will, reserve_will
from cloudsignal.edge.session.subscriptions import Subscriptions
from cloudsignal.edge.session.uplink import Uplink
from cloudsignal.wire.credential import ClaimValue

if TYPE_CHECKING:
    from asyncio import Future

EARLY_MAX = CONNECT_MAX
"""Bytes a client may send behind its CONNECT before it is signed in."""

CONNACK_MAX = 65_536
"""Bytes a node of the broker may send while it is not known to be one."""

CLIENT_ID_MAX = 1_024
"""Longest client ID, in bytes: it is kept as long as the session, here, on Redis and at the broker."""


_LIVE, _CLOSED = Phase.LIVE, Phase.CLOSED  # looking one up in the enumeration costs as much as a call


class Session(Ending):
    """One client connection."""

    __slots__ = (
        "_first",
        "_preamble",
        "before",
        "downlink",
        "held_until",
        "remembered",
        "subscriptions",
        "taking",
        "took_over",
        "uplink",
    )

    def __init__(self, origin: Origin, sink: AuditSink, *, node: str = "", upstream: Upstream = NO_UPSTREAM) -> None:
        super().__init__(origin, sink, node=node, upstream=upstream)
        self.before: Session | None = None
        """The session being taken over: a live session of the same username; ``None`` after CONNACK."""
        self.taking: Future[bytes | None] | None = None
        """The hold on Redis that the takeover replaces; ``None`` after CONNACK."""
        self.held_until = 0.0
        """Until when Redis said that the client ID is this username's, in seconds since the epoch; 0: it never did."""
        self.took_over = False
        """Whether the client ID was taken over from an earlier session."""
        self.remembered: Sequence[tuple[Asked, bool]] = ()
        """Subscriptions of the stored session this one may resume, each with whether it was withheld."""
        self._first = Carry()
        self._preamble = 0
        """Bytes that the broker's node has sent before CONNACK was complete."""
        self.subscriptions = Subscriptions(self)
        self.uplink = Uplink(self, self.subscriptions)
        self.downlink = Downlink(self, self.subscriptions, self.uplink.finished)

    # --- what arrives --------------------------------------------------------------------------------------------

    def client_received(self, data: bytes) -> None:
        """Process bytes from the client."""
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
        """Process bytes from the broker."""
        if self.phase is not _LIVE:
            self._read_connack(data)
            return
        try:
            self.downlink.feed(data)
        except ProtocolError as error:
            self.invariant_broken(str(error))

    def _read_connack(self, data: bytes) -> None:
        """Process the first bytes from a node of the broker; what is no CONNACK may come from anybody."""
        if self.phase is _CLOSED or self.declined or not data:
            return
        if not self._preamble and data[0] != Kind.CONNACK:
            self.declined = "what it sends is no CONNACK"
            return
        self._preamble += len(data)
        try:
            self.downlink.feed(data)
        except ProtocolError as error:
            if self.phase is _LIVE:
                self.invariant_broken(str(error))
            elif self.phase is not _CLOSED:
                self.declined = f"its CONNACK cannot be read: {error}"
        if self.phase is Phase.CONNECTING and self._preamble > CONNACK_MAX:
            self.declined = f"its CONNACK is longer than {CONNACK_MAX} bytes"

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
        """Accept a verified credential: check the will, then send CONNECT upstream."""
        self.grant = grant
        self.org, self.mount = grant.org, grant.org.mount
        self.username, self.client_id, self.token_id = grant.username, grant.client_id, grant.token_id
        self.expires_at = grant.expires_at
        self.packet_limit = min(self.org.active.quotas.packet_bytes or MAX_PACKET_BYTES, MAX_PACKET_BYTES)
        self.identity = Identity(self.org.id, grant.username, grant.client_id, grant.claims)
        self.purse.parent = self.org.remembered
        self.authorizer = Authorizer(self.org.active, self.identity, self.purse, self.mount.levels)
        if self._will_refused():
            deep = self._deep_will()
            self.refuse(
                AuthReason.WILL_DENIED,
                reason=None if deep is None else Reason.TOPIC_INVALID,
                details={} if deep is None else {"text": deep.reason.replace("the topic", "the will's topic")},
            )
            return
        if (full := reserve_will(self)) is not None:
            self.refuse(AuthReason.QUOTA, details={"limit": full.limit})
            return
        if len(upstream_client_id(self.org.id, self.client_id).encode()) > MAX_TOPIC_BYTES:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.CLIENT_ID_INVALID)
            return
        try:
            self._introduce()
        except responses.MountError:
            self.refuse(AuthReason.PROTOCOL, reason=Reason.TOPIC_INVALID)
            return
        self.phase = Phase.CONNECTING

    def _introduce(self) -> None:
        """Send CONNECT upstream."""
        client_id = upstream_client_id(self.org.id, self.client_id)
        self.to_broker.append(
            responses.upstream_connect(self.connect, self.mount, client_id=client_id, upstream=self.upstream)
        )

    def introduce_again(self) -> None:
        """Send CONNECT to another node: the one before has not taken the session, and was sent nothing else.

        What the client has sent behind its own CONNECT waits for CONNACK, whichever node it comes from.
        """
        self.may_remain = self.may_remain or not self.declined_code
        self.declined, self.declined_code = "", 0
        self._preamble = 0
        self.to_broker.clear()
        self.downlink = Downlink(self, self.subscriptions, self.uplink.finished)
        self._introduce()

    def forget_connect(self) -> None:
        """Drop the large parts of a refused CONNECT while its answer is delayed."""
        self.connect = Connect(version=self.version, client_id=self.client_id)
        self._early = b""

    def broker_answered(self, connack: Connack) -> None:
        """Handle the CONNACK of the broker."""
        if connack.code in TRY_ANOTHER[self.version]:
            self.declined, self.declined_code = f"it answered CONNECT with 0x{connack.code:02x}", connack.code
            return
        if connack.code:
            self.at_broker = self.may_remain
            why = f"{self.broker_node}: it answered CONNECT with 0x{connack.code:02x}"
            self.refuse(AuthReason.UNAVAILABLE, details={"broker": why, "broker_code": str(connack.code)})
            return
        self.phase = Phase.LIVE
        self.will_sent = True
        self.before = self.taking = None
        self.connected_at = self.heard_at = time.time()
        self.receive_maximum = connack.properties.number(Property.RECEIVE_MAXIMUM, 65_535)
        insisted = connack.properties.number(Property.SERVER_KEEP_ALIVE, 0) or self.broker_keep_alive
        self.broker_keep_alive = min(self.broker_keep_alive, insisted)
        assigned = "" if self.connect.client_id else self.client_id
        properties = responses.connack_properties(connack.properties, assigned=assigned, packet_limit=self.packet_limit)
        self.sink.record(self.event(CONNECT, details={"clean_start": self.connect.clean_start}))
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
        """Process what the client sent after its CONNECT without waiting for the answer."""
        try:
            self.uplink.feed(data)
        except ProtocolError as error:
            self._protocol_error(error)

    # --- changes while live --------------------------------------------------------------------------------------

    def forget(self) -> None:
        """A rule has expired: check every following message again; the node checks subscriptions and will."""
        self.outdated = True
        self.authorizer.forget()
        self.uplink.forget()
        self.downlink.forget()

    def adopt(self, *, claims: Mapping[str, ClaimValue] | None = None) -> None:
        """Switch to the active policy, or to new claims; both apply from the next byte on."""
        if claims is not None:
            self.identity = Identity(self.org.id, self.username, self.client_id, claims)
        self.authorizer.forget()
        self.authorizer = Authorizer(self.org.active, self.identity, self.purse, self.mount.levels)
        self.packet_limit = min(self.org.active.quotas.packet_bytes or MAX_PACKET_BYTES, MAX_PACKET_BYTES)
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
        decision = self._deep_will() or self.authorizer.publish(will.topic, will.qos, will.retain)
        if not decision.allowed:
            self.denied("will", will.topic, decision, qos=will.qos, retain=will.retain)
        return not decision.allowed

    def _deep_will(self) -> Decision | None:
        """The denial of a will whose topic, or response topic, has too many levels."""
        will = self.connect.will
        if will is None:
            return None
        return self.authorizer.too_deep("pub", will.topic, will.properties.string(Property.RESPONSE_TOPIC))

    # --- the end -------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Break reference cycles after the connection is closed, so that memory is freed at once.

        Left to the collector, tens of thousands of closed sessions would wait for its next full run.
        """
        if self.grant is not None:
            self.purse.give(self.purse.held)  # what it remembered goes with it
            self.uplink.finish()
        del self.uplink, self.downlink, self.subscriptions

"""How a session ends or is refused: its audit event, the answer to the client, and the packet to the broker."""

from __future__ import annotations

from collections.abc import Mapping

from audit.kinds import AUTH_FAILED, CRITICAL, DISCONNECT, SESSION_CLOSED, AuthReason, CloseCause
from cloudsignal.edge import codec
from cloudsignal.edge.codec import Kind, Properties, Property, ProtocolError, Reason
from cloudsignal.edge.session import responses
from cloudsignal.edge.session.context import Context, Phase
from cloudsignal.edge.session.refusals import circumstances


class Ending(Context):
    """The methods of a session that refuse or end it."""

    __slots__ = ()

    def refuse(
        self,
        why: AuthReason,
        *,
        reason: int | None = None,
        org: str | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse the CONNECT; ``org`` is the organization the event belongs to when none is signed in yet.

        Does nothing when the session has ended already: its end is in the audit log.
        """
        if self.phase is Phase.CLOSED:
            return
        owner = org if org is not None else self.org_id()
        self.refusal = why
        event = self.event(AUTH_FAILED, reason=why.value, org=owner, details=dict(details or {}))
        if why is AuthReason.RATE_LIMITED:
            self.sink.fold((why, self.origin.ip, owner), event)
        else:
            self.sink.note(event)
        answer = responses.AUTH_ANSWERS[why]
        told = why in {AuthReason.PROTOCOL, AuthReason.UNAVAILABLE, AuthReason.WILL_DENIED}
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

    def end(self, cause: CloseCause, **details: str | int | float | bool) -> None:
        """Disconnect the client. The will is published unless the client has lost the right to publish it."""
        self._end(cause, details)

    def _end(self, cause: CloseCause, details: Mapping[str, str | int | float | bool], topic: str = "") -> None:
        if self.phase is Phase.LIVE:
            self.sink.record(self.closing(SESSION_CLOSED, cause.value, details, topic))
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
        """Handle a DISCONNECT from the client."""
        clean = code != Reason.DISCONNECT_WITH_WILL
        self.will_sent = not clean
        self.sink.record(self.closing(DISCONNECT, "clean" if clean else "with_will", {"reason_code": code}))
        self.session_expiry = properties.number(Property.SESSION_EXPIRY, self.session_expiry)
        self.to_broker.append(raw)
        self._close()

    def client_lost(self, how: str = "lost") -> None:
        """End the session: connection lost (``lost``), or keep-alive expired (``keep_alive``)."""
        if self.phase is Phase.LIVE:
            if how == "keep_alive" and self.version == 5:
                self._disconnect(Reason.KEEP_ALIVE_TIMEOUT, "nothing heard for one and a half times the keep-alive")
            self.sink.record(self.closing(DISCONNECT, how, {}))
        self._close()

    def broker_disconnects(self, code: int) -> None:
        """Handle a DISCONNECT from the broker (MQTT 5): pass it on without its properties."""
        self.ousted = True
        cause = responses.CAUSE_OF.get(code, CloseCause.UPSTREAM_LOST)
        topic, facts = ("", {}) if cause is CloseCause.TAKEN_OVER else circumstances(self)
        self.sink.record(self.closing(SESSION_CLOSED, cause.value, {"reason_code": code, **facts}, topic))
        answer = responses.CLOSE_ANSWERS[cause]
        self._disconnect(code, answer.text)
        self._close()

    def broker_lost(self, *, taken_over: bool = False) -> None:
        """End the session: the connection to the broker is lost."""
        self.ousted = True
        self.cut = not taken_over
        if taken_over:
            self.end(CloseCause.TAKEN_OVER)
        else:
            topic, facts = circumstances(self)
            self._end(CloseCause.UPSTREAM_LOST, facts, topic)

    def broker_silent(self, seconds: float) -> None:
        """End the session: its node of the broker has not answered a ping for so many seconds."""
        self.ousted = True
        text = f"no answer to a ping for {seconds:.0f} seconds"
        self.end(CloseCause.UPSTREAM_LOST, broker=self.broker_node, text=text)

    def invariant_broken(self, text: str) -> None:
        """End the session because an invariant is broken; ``text`` never quotes a topic."""
        self.sink.record(self.event(CRITICAL, reason=CloseCause.INVARIANT.value, details={"text": text}))
        self.end(CloseCause.INVARIANT)

    def transport_broken(self, text: str, reason: Reason = Reason.MALFORMED) -> None:
        """End the session: its WebSocket broke the WebSocket protocol or reached a limit."""
        self._protocol_error(ProtocolError(reason, text))

    def _protocol_error(self, error: ProtocolError) -> None:
        if self.phase is Phase.LIVE:
            details: dict[str, str | int | float | bool] = {"reason_code": int(error.reason), "text": str(error)}
            self.sink.record(self.closing(SESSION_CLOSED, CloseCause.PROTOCOL.value, details))
            if self.version == 5:
                self._disconnect(error.reason, str(error))
        elif self.phase is not Phase.CLOSED:
            self.refusal = AuthReason.PROTOCOL
            self.sink.note(self.event(AUTH_FAILED, reason=AuthReason.PROTOCOL.value, details={"text": str(error)}))
            if self.version == 5:
                self._refused(error.reason, str(error))
            elif getattr(error, "newer", False):
                self.to_client.append(codec.connack(5, error.reason))
            elif error.return_code:
                self.to_client.append(codec.packet(Kind.CONNACK, bytes([0, error.return_code])))
        self._close()

    def _close(self) -> None:
        self.phase = Phase.CLOSED
        self.ended = True
        self._early = b""

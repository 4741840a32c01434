"""QoS 2 handshakes that the edge completes for refused messages, and the limit on unfinished ones."""

from __future__ import annotations

from cloudsignal.edge.codec import Kind, ProtocolError, Reason, acknowledgement
from cloudsignal.edge.codec.primitives import protocol_error
from cloudsignal.edge.session.context import Context

REFUSED_MAX = 256
"""Identifiers of refused QoS 2 messages kept for a client of MQTT 5 that releases them all the same."""

HELD_MAX = 4_096
"""Denied QoS 2 messages of MQTT 3.1.1 whose handshake the edge is completing, by their identifiers. One that is used
again for a message the broker gets is the broker's from then on: the hot loop of
:class:`cloudsignal.edge.session.uplink.Uplink` uses no ready-made headers while there are any."""


class Handshakes:
    """Packet identifiers of one client's unfinished QoS 2 messages."""

    __slots__ = ("_open", "_refused", "_session", "held")

    def __init__(self, session: Context) -> None:
        self._session = session
        self.held: set[int] | None = None
        """Identifiers of refused QoS 2 messages of MQTT 3.1.1, whose handshake the edge completes."""
        self._open: set[int] | None = None
        """Identifiers of QoS 2 messages of MQTT 5 that the broker has and the client has not released."""
        self._refused: set[int] | None = None
        """Identifiers of QoS 2 messages of MQTT 5 that the edge has refused."""

    def taken(self, qos: int, packet_id: int) -> None:
        """A message of QoS 1 or 2 goes to the broker: forget what its packet identifier stood for before.

        MQTT 5 s3.3.4: no more QoS 2 messages may be unfinished than Receive Maximum says. One of QoS 1 is answered as
        soon as it is read, so that it never counts.
        """
        if not packet_id:
            raise protocol_error("a packet identifier is 0")
        if self.held:
            self.held.discard(packet_id)
        if qos != 2 or self._session.version != 5:
            return
        if self._refused:
            self._refused.discard(packet_id)
        if self._open is None:
            self._open = set()
        self._open.add(packet_id)
        if len(self._open) > self._session.receive_maximum:
            text = f"more than {self._session.receive_maximum} QoS 2 messages are unfinished (Receive Maximum)"
            raise ProtocolError(Reason.RECEIVE_MAXIMUM_EXCEEDED, text)

    def finished(self, packet_id: int) -> None:
        """The broker has refused a QoS 2 message, which ends its handshake."""
        if self._open:
            self._open.discard(packet_id)

    def refused(self, packet_id: int) -> None:
        """The edge has refused a QoS 2 message; remember its identifier, since the client may still send PUBREL."""
        if self._session.version == 5:
            if self._refused is None or len(self._refused) >= REFUSED_MAX:
                self._refused = set()
            self._refused.add(packet_id)
            return
        if self.held is None:
            self.held = set()
        if len(self.held) >= HELD_MAX:
            raise ProtocolError(Reason.RECEIVE_MAXIMUM_EXCEEDED, "too many unfinished QoS 2 messages")
        self.held.add(packet_id)

    def released(self, packet_id: int) -> bool:
        """Complete the handshake of a message that the edge has refused; ``False`` when it is the broker's.

        A client of MQTT 5 that releases it all the same has not looked at the reason code of its PUBREC. It is told
        once more: the identifier is not known (0x92).
        """
        session = self._session
        if self.held and packet_id in self.held:
            self.held.discard(packet_id)
            session.to_client.append(acknowledgement(Kind.PUBCOMP, packet_id, session.version))
            return True
        if self._refused and packet_id in self._refused:
            self._refused.discard(packet_id)
            session.to_client.append(
                acknowledgement(Kind.PUBCOMP, packet_id, session.version, Reason.PACKET_ID_NOT_FOUND)
            )
            return True
        self.finished(packet_id)
        return False

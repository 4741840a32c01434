"""From the broker to the client: every packet is unmounted and every delivery judged here.

The mirror image of ``uplink``. The broker is trusted to speak MQTT, not to stay inside the mount: a topic outside it
closes the connection and is reported as critical.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloudsignal.edge.codec import (
    Kind,
    Property,
    Publish,
    Reason,
    acknowledgement,
    decode_acknowledgement,
    decode_connack,
    decode_disconnect,
    decode_publish,
    decode_suback,
    encode_publish,
    varint,
)
from cloudsignal.edge.codec.primitives import binary, malformed
from cloudsignal.edge.frames import Carry, long_length
from cloudsignal.edge.judge import TALLY
from cloudsignal.edge.mount import MountError

if TYPE_CHECKING:
    from cloudsignal.edge.session import Session

HEADS_MAX = 64
"""Ready-made headers kept per session: one per topic, flags and size of packet."""

TOPICS_MAX = 512
"""Unmounted topics kept per session, for packets whose sizes vary."""


class Downlink:
    """The broker's half of a session, from its CONNACK on."""

    __slots__ = ("_carry", "_heads", "_session", "_swallowed", "_topics")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._carry = Carry()
        self._heads: dict[bytes, bytes] = {}
        self._topics: dict[bytes, bytes] = {}
        self._swallowed: set[int] | None = None

    def forget(self) -> None:
        """Drop everything learned: policy, claims or time have moved on."""
        self._heads = {}
        self._topics = {}

    def feed(self, data: bytes) -> None:  # noqa: PLR0912, PLR0915 - the hot loop, on purpose in one function
        """Take bytes from the broker. Raises :class:`ProtocolError` when they are not MQTT."""
        session = self._session
        if session.judge.force is not session.org.force:
            session.adopt()
        if time.time() >= session.judge.until:
            session.forget()
        joined = self._carry.join(data)
        if joined is None:
            return
        data = joined
        out = session.to_client
        five = session.version == 5
        position = keep = count = need = 0
        end = len(data)
        try:
            while end - position >= 2:
                first = data[position]
                length = data[position + 1]
                body = position + 2
                if length > 127:
                    length, body = long_length(data, position + 1, end)
                    if length < 0:
                        break
                stop = body + length
                if stop > end:
                    need = stop - position
                    break
                kind = first & 0xF0
                if kind == 0x30 and length > 2:
                    tail = body + 2 + (data[body] << 8 | data[body + 1])
                    head = self._heads.get(data[position:tail])
                    if head is not None and not (five and data[tail + 2 if first & 6 else tail]):
                        count += 1
                        if position > keep:
                            out.append(data[keep:position])
                        out.append(head)
                        keep = tail
                        position = stop
                        continue
                elif (
                    length <= 3
                    and 0x40 <= kind <= 0x70
                    and not (kind == 0x60 and self._swallowed)
                    and not (kind == 0x50 and length == 3)
                ):
                    position = stop
                    continue
                if position > keep:
                    out.append(data[keep:position])
                keep = stop
                if kind == 0x30:
                    self._deliver(data, position, body, stop)
                else:
                    self._other(first, data[position:stop], data[body:stop])
                if session.ended:
                    return
                position = stop
        finally:
            session.messages_out += count
            if keep < position:
                out.append(data[keep:position])
        if position < end:
            self._carry.keep(data[position:], need)

    def _deliver(self, data: bytes, position: int, body: int, stop: int) -> None:
        """The slow path of a delivery: a new topic or size, properties, or one the policy does not let through."""
        session = self._session
        first = data[position]
        tail = body + 2 + int.from_bytes(data[body : body + 2], "big")
        topic_key = data[position : position + 1] + data[body:tail]
        known = self._topics.get(topic_key)
        if known is not None and self._pass_on(data, position, tail, stop, known):
            return
        message = decode_publish(first, data[body:stop], session.version, where="DELIVERY")
        try:
            topic = session.mount.client_topic(message.topic)
        except MountError:
            session.invariant_broken("a delivery lies outside the mount")
            return
        size = stop - position
        decision = session.judge.receive(topic)
        if not decision.allowed:
            TALLY.refused["out", "denied"] += 1
            session.denied("receive", topic, decision, qos=message.qos, retain=message.retain, size=size)
            self._swallow(message)
            return
        mounted_length = len(message.topic)
        message.topic = topic
        if message.properties.items:
            self._unmount_response(message)
            packet = encode_publish(message, session.version)
        else:
            head = data[position : position + 1] + varint(stop - body - mounted_length + len(topic)) + binary(topic)
            packet = head + data[tail:stop]
            if len(self._heads) < HEADS_MAX and len(packet) <= session.client_packet_limit:
                self._heads[data[position:tail]] = head
            if len(self._topics) >= TOPICS_MAX:
                self._topics.clear()
            self._topics[topic_key] = binary(topic)
        if len(packet) > session.client_packet_limit:
            # MQTT 5 s3.1.2.11.4: discard it and behave as if it had been sent.
            self._swallow(message)
            return
        session.messages_out += 1
        session.to_client.append(packet)

    def _pass_on(self, data: bytes, position: int, tail: int, stop: int, topic: bytes) -> bool:
        """A delivery on a topic seen before with the same flags, in another size; ``False`` when it needs more."""
        session = self._session
        after_id = tail + 2 if data[position] & 6 else tail
        if after_id >= stop or (session.version == 5 and data[after_id]):
            return False
        head = data[position : position + 1] + varint(stop - tail + len(topic)) + topic
        if len(head) + stop - tail > session.client_packet_limit:
            return False
        session.messages_out += 1
        session.to_client.append(head)
        session.to_client.append(data[tail:stop])
        return True

    def _unmount_response(self, message: Publish) -> None:
        response = message.properties.string(Property.RESPONSE_TOPIC)
        if response is None:
            return
        try:
            unmounted = self._session.mount.client_topic(response)
        except MountError:
            message.properties = message.properties.without(Property.RESPONSE_TOPIC)
            return
        message.properties = message.properties.with_(Property.RESPONSE_TOPIC, unmounted)

    def _swallow(self, message: Publish) -> None:
        """Acknowledge a message to the broker in the client's place."""
        session = self._session
        if message.qos == 1:
            session.to_broker.append(acknowledgement(Kind.PUBACK, message.packet_id, session.version))
        elif message.qos == 2:
            if self._swallowed is None:
                self._swallowed = set()
            self._swallowed.add(message.packet_id)
            session.to_broker.append(acknowledgement(Kind.PUBREC, message.packet_id, session.version))

    def _other(self, first: int, raw: bytes, body: bytes) -> None:
        session = self._session
        kind = first & 0xF0
        if kind == Kind.CONNACK:
            if session.live:
                raise malformed("a second CONNACK")
            session.broker_answered(decode_connack(body, session.version))
        elif not session.live:
            raise malformed("a packet before CONNACK")
        elif kind in {Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP}:
            self._acknowledge(first, body)
        elif kind == Kind.SUBACK:
            session.subscriptions.suback(*decode_suback(body, session.version))
        elif kind == Kind.UNSUBACK:
            session.subscriptions.unsuback(*decode_suback(body, session.version))
        elif kind == Kind.PINGRESP:
            if session.own_pings:
                session.own_pings -= 1
            else:
                session.to_client.append(raw)
        elif kind == Kind.DISCONNECT and session.version == 5:
            session.broker_disconnects(decode_disconnect(first, body, 5).code)
        else:
            raise malformed("a broker may not send this packet")

    def _acknowledge(self, first: int, body: bytes) -> None:
        """Pass an acknowledgement without its properties: they may name topics as the broker sees them."""
        session = self._session
        packet = decode_acknowledgement(first, body, session.version)
        kind = Kind(first & 0xF0)
        if kind is Kind.PUBREL and self._swallowed and packet.packet_id in self._swallowed:
            self._swallowed.discard(packet.packet_id)
            session.to_broker.append(acknowledgement(Kind.PUBCOMP, packet.packet_id, session.version))
            return
        if kind is Kind.PUBREC and packet.code >= Reason.UNSPECIFIED:
            session.uplink.finished(packet.packet_id)
        session.to_client.append(acknowledgement(kind, packet.packet_id, session.version, packet.code))

"""From the broker to the client: every topic is unmounted and every delivery checked against the policy.

The mirror image of ``uplink``. The broker is trusted to speak MQTT, not to stay inside the mount: a topic outside it
closes the connection and is reported as critical.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

from cloudsignal.edge.codec import (
    Kind,
    Properties,
    Property,
    Reader,
    Reason,
    acknowledgement,
    decode_acknowledgement,
    decode_connack,
    decode_disconnect,
    decode_suback,
    varint,
)
from cloudsignal.edge.codec.connect import check_topic_name
from cloudsignal.edge.codec.primitives import UnfitError, binary, checked_text, malformed
from cloudsignal.edge.codec.properties import decode_properties
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.context import Context
from cloudsignal.edge.session.frames import ELEMENTS, LIGHT, TOPIC_SHIFT, TURN_MAX, YIELD, Carry, long_length
from cloudsignal.edge.session.memo import LONG, LONGEST, Memo
from cloudsignal.edge.session.mountpoint import MountError
from cloudsignal.edge.session.refusals import refused_by_broker
from cloudsignal.edge.session.subscriptions import Subscriptions

HEADS_MAX = 64
"""Ready-made headers kept per session: one per topic, flags and size of packet."""

NONE: dict[bytes, bytes] = {}
"""No ready-made headers: every message takes the slow path."""

TOPICS_MAX = 512
"""Unmounted topics kept per session, for packets whose sizes vary."""


class Downlink:
    """The broker's half of a session, from its CONNACK on."""

    __slots__ = (
        "_carry",
        "_finished",
        "_heads",
        "_ready",
        "_session",
        "_subscriptions",
        "_swallowed",
        "_topics",
        "_weight",
    )

    def __init__(self, session: Context, subscriptions: Subscriptions, finished: Callable[[int], None]) -> None:
        self._session = session
        self._subscriptions = subscriptions
        self._finished = finished
        """The broker has refused a QoS 2 message of the client."""
        self._carry = Carry()
        self._heads: Memo[bytes, bytes] = Memo(session.purse, HEADS_MAX)
        self._ready = self._heads.known
        self._topics: Memo[bytes, bytes] = Memo(session.purse, TOPICS_MAX)
        self._swallowed: set[int] | None = None
        self._weight = 0.0
        """Cost of the last packet in packets, beyond the one it is counted as."""

    def forget(self) -> None:
        """Drop all remembered verdicts and headers: policy, claims or time have changed."""
        self._heads.drop()
        self._topics.drop()

    def feed(self, data: bytes) -> None:  # noqa: PLR0912, PLR0915 - the hot loop, on purpose in one function
        """Process bytes from the broker. Raises :class:`ProtocolError` when they are not MQTT."""
        session = self._session
        authorizer = session.authorizer
        if authorizer.active is not session.org.active:
            session.adopt()
        elif authorizer.until != inf and time.time() >= authorizer.until:
            session.forget()
        carry = self._carry
        if carry.begun is not None:
            joined = carry.join(data)
            if joined is None:
                session.owed = False
                return
            data = joined
        out = session.to_client
        heads = NONE if session.shedding else self._ready
        five = session.version == 5
        position = keep = count = need = 0
        slow = 0.0
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
                if kind == 0x30 and length > 2 and data[body] < LONG:
                    tail = body + 2 + (data[body] << 8 | data[body + 1])
                    known = data[position:tail]
                    head = heads.get(known)
                    after = tail + 2 if first & 6 else tail
                    if head is not None and not (five and data[after]):
                        count += 1
                        if position > keep:
                            out.append(data[keep:position])
                        out.append(head)
                        keep = tail
                        size = stop - position
                        while end - stop >= size and data.startswith(known, stop) and not (five and data[after + size]):
                            # One more on this topic, as in a stream: it takes one comparison.
                            count += 1
                            out.append(data[keep:stop])
                            out.append(head)
                            keep += size
                            after += size
                            stop += size
                        position = stop
                        continue
                elif (
                    length <= 3
                    and 0x40 <= kind <= 0x70
                    and not (kind == 0x60 and self._swallowed)
                    and not (length == 3 and data[body + 2] & 0x80)
                ):
                    position = stop
                    continue
                if slow >= TURN_MAX:
                    break
                slow += 1
                if position > keep:
                    out.append(data[keep:position])
                keep = stop
                session.messages_out += count  # it may be the last packet, and its event has the sum
                count = 0
                if kind == 0x30:
                    self._deliver(data, position, body, stop)
                else:
                    if position:
                        session.sent.answered = True
                    self._other(first, data[position:stop], data[body:stop])
                if session.ended:
                    return
                slow += self._weight
                self._weight = 0.0
                position = stop
        finally:
            session.sent.answered = True
            session.messages_out += count
            if keep < position:
                out.append(data[keep:position])
        session.owed = slow >= YIELD
        if position < end:
            carry.keep(data[position:], need)

    def _deliver(self, data: bytes, position: int, body: int, stop: int) -> None:
        """The slow path of a delivery: a new topic or size, properties, or one the policy does not let through."""
        session = self._session
        first = data[position]
        tail = body + 2 + int.from_bytes(data[body : body + 2], "big")
        after_id = start = tail + 2 if first & 6 else tail
        five = session.version == 5
        if first & 6 == 6 or after_id + five > stop:
            raise malformed("a delivery cannot be read")
        topic = (
            self._topics.known.get(data[position : position + 1] + data[body:tail]) if tail - body <= LONGEST else None
        )
        if topic is not None and not (five and data[after_id]):
            head = data[position : position + 1] + varint(stop - tail + len(topic)) + topic
            if len(head) + stop - tail <= session.client_packet_limit:
                self._weight = LIGHT
                self._hand_over(first, head, data[tail:stop])
                return
        packet_id = int.from_bytes(data[tail:after_id], "big")
        try:
            if topic is None:
                topic = self._admitted(data, position, body, tail, stop - position)
            if topic is not None and five and data[after_id]:
                block, start = self._block(data, after_id, stop)
        except UnfitError:
            session.limit_reached("unfit_delivery")
            topic = None
        if topic is None:
            self._swallow(first, packet_id)
            return
        head = topic + data[tail:after_id]
        if start > after_id:
            head += block
        elif len(self._heads.known) < HEADS_MAX and stop - position <= session.client_packet_limit:
            length = varint(stop - tail + len(topic))
            ready = data[position : position + 1] + length + topic
            self._heads.keep(data[position:tail], ready, tail - position + len(ready))
        head = data[position : position + 1] + varint(len(head) + stop - start) + head
        if len(head) + stop - start > session.client_packet_limit:
            # MQTT 5 s3.1.2.11.4: discard it and behave as if it had been sent.
            self._swallow(first, packet_id)
            return
        self._hand_over(first, head, data[start:stop])

    def _hand_over(self, first: int, head: bytes, rest: bytes) -> None:
        """Send an allowed message to the client, but drop QoS 0 when the client is far behind (MQTT 5 s4.3.1)."""
        session = self._session
        if session.shedding and not first & 6:
            TALLY.refused["out", "unread"] += 1
            session.limit_reached("unread_messages")
            return
        session.messages_out += 1
        session.to_client.append(head)
        session.to_client.append(rest)

    def _admitted(self, data: bytes, position: int, body: int, tail: int, size: int) -> bytes | None:
        """The encoded topic of a delivery as the client knows it; ``None`` when the policy denies the delivery.

        Remembered by topic and flags.
        """
        session = self._session
        first = data[position]
        if not first & 6 and first & 8:
            raise malformed("DUP on a QoS 0 message")
        self._weight = tail - body >> TOPIC_SHIFT
        mounted = checked_text(data[body + 2 : tail])
        check_topic_name(mounted)
        try:
            topic = session.mount.client_topic(mounted)
        except MountError:
            session.invariant_broken("a delivery lies outside the mount")
            return None
        decision = session.authorizer.receive(topic)
        if not decision.allowed:
            TALLY.refused["out", "denied"] += 1
            session.denied("receive", topic, decision, qos=first >> 1 & 3, retain=bool(first & 1), size=size)
            return None
        known = binary(topic)
        if tail - body <= LONGEST:
            self._topics.keep_newest(data[position : position + 1] + data[body:tail], known, tail - body + len(topic))
        return known

    def _block(self, data: bytes, start: int, stop: int) -> tuple[bytes, int]:
        """The property block at ``start`` as the client sees it, and where it ends.

        One message comes once for every subscriber: what was worked out for one of the organization serves all.
        """
        org = self._session.org
        length, begin = long_length(data, start, stop)
        end = begin + length
        if length < 0 or end > stop:
            raise malformed("the properties end after their packet")
        mounted = data[start:end]
        block = org.block(mounted)
        if block is None:
            properties = decode_properties(Reader(data, start, stop), "DELIVERY")
            self._weight += len(properties) // ELEMENTS
            block = self._unmounted(properties).encode()
            org.keep_block(mounted, block)
        return block, end

    def _unmounted(self, properties: Properties) -> Properties:
        response = properties.string(Property.RESPONSE_TOPIC)
        if response is None:
            return properties
        try:
            return properties.with_(Property.RESPONSE_TOPIC, self._session.mount.client_topic(response))
        except MountError:
            return properties.without(Property.RESPONSE_TOPIC)

    def _swallow(self, first: int, packet_id: int) -> None:
        """Drop a delivery, and acknowledge it to the broker in the client's place."""
        session = self._session
        if session.ended:
            return
        if first & 6 == 2:
            session.to_broker.append(acknowledgement(Kind.PUBACK, packet_id, session.version))
        elif first & 6:
            if self._swallowed is None:
                self._swallowed = set()
            self._swallowed.add(packet_id)
            session.to_broker.append(acknowledgement(Kind.PUBREC, packet_id, session.version))

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
            self._subscriptions.suback(*decode_suback(body, session.version))
        elif kind == Kind.UNSUBACK:
            self._subscriptions.unsuback(*decode_suback(body, session.version))
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
        if packet.code >= Reason.UNSPECIFIED and kind is not Kind.PUBREL:
            refused_by_broker(session, kind, packet.code, session.sent.topic(packet.packet_id, session.version))
            if kind is Kind.PUBREC:
                self._finished(packet.packet_id)
        session.to_client.append(acknowledgement(kind, packet.packet_id, session.version, packet.code))

"""From the client to the broker: every packet of a live session is parsed, checked and mounted here.

The hot loop works on one ``bytes`` per read. A PUBLISH seen before, byte for byte up to the end of its topic, costs a
slice and one dictionary look-up; frames that need no change pass as part of one slice. Everything else takes the slow
path below, which is where the rules are.
"""

from __future__ import annotations

import time

from acl.policy import Decision
from cloudsignal.edge.codec import (
    Kind,
    Property,
    ProtocolError,
    Publish,
    Reason,
    acknowledgement,
    decode_acknowledgement,
    decode_disconnect,
    decode_publish,
    encode_publish,
    varint,
)
from cloudsignal.edge.codec.primitives import binary, malformed, protocol_error
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.context import Context
from cloudsignal.edge.session.frames import ELEMENTS, LIGHT, TOPIC_SHIFT, TURN_MAX, YIELD, Carry, long_length, too_large
from cloudsignal.edge.session.handshakes import Handshakes
from cloudsignal.edge.session.memo import LONG, LONGEST, Memo
from cloudsignal.edge.session.mountpoint import MountError
from cloudsignal.edge.session.retained import Refusal
from cloudsignal.edge.session.retention import retain
from cloudsignal.edge.session.sent import RECENT_BYTES
from cloudsignal.edge.session.subscribing import subscribe, unsubscribe
from cloudsignal.edge.session.subscriptions import Subscriptions

HEADS_MAX = 64
"""Ready-made headers kept per session: one per topic, flags and size of packet."""

TOPICS_MAX = 512
"""Mounted topics kept per session, for packets whose sizes vary."""

ALIAS_MAX = 10
"""Topic Alias Maximum offered to clients (MQTT 5 s3.2.2.3.8)."""

ALIAS_BYTES = 16_384
"""Topics that the aliases of a session stand for, together: they are kept as long as it lives."""

SMALL = 4_096
"""A packet that is not complete counts against its organization's unfinished bytes from this size on."""

LEAST = 5
"""Bytes of the shortest PUBLISH: a topic of one character, and nothing else."""

PUBLISH_DENIED = "the policy does not allow this publish"
"""Reason string of PUBACK and PUBREC 0x87; it names no rule, because the client must not learn the policy."""

OVER_QUOTA = Refusal("messages_per_minute", "the organization's messages of this minute are used up")
SPLIT = Refusal("nodes_split", "the broker's nodes are split and the message could be lost; publish it again later")


class Uplink:
    """The client's half of a live session."""

    __slots__ = (
        "_aliases",
        "_carry",
        "_handshakes",
        "_heads",
        "_session",
        "_subscriptions",
        "_topics",
        "_unfinished",
        "_weight",
        "finished",
    )

    def __init__(self, session: Context, subscriptions: Subscriptions) -> None:
        self._session = session
        self._subscriptions = subscriptions
        self._carry = Carry()
        self._heads: Memo[bytes, bytes] = Memo(session.purse, HEADS_MAX)
        self._topics: Memo[bytes, bytes] = Memo(session.purse, TOPICS_MAX)
        self._unfinished = 0
        """Bytes taken from the organization for a packet that is not complete."""
        self._aliases: dict[int, bytes] | None = None
        self._handshakes = Handshakes(session)
        self.finished = self._handshakes.finished
        """The broker has refused a QoS 2 message, which ends its handshake."""
        self._weight = 0.0
        """Cost of the last packet in packets, beyond the one it is counted as."""

    def forget(self) -> None:
        """Drop all remembered verdicts and headers: policy, claims or time have changed."""
        self._heads.drop()
        self._topics.drop()

    def finish(self) -> None:
        """Give back the bytes counted for an incomplete packet: it is complete, or the session has ended."""
        self._session.org.unfinished.give(self._unfinished)
        self._unfinished = 0

    def _begin(self, size: int) -> None:
        session = self._session
        if not session.org.unfinished.take(size):
            session.limit_reached("unfinished_packets")
            raise ProtocolError(Reason.QUOTA_EXCEEDED, "the organization has too many unfinished packets")
        self._unfinished = size

    def feed(self, data: bytes) -> None:  # noqa: PLR0912, PLR0915 - the hot loop, on purpose in one function
        """Process bytes from the client; the output goes to ``session.to_broker`` and ``to_client``.

        Raises :class:`ProtocolError` at the first packet that breaks the protocol; what came before it stands.
        """
        session = self._session
        now = session.heard_at = time.time()
        if now >= session.authorizer.until:
            session.forget()
        org = session.org
        if session.authorizer.active is not org.active:
            session.adopt()
        session.unread = False
        carry = self._carry
        if carry.begun is not None:
            joined = carry.join(data)
            if joined is None:
                return
            if self._unfinished:
                self.finish()
            data = joined
        end = len(data)
        sent = session.sent
        sent.recent = data if end <= RECENT_BYTES else b""
        sent.answered = False
        out = session.to_broker
        five = session.version == 5
        limit = session.packet_limit
        position = keep = count = need = 0
        slow = 0.0
        # Messages that may exceed the quota are counted one by one; those that the broker may refuse are noted.
        watched = now < sent.watch_until
        one_by_one = self._handshakes.held or watched or org.refusing or org.over_quota(now, end // LEAST)
        heads = {} if one_by_one else self._heads.known
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
                    if need > limit:
                        raise too_large()
                    break
                kind = first & 0xF0
                if kind == 0x30 and length > 2 and data[body] < LONG:
                    tail = body + 2 + (data[body] << 8 | data[body + 1])
                    known = data[position:tail]
                    head = heads.get(known)
                    after = tail + 2 if first & 6 else tail
                    if (
                        head is not None
                        and not (five and data[after])
                        and (after == tail or data[tail] or data[tail + 1])
                    ):
                        count += 1
                        if position > keep:
                            out.append(data[keep:position])
                        out.append(head)
                        keep = tail
                        size = stop - position
                        while (
                            end - stop >= size
                            and data.startswith(known, stop)
                            and not (five and data[after + size])
                            and (after == keep or data[keep + size] or data[keep + size + 1])
                        ):
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
                    length == 2
                    and (kind == 0x40 or kind == 0x50 or kind == 0x70)  # noqa: PLR1714
                    and not first & 15
                    and (data[body] or data[body + 1])
                ):
                    position = stop
                    continue
                if stop - position > limit:
                    raise too_large()
                if slow >= TURN_MAX:
                    break
                slow += 1
                if position > keep:
                    out.append(data[keep:position])
                keep = stop
                if kind == 0x30:
                    session.messages_in += count
                    org.spend(count)
                    count = 1
                    self._publish(data, position, body, stop, now)
                    if watched and first & 6:
                        sent.note(first, data[body:stop], session.version)
                    if self._handshakes.held:
                        heads = {}
                else:
                    session.messages_in += count  # it may be the last packet, and its event has the sum
                    org.spend(count)
                    count = 0
                    self._other(first, data[position:stop], data[body:stop])
                    if session.ended:
                        return
                slow += self._weight
                self._weight = 0.0
                position = stop
        finally:
            if count:
                session.messages_in += count
                org.spend(count)
            if keep < position:
                out.append(data[keep:position])
        if slow >= YIELD:
            # Also when nothing is left: the transport would read on before everybody else had their turn.
            session.unread = True
        if position < end:
            carry.keep(data[position:], need)
            if need > SMALL:
                self._begin(need)

    def _publish(self, data: bytes, position: int, body: int, stop: int, now: float) -> None:
        """The slow path of a PUBLISH: a new topic, another size, properties, an alias, or a refusal."""
        session = self._session
        first = data[position]
        tail = body + 2 + int.from_bytes(data[body : body + 2], "big")
        after_id = tail + 2 if first & 6 else tail
        five = session.version == 5
        # Retained messages are counted one by one: nothing is remembered of them, nor of topics that are very long.
        simple = (
            not first & 1
            and body + 2 < tail <= body + LONGEST
            and (after_id < stop and not data[after_id] if five else after_id <= stop)
        )
        over = OVER_QUOTA if session.org.over_quota(now) else SPLIT if session.org.refusing else None
        topic_key = data[position : position + 1] + data[body:tail] if simple else b""
        if simple and over is None:
            known = self._topics.known.get(topic_key)
            if known is not None:
                if first & 6:
                    self._handshakes.taken(first >> 1 & 3, int.from_bytes(data[tail:after_id], "big"))
                self._weight = LIGHT
                session.to_broker.append(self._head(data[position:tail], stop - tail, known))
                session.to_broker.append(data[tail:stop])
                return
        message = decode_publish(first, data[body:stop], session.version)
        self._resolve_alias(message)
        self._weight = len(message.properties) // ELEMENTS + (len(message.topic) >> TOPIC_SHIFT)
        size = stop - position
        if over is not None:
            self._refuse(message, size, None, limit=over)
            return
        response = message.properties.string(Property.RESPONSE_TOPIC)
        deep = session.authorizer.too_deep("pub", message.topic, response)
        decision = deep or session.authorizer.publish(message.topic, message.qos, message.retain)
        if not decision.allowed:
            self._refuse(message, size, decision, too_deep=deep is not None)
            return
        try:
            mounted = session.mount.topic(message.topic)
            if response is not None:
                message.properties = message.properties.with_(Property.RESPONSE_TOPIC, session.mount.topic(response))
        except MountError as error:
            raise ProtocolError(Reason.TOPIC_INVALID, str(error)) from None
        if message.retain and (full := retain(session, message, size, now)) is not None:
            self._refuse(message, size, None, limit=full)
            return
        if message.qos:
            self._handshakes.taken(message.qos, message.packet_id)
        if simple:
            known = binary(mounted)
            if not self._topics.keep(topic_key, known, len(topic_key) + len(known)):
                self._topics.drop()
                self._heads.drop()
            session.to_broker.append(self._head(data[position:tail], stop - tail, known))
            session.to_broker.append(data[tail:stop])
            return
        if len(mounted) > LONGEST:
            session.org.rest(len(mounted))
        message.topic = mounted
        session.to_broker.append(encode_publish(message, session.version))

    def _head(self, begin: bytes, rest: int, topic: bytes) -> bytes:
        """The mounted form of ``begin``, the packet up to the end of its topic, remembered for the hot loop.

        ``rest`` bytes follow it; ``topic`` is mounted, with its length.
        """
        head = begin[:1] + varint(rest + len(topic)) + topic
        if len(self._heads.known) < HEADS_MAX and not (begin[0] & 4 and self._session.version == 5):
            # Unfinished QoS 2 messages of MQTT 5 are counted: each comes by Handshakes.taken.
            self._heads.keep(begin, head, len(begin) + len(head))
        return head

    def _resolve_alias(self, message: Publish) -> None:
        """MQTT 5 s3.3.2.3.4: aliases end at the edge; the broker sees full topics only."""
        alias = message.properties.number(Property.TOPIC_ALIAS, 0)
        if not alias:
            return
        if alias > ALIAS_MAX:
            raise ProtocolError(Reason.TOPIC_ALIAS_INVALID, "a topic alias is above the maximum")
        if self._aliases is None:
            self._aliases = {}
        if message.topic:
            self._aliases[alias] = message.topic
            if sum(map(len, self._aliases.values())) > ALIAS_BYTES:
                text = f"topic aliases stand for more than {ALIAS_BYTES} bytes of topics"
                raise ProtocolError(Reason.QUOTA_EXCEEDED, text)
        elif alias in self._aliases:
            message.topic = self._aliases[alias]
        else:
            raise protocol_error("a topic alias was never given a topic")
        message.properties = message.properties.without(Property.TOPIC_ALIAS)

    def _refuse(
        self,
        message: Publish,
        size: int,
        decision: Decision | None,
        *,
        too_deep: bool = False,
        limit: Refusal = OVER_QUOTA,
    ) -> None:
        """Deny a publish by ``decision``; when that is ``None``, refuse it because ``limit`` is reached.

        MQTT 5 names the reason; 3.1.1 has no negative answer (MQTT 3.1.1 s3.3.5), so the edge completes the handshake
        and drops the message. During a split it gets none: the client keeps it for its next connection.
        """
        session = self._session
        verdict = "denied" if decision is not None else "split" if limit is SPLIT else "over_quota"
        TALLY.refused["in", verdict] += 1
        if decision is None:
            session.limit_reached(limit.limit)
        else:
            session.denied("publish", message.topic, decision, qos=message.qos, retain=message.retain, size=size)
        if not message.qos:
            return
        if verdict == "split" and session.version != 5:
            session.unanswered = True
            return
        kind = Kind.PUBACK if message.qos == 1 else Kind.PUBREC
        if decision is None:
            reason, text = Reason.QUOTA_EXCEEDED, limit.text
        elif too_deep:
            reason, text = Reason.TOPIC_INVALID, decision.reason
        else:
            reason, text = Reason.NOT_AUTHORIZED, PUBLISH_DENIED
        text = text if session.wants_reasons else ""
        answer = acknowledgement(kind, message.packet_id, session.version, reason, text)
        if len(answer) > session.client_packet_limit:
            answer = acknowledgement(kind, message.packet_id, session.version, reason)
        session.to_client.append(answer)
        if message.qos != 2:
            return
        self._handshakes.refused(message.packet_id)

    def _other(self, first: int, raw: bytes, body: bytes) -> None:
        session = self._session
        kind = first & 0xF0
        if kind in {Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP}:
            packet = decode_acknowledgement(first, body, session.version)
            if kind != Kind.PUBREL or not self._handshakes.released(packet.packet_id):
                session.to_broker.append(raw)
        elif kind == Kind.PINGREQ:
            if first != Kind.PINGREQ or body:
                raise malformed("PINGREQ has flags or a body")
            session.to_broker.append(raw)
        elif kind == Kind.SUBSCRIBE:
            self._weight = subscribe(session, self._subscriptions, first, body)
        elif kind == Kind.UNSUBSCRIBE:
            self._weight = unsubscribe(session, self._subscriptions, first, body)
        elif kind == Kind.DISCONNECT:
            message = decode_disconnect(first, body, session.version)
            expiry = message.properties.number(Property.SESSION_EXPIRY, 0)
            if expiry and not session.session_expiry:
                raise protocol_error("a session that was to end with its connection cannot be prolonged")
            session.client_leaves(message.code, raw, message.properties)
        elif kind == Kind.AUTH:
            raise protocol_error("AUTH without an authentication method")
        else:
            raise protocol_error("a client may not send this packet")

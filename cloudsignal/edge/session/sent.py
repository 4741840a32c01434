"""The packets of a client that went to the broker last: enough of them to name the one that the broker refuses."""

from __future__ import annotations

from contextlib import suppress

from cloudsignal.edge.codec import Kind, ProtocolError, decode_publish, decode_subscribe, decode_unsubscribe
from cloudsignal.edge.session.frames import long_length

RECENT_BYTES = 4_096
"""The last read from a client is kept when it is no longer than this: what the broker refuses is looked up in it."""

NOTED_MAX, NOTED_BYTES = 64, 1_024
"""Topics noted, at most, and the longest of them; the newest stay."""

_BLAMED = {Kind.PUBLISH, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE}


class Sent:
    """The packets of one client that went to the broker last, as far as they are needed to name a refused one."""

    __slots__ = ("_noted", "answered", "recent", "watch_until")

    def __init__(self) -> None:
        self.recent = b""
        """The last read from the client, or nothing when it was long."""
        self.answered = False
        """Whether the broker has sent anything since."""
        self.watch_until = 0.0
        """Time until which topics are noted, in seconds since the epoch."""
        self._noted: dict[int, bytes] | None = None

    def note(self, first: int, body: bytes, version: int) -> None:
        """Note the topic of a PUBLISH of QoS 1 or 2, in case the broker refuses it."""
        message = decode_publish(first, body, version)
        if self._noted is None:
            self._noted = {}
        self._noted.pop(message.packet_id, None)
        if not 0 < len(message.topic) <= NOTED_BYTES:
            return
        self._noted[message.packet_id] = message.topic
        if len(self._noted) > NOTED_MAX:
            del self._noted[next(iter(self._noted))]

    def topic(self, packet_id: int, version: int) -> bytes:
        """Topic of the message that went under ``packet_id``; empty when it is not known.

        The first refusal of many messages under way may be of one that came with an earlier read; from then on all
        are noted.
        """
        noted = self._noted.get(packet_id) if self._noted else None
        if noted:
            return noted
        found = b""
        with suppress(ProtocolError):  # what has not had its turn may be anything
            for first, body in _packets(self.recent):
                if first & 0xF0 == Kind.PUBLISH and first & 6:
                    message = decode_publish(first, body, version)
                    if message.packet_id == packet_id:
                        found = message.topic  # empty behind a topic alias
        return found

    def last(self, version: int) -> tuple[Kind, bytes] | None:
        """Kind and topic (or first filter) of what was sent last, if that was a single packet with a topic."""
        packets = list(_packets(self.recent))
        if len(packets) != 1 or packets[0][0] & 0xF0 not in _BLAMED:
            return None
        first, body = packets[0]
        kind = Kind(first & 0xF0)
        try:
            if kind is Kind.PUBLISH:
                return kind, decode_publish(first, body, version).topic
            if kind is Kind.SUBSCRIBE:
                return kind, decode_subscribe(first, body, version, 1).entries[0].topic_filter
            return kind, decode_unsubscribe(first, body, version).filters[0]
        except (ProtocolError, IndexError):
            return None


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and body of every complete packet."""
    found, position = [], 0
    while position + 2 <= len(data):
        length, body = data[position + 1], position + 2
        if length > 127:
            length, body = long_length(data, position + 1, len(data))
        if length < 0 or body + length > len(data):
            break
        found.append((data[position], data[body : body + length]))
        position = body + length
    return found

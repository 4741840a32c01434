"""Parsing of MQTT fixed headers for the hot loops, without an object per packet."""

from __future__ import annotations

from cloudsignal.edge.codec import ProtocolError, Reason
from cloudsignal.edge.codec.primitives import malformed

TURN_MAX = 128
"""Packets off the hot loop that one turn works off, about a millisecond: nobody waits long for a costly client."""

YIELD = 64
"""Packets of the costly kind in one read after which others come first, even when nothing is left of it."""

LIGHT = -0.75
"""A message on a topic known already, only of another size, weighs a quarter of a packet."""

ELEMENTS = 4
"""User properties, or filters that are only read, that weigh as much as one packet."""

TOPIC_SHIFT = 7
"""A text that is looked through weighs a packet for every 128 (2**7) bytes: one topic of 16 KiB is a turn."""


def long_length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A remaining length of more than one byte that starts at ``position``.

    Returns ``(length, start of the body)``, or ``(-1, 0)`` when more bytes are needed. Raises
    :class:`ProtocolError` for more than four bytes or a form that is not the shortest (MQTT 5 s1.5.5).
    """
    value = shift = 0
    for index in range(position, min(position + 4, end)):
        digit = data[index]
        value |= (digit & 0x7F) << shift
        if digit < 0x80:
            if digit == 0:
                raise malformed("a remaining length is not in its shortest form")
            return value, index + 1
        shift += 7
    if end - position >= 4:
        raise malformed("a remaining length has more than four bytes")
    return -1, 0


def too_large() -> ProtocolError:
    """The error for a packet above the size limit."""
    return ProtocolError(Reason.PACKET_TOO_LARGE, "a packet is larger than allowed")


class Carry:
    """Buffer for an incomplete packet. Appending is cheap however many pieces arrive."""

    __slots__ = ("_need", "begun")

    def __init__(self) -> None:
        self.begun: bytearray | None = None
        """What has arrived of it. ``None`` between packets, which the hot loops see without a call."""
        self._need = 0

    def join(self, data: bytes) -> bytes | None:
        """What was left over plus ``data``, or ``None`` while the packet is known to be incomplete."""
        if self.begun is None:
            return data
        self.begun += data
        if len(self.begun) < self._need:
            return None
        whole = bytes(self.begun)
        self.begun = None
        return whole

    def keep(self, rest: bytes, need: int) -> None:
        """Keep ``rest``, the start of a packet of ``need`` bytes (0: not known yet)."""
        self.begun = bytearray(rest)
        self._need = need

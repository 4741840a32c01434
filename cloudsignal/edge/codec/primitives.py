"""Integers, strings and the fixed header (MQTT 5 s1.5 and s2.1)."""

from __future__ import annotations

from acl.policy.engine.topics import unfit_character
from cloudsignal.edge.codec.reasons import Reason

VARINT_MAX = 268_435_455


class ProtocolError(Exception):
    """The peer broke the protocol. ``reason`` is the MQTT 5 reason code; the text never quotes what was sent.

    ``return_code`` is the CONNACK of MQTT 3.1.1 that says so (s3.2.2.3); 0 where none does and the connection closes.
    """

    def __init__(self, reason: Reason, text: str, return_code: int = 0) -> None:
        super().__init__(text)
        self.reason = reason
        self.return_code = return_code


class UnfitError(ProtocolError):
    """The packet can be read and is as MQTT wants it, but holds more, or other characters, than the edge lets in."""


def malformed(text: str) -> ProtocolError:
    """A packet that cannot be read."""
    return ProtocolError(Reason.MALFORMED, text)


def protocol_error(text: str) -> ProtocolError:
    """A packet that can be read but is not allowed."""
    return ProtocolError(Reason.PROTOCOL_ERROR, text)


_SHORT = [bytes([value]) for value in range(128)]


def varint(value: int) -> bytes:
    """A variable byte integer (MQTT 5 s1.5.5)."""
    if value < 128:
        return _SHORT[value]
    if value < 16_384:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        out.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(out)


def u16(value: int) -> bytes:
    """A two-byte integer."""
    return value.to_bytes(2, "big")


def binary(value: bytes) -> bytes:
    """A string or binary data with its two-byte length."""
    return len(value).to_bytes(2, "big") + value


def packet(first: int, *parts: bytes) -> bytes:
    """A whole packet: first byte, remaining length, body."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


_CONTROL = bytes(range(0x20)) + b"\x7f"


def checked_text(raw: bytes, noun: str = "a string", reason: Reason = Reason.MALFORMED, return_code: int = 0) -> bytes:
    """The same bytes, if they are well-formed UTF-8 without NUL (MQTT 5 s1.5.4), control and non-characters.

    Servers may take or refuse the latter. Mosquitto closes the connection, so the edge refuses them itself, whatever
    the broker; ``reason`` and ``return_code`` are what it answers, ``noun`` is what it says was wrong.
    """
    if raw.isascii():
        if len(raw.translate(None, _CONTROL)) == len(raw):
            return raw
    else:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise malformed(f"{noun} is not UTF-8") from None
        if "\0" not in text and unfit_character(text) is None:
            return raw
    if b"\0" in raw:
        raise malformed(f"{noun} contains NUL")
    raise UnfitError(reason, f"{noun} contains a control character or a non-character", return_code)


class Reader:
    """A cursor over one packet body; every read is checked against its end."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start = self.position
        stop = start + count
        if stop > self.end:
            raise malformed("a packet ends too early")
        self.position = stop
        return self.data[start:stop]

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes, big end first."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Four bytes, big end first."""
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        """A variable byte integer in its shortest form."""
        value = shift = 0
        for _ in range(4):
            digit = self.u8()
            value |= (digit & 0x7F) << shift
            if digit < 0x80:
                if digit == 0 and shift:
                    raise malformed("a variable byte integer is not in its shortest form")
                return value
            shift += 7
        raise malformed("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Binary data with a two-byte length."""
        return self.take(self.u16())

    def text(self, noun: str = "a string", reason: Reason = Reason.MALFORMED, return_code: int = 0) -> bytes:
        """A string with a two-byte length, checked, as bytes (see :func:`checked_text`)."""
        return checked_text(self.take(self.u16()), noun, reason, return_code)

    def rest(self) -> bytes:
        """Everything up to the end."""
        return self.take(self.end - self.position)

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.position

    def done(self) -> None:
        """Raise unless everything was read."""
        if self.position != self.end:
            raise malformed("a packet has bytes after its end")

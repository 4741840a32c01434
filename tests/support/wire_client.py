"""A minimal MQTT client that does exactly what it is told: no resending, no reconnecting, raw return codes.

For what paho hides (the code of a CONNACK, a dropped connection, a publish that must not be repeated). QoS 0 and 1.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 2, 3, 4, 9, 14


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def _packet(first: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


def tls_context(ca: Path) -> ssl.SSLContext:
    """Trusts the system's own CA only."""
    return ssl.create_default_context(cafile=str(ca))


@dataclass
class WireClient:
    """One connection. ``level`` is 4 for MQTT 3.1.1 and 5 for MQTT 5."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    level: int
    acks: dict[int, int] = field(default_factory=dict)
    """Packet id -> reason code of PUBACK (0 when 3.1.1 has none), or of the first SUBACK entry."""
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    closed: bool = False
    close_reason: int | None = None
    _next: int = 0
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, host: str, port: int, ca: Path, *, level: int) -> WireClient:
        """Open TLS; nothing is sent yet."""
        reader, writer = await asyncio.open_connection(host, port, ssl=tls_context(ca), server_hostname="localhost")
        return cls(reader, writer, level)

    async def connect(self, username: str | bytes | None, password: str | None, client_id: str = "c") -> int | None:
        """Send CONNECT; returns the CONNACK code, or None when the connection was closed without one."""
        flags = 2 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
        body = _text("MQTT") + bytes([self.level, flags]) + (60).to_bytes(2, "big")
        body += b"\0" if self.level == 5 else b""
        body += _text(client_id)
        body += _text(username) if username is not None else b""
        body += _text(password) if password is not None else b""
        self.writer.write(_packet(0x10, body))
        try:
            kind, packet = await self._read()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        assert kind >> 4 == CONNACK
        if packet[1] == 0:
            self._reading = asyncio.create_task(self._loop())
        return packet[1]

    def publish(self, topic: str, payload: bytes = b"x", *, qos: int = 1) -> int:
        """Send one PUBLISH; returns its packet id."""
        self._next = self._next % 65_000 + 1
        body = _text(topic) + (self._next.to_bytes(2, "big") if qos else b"") + (b"\0" if self.level == 5 else b"")
        self.writer.write(_packet(0x30 | qos << 1, body + payload))
        return self._next

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> int:
        """Send one SUBSCRIBE; returns its packet id."""
        self._next = self._next % 65_000 + 1
        body = self._next.to_bytes(2, "big") + (b"\0" if self.level == 5 else b"") + _text(topic_filter) + bytes([qos])
        self.writer.write(_packet(0x82, body))
        return self._next

    async def ack(self, packet_id: int, *, seconds: float = 30) -> int:
        """Wait for the answer to ``packet_id`` and return its reason code."""
        async with asyncio.timeout(seconds):
            while packet_id not in self.acks:
                if self.closed:
                    raise ConnectionError(f"closed while waiting for packet {packet_id}")
                await asyncio.sleep(0.005)
        return self.acks[packet_id]

    async def until_closed(self, *, seconds: float = 30) -> int | None:
        """Wait until the other side has closed; returns the reason code of its DISCONNECT, if it sent one."""
        async with asyncio.timeout(seconds):
            while not self.closed:
                await asyncio.sleep(0.005)
        return self.close_reason

    async def close(self, *, clean: bool = True) -> None:
        """Send DISCONNECT (when ``clean``) and close the socket."""
        if self._reading:
            self._reading.cancel()
        try:
            if clean:
                self.writer.write(b"\xe0\0")
            self.writer.close()
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass

    async def _read(self) -> tuple[int, bytes]:
        first = (await self.reader.readexactly(1))[0]
        size, shift = 0, 0
        while True:
            digit = (await self.reader.readexactly(1))[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return first, await self.reader.readexactly(size)

    async def _loop(self) -> None:
        try:
            while True:
                first, body = await self._read()
                self._handle(first, body)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.closed = True

    def _handle(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == PUBACK:
            self.acks[int.from_bytes(body[:2], "big")] = body[2] if len(body) > 2 else 0
        elif kind == SUBACK:
            self.acks[int.from_bytes(body[:2], "big")] = body[-1]
        elif kind == DISCONNECT:
            self.close_reason = body[0] if body else 0
        elif kind == PUBLISH:
            size = int.from_bytes(body[:2], "big")
            topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
            if first >> 1 & 3:
                self.writer.write(_packet(0x40, rest[:2]))
                rest = rest[2:]
            if self.level == 5:
                rest = rest[1 + rest[0] :]
            self.messages.append((topic, rest))

"""An MQTT client that does exactly what it is told, over TLS or WSS, and keeps every packet it is sent.

It acknowledges deliveries by itself unless ``auto_ack`` is off, and repeats nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import websockets.asyncio.client
from websockets.exceptions import WebSocketException

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.packets import Packet, Props, Will

Version = Literal[4, 5]
Transport = Literal["tls", "wss"]

PATIENCE = 15.0
"""Seconds a test waits for what must come; long, because the machine may be busy."""


class Closed(Exception):  # noqa: N818 - it reads as what it says
    """The server closed the connection while the test waited for a packet."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects to."""

    transport: Transport
    port: int
    tls: ssl.SSLContext
    host: str = "127.0.0.1"
    server_hostname: str = "localhost"
    source: str = "127.0.0.1"
    """The loopback address the client comes from: limits per address must not meet across tests."""


class Pipe(asyncio.Protocol):
    """One connection as bytes: written whole, handed over as they come, to the last one before an abrupt end."""

    def __init__(self, endpoint: Endpoint, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self._take = take
        self._end = end
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._socket: websockets.asyncio.client.ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._owed: list[bytes] = []

    async def open(self) -> None:
        """Connect and shake hands."""
        end = self.endpoint
        source = (end.source, 0)
        if end.transport == "tls":
            loop = asyncio.get_running_loop()
            await loop.create_connection(
                lambda: self, end.host, end.port, ssl=end.tls, server_hostname=end.server_hostname, local_addr=source
            )
            return
        self._socket = await websockets.asyncio.client.connect(
            f"wss://{end.server_hostname}:{end.port}/mqtt",
            host=end.host,
            port=end.port,
            local_addr=source,
            ssl=end.tls,
            subprotocols=["mqtt"],  # type: ignore[list-item]
            compression=None,
            ping_interval=None,
            max_size=None,
            open_timeout=PATIENCE,
            close_timeout=1,
        )
        self._reading = asyncio.create_task(self._read())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes of a TLS connection."""
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The TLS connection has ended, one way or another."""
        self._writable.set()
        self._end()

    def pause_writing(self) -> None:
        """The socket is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._writable.set()

    def write(self, data: bytes) -> None:
        """Send bytes at once, or over WSS right after what is being read; a connection that is gone swallows them."""
        if self._socket is not None:
            self._owed.append(data)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting for room."""
        if self._socket is None:
            self.write(data)
            await self._writable.wait()
            return
        with suppress(OSError, WebSocketException):
            await self._socket.send(data)

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._reading is not None:
            self._reading.cancel()
        self._any_transport().abort()

    def pause(self) -> None:
        """Stop taking bytes from the socket."""
        self._any_transport().pause_reading()

    def resume(self) -> None:
        """Take bytes again."""
        self._any_transport().resume_reading()

    def _any_transport(self) -> asyncio.Transport:
        found = self._transport if self._socket is None else self._socket.transport
        assert found is not None
        return found  # type: ignore[return-value]

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for data in self._socket:
                assert isinstance(data, bytes), "MQTT travels in binary frames (MQTT 5 s6)"
                self._take(data)
                if acks := self._owed:
                    self._owed = []
                    await self.send(b"".join(acks))
        except (OSError, WebSocketException):
            pass
        finally:
            self._end()


@dataclass(slots=True)
class Client:
    """One connection and everything it was sent."""

    endpoint: Endpoint
    version: Version
    label: str = ""
    auto_ack: bool = True
    log: list[Packet] = field(default_factory=list)
    """Every packet received, in order."""
    messages: deque[Packet] = field(default_factory=deque)
    """Deliveries the test has not taken yet."""
    aliases: dict[int, str] = field(default_factory=dict)
    """Topic aliases the server gave out on this connection."""
    connack: Packet | None = None
    on_packet: Callable[[Packet], None] | None = None
    closed: bool = False
    ended_by_server: bool = False
    fault: Exception | None = None
    """Something in what the server sent that is not MQTT."""
    _pipe: Pipe | None = None
    _paused: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _mids: itertools.count[int] = field(default_factory=itertools.count)
    _arrivals: dict[tuple[int, int], deque[Packet]] = field(default_factory=dict)
    """What no test has waited for yet, by kind and packet id, and by kind alone (packet id 0)."""
    _pongs: int = 0

    async def open(self) -> Client:
        """Open the connection; nothing of MQTT is sent."""
        self._pipe = Pipe(self.endpoint, self._arrived, self._gone)
        async with asyncio.timeout(PATIENCE):
            await self._pipe.open()
        return self

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self._pipe is not None
        await self._pipe.send(data)

    async def connect(self, client_id: str | bytes, **options: Any) -> Packet:
        """Send CONNECT and wait for CONNACK, whatever it says."""
        await self.send(mqtt.connect(self.version, client_id, **options))
        self.connack = await self.wait(mqtt.CONNACK)
        return self.connack

    async def publish(
        self,
        topic: str | bytes,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        mid: int | None = None,
        props: Props | None = None,
    ) -> Packet | None:
        """Send PUBLISH and see the handshake of its QoS through; returns its last packet."""
        number = self.next_mid() if mid is None else mid
        message = mqtt.publish(self.version, topic, payload, qos=qos, retain=retain, dup=dup, mid=number, props=props)
        await self.send(message)
        if qos == 1:
            return await self.wait(mqtt.PUBACK, number)
        if qos == 2:
            received = await self.wait(mqtt.PUBREC, number)
            if received.reason >= 0x80:
                return received
            await self.send(mqtt.ack(mqtt.PUBREL, number))
            return await self.wait(mqtt.PUBCOMP, number)
        return None

    async def subscribe(self, *filters: str | tuple[str, int], props: Props | None = None, qos: int = 2) -> Packet:
        """Send SUBSCRIBE (a bare filter asks for ``qos``) and wait for SUBACK."""
        number = self.next_mid()
        entries = [(entry, qos) if isinstance(entry, str) else entry for entry in filters]
        await self.send(mqtt.subscribe(self.version, number, entries, props))
        return await self.wait(mqtt.SUBACK, number)

    async def unsubscribe(self, *filters: str, props: Props | None = None) -> Packet:
        """Send UNSUBSCRIBE and wait for UNSUBACK."""
        number = self.next_mid()
        await self.send(mqtt.unsubscribe(self.version, number, filters, props))
        return await self.wait(mqtt.UNSUBACK, number)

    async def ping(self) -> None:
        """PINGREQ and its answer: everything the server sent before has then arrived."""
        before = self._pongs
        await self.send(mqtt.PING)
        await self._until(lambda: self._pongs > before, "PINGRESP")

    async def message(self, *, seconds: float = PATIENCE) -> Packet:
        """The next delivery."""
        await self._until(lambda: bool(self.messages), "a message", seconds)
        return self.messages.popleft()

    async def take(self, count: int, *, seconds: float = PATIENCE) -> list[Packet]:
        """The next ``count`` deliveries."""
        await self._until(lambda: len(self.messages) >= count, f"{count} messages", seconds)
        return [self.messages.popleft() for _ in range(count)]

    async def silent(self) -> None:
        """Assert that no delivery is left. Sound after a publisher's acknowledgement, without waiting."""
        await self.ping()
        assert not self.messages, f"{self.label}: unexpected {list(self.messages)}"

    async def wait(self, kind: int, mid: int = 0, *, seconds: float = PATIENCE) -> Packet:
        """The next packet of this kind (and packet id) that was not returned before."""
        arrived = self._arrivals.setdefault((kind, mid), deque())
        await self._until(lambda: bool(arrived), f"{mqtt.NAMES[kind]} {mid or ''}", seconds)
        return arrived.popleft()

    async def ended(self, *, seconds: float = PATIENCE) -> int | None:
        """Wait for the server to close; returns the reason code of its DISCONNECT, or ``None`` without one."""
        await self._until(lambda: self.closed, "the end of the connection", seconds, even_closed=True)
        said = [packet.reason for packet in self.log if packet.kind == mqtt.DISCONNECT]
        return said[-1] if said else None

    async def leave(self, reason: int | None = None, props: Props | None = None) -> None:
        """DISCONNECT and wait until the server has closed."""
        await self.send(mqtt.disconnect(self.version, reason, props))
        await self.ended()
        await self.drop()

    async def drop(self) -> None:
        """Cut the connection without DISCONNECT."""
        if self._pipe is not None and not self.closed:
            self.closed = True
            self._pipe.abort()

    @property
    def listening(self) -> bool:
        """Whether the connection is up and read from."""
        return not self.closed and not self._paused

    def pause(self) -> None:
        """Stop reading from the socket."""
        assert self._pipe is not None
        self._paused = True
        self._pipe.pause()

    def resume(self) -> None:
        """Read again."""
        assert self._pipe is not None
        self._paused = False
        self._pipe.resume()

    def forget(self) -> None:
        """Drop what was received so far: a client of a long run would otherwise grow without end."""
        self.log.clear()
        self.messages.clear()
        self._arrivals.clear()

    def next_mid(self) -> int:
        """The next packet id."""
        return next(self._mids) % 65_535 + 1

    async def _until(
        self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE, *, even_closed: bool = False
    ) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if self.fault is not None:
                        raise self.fault
                    if self.closed and not even_closed:
                        raise Closed(f"{self.label}: closed while waiting for {what}; got {self.summary()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.label}: {what} did not come; got {self.summary()}") from None

    def summary(self) -> str:
        """What was received, in short."""
        return ", ".join(f"{packet.name}({packet.reason or packet.topic or packet.mid})" for packet in self.log[-8:])

    def _arrived(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (found := mqtt.split(self._buffer)) is not None:
                self._take(mqtt.decode(*found, self.version))
        except (mqtt.Malformed, UnicodeDecodeError, KeyError) as error:
            self.fault = mqtt.Malformed(f"{self.label}: the server sent bytes that are not MQTT: {error!r}")
        self._changed.set()

    def _gone(self) -> None:
        self.ended_by_server = self.ended_by_server or not self.closed
        self.closed = True
        self._changed.set()

    def _take(self, packet: Packet) -> None:
        self.log.append(packet)
        self._pongs += packet.kind == mqtt.PINGRESP
        if packet.kind != mqtt.PUBLISH:
            for key in {(packet.kind, packet.mid), (packet.kind, 0)}:
                self._arrivals.setdefault(key, deque()).append(packet)
        if self.on_packet is not None:
            self.on_packet(packet)
        if packet.kind == mqtt.PUBLISH:
            alias = packet.props.get("topic_alias")
            if alias and packet.topic:
                self.aliases[alias] = packet.topic
            self.messages.append(packet)
            if self.auto_ack and packet.qos:
                self._answer(mqtt.ack(mqtt.PUBACK if packet.qos == 1 else mqtt.PUBREC, packet.mid))
        elif packet.kind == mqtt.PUBREL and self.auto_ack:
            self._answer(mqtt.ack(mqtt.PUBCOMP, packet.mid))

    def _answer(self, data: bytes) -> None:
        assert self._pipe is not None
        self._pipe.write(data)


def payloads(messages: Sequence[Packet]) -> list[bytes]:
    """Only the payloads."""
    return [message.payload for message in messages]


__all__ = ["PATIENCE", "Client", "Closed", "Endpoint", "Transport", "Version", "Will", "payloads"]

"""A client of bare packets for tests: it sends any bytes and sees exactly what comes back."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import time
from collections.abc import Iterable
from pathlib import Path

from cloudsignal.edge.codec import (
    Connack,
    Connect,
    Kind,
    Properties,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
    acknowledgement,
    decode_connack,
    decode_publish,
    decode_suback,
    encode_connect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from cloudsignal.edge.codec.properties import Value

Packet = tuple[int, bytes]
"""First byte and body."""


class ClosedError(Exception):
    """The peer closed the connection."""


class Wire:
    """One connection. ``frame`` wraps outgoing bytes (WebSocket); plain MQTT needs none."""

    def __init__(self, sock: socket.socket, *, websocket: bool = False) -> None:
        self.sock = sock
        self.websocket = websocket
        self._buffer = b""
        self._frames = b""
        self.version = 4
        self.deliveries: list[Publish] = []

    # --- bytes ---------------------------------------------------------------------------------------------------

    def send(self, *packets: bytes) -> None:
        data = b"".join(packets)
        if self.websocket:
            mask = os.urandom(4)
            size = len(data)
            length = (
                bytes([0x80 | size])
                if size < 126
                else b"\xfe" + size.to_bytes(2, "big")
                if size < 65536
                else b"\xff" + size.to_bytes(8, "big")
            )
            stretched = (mask * (size // 4 + 1))[:size]
            masked = (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")
            data = b"\x82" + length + mask + masked
        self.sock.sendall(data)

    def receive(self, *, seconds: float = 20.0) -> Packet:
        """The next packet. Raises :class:`ClosedError` or ``TimeoutError``."""
        end = time.monotonic() + seconds
        while True:
            packet = self._take()
            if packet is not None:
                return packet
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                raise ClosedError from error
            if not data:
                raise ClosedError
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        if not self.websocket:
            self._buffer += data
            return
        self._frames += data
        while len(self._frames) >= 2:
            opcode, size, start = self._frames[0] & 15, self._frames[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self._frames[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self._frames[2:10], "big"), 10
            if len(self._frames) < start + size:
                return
            payload = self._frames[start : start + size]
            self._frames = self._frames[start + size :]
            if opcode == 8:
                raise ClosedError
            if opcode in (0, 2):
                self._buffer += payload

    def _take(self) -> Packet | None:
        data = self._buffer
        length = shift = 0
        for index in range(1, 5):
            if index >= len(data):
                return None
            length |= (data[index] & 127) << shift
            shift += 7
            if data[index] < 128:
                break
        stop = index + 1 + length
        if len(data) < stop:
            return None
        self._buffer = data[stop:]
        return data[0], data[index + 1 : stop]

    def closed(self, *, seconds: float = 20.0) -> list[Packet]:
        """Read until the peer closes; returns what came before."""
        packets: list[Packet] = []
        try:
            while True:
                packets.append(self.receive(seconds=seconds))
        except ClosedError:
            return packets

    def close(self) -> None:
        """Drop the connection without DISCONNECT."""
        self.sock.close()

    # --- packets -------------------------------------------------------------------------------------------------

    def connect(
        self,
        *,
        version: int = 4,
        client_id: str = "",
        username: str | None = None,
        password: str | None = None,
        clean: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        properties: Iterable[tuple[int, Value]] = (),
    ) -> Connack:
        """Send CONNECT and return the CONNACK."""
        self.version = version
        secret = password.encode() if password is not None else None
        self.send(
            encode_connect(
                Connect(version, client_id, clean, keep_alive, username, secret, will, Properties(properties))
            )
        )
        return self.connack()

    def connack(self) -> Connack:
        first, body = self.receive()
        assert first == Kind.CONNACK, hex(first)
        return decode_connack(body, self.version)

    def subscribe(
        self, *filters: str, qos: int = 0, options: int = 0, packet_id: int = 1, properties: Properties | None = None
    ) -> list[int]:
        """Subscribe and return the codes."""
        entries = [Subscription(topic_filter.encode(), options | qos) for topic_filter in filters]
        self.send(encode_subscribe(Subscribe(packet_id, entries, properties or Properties()), self.version))
        return decode_suback(self.expect(Kind.SUBACK), self.version)[1]

    def unsubscribe(self, *filters: str, packet_id: int = 2) -> list[int]:
        """Unsubscribe and return the codes (none in 3.1.1)."""
        self.send(encode_unsubscribe(Unsubscribe(packet_id, [f.encode() for f in filters]), self.version))
        return decode_suback(self.expect(Kind.UNSUBACK), self.version)[1]

    def publish(
        self,
        topic: str,
        payload: bytes = b"x",
        *,
        qos: int = 0,
        retain: bool = False,
        packet_id: int = 10,
        properties: Iterable[tuple[int, Value]] = (),
    ) -> int:
        """Publish and go through the handshake of its QoS; returns the first reason code (0 for QoS 0)."""
        self.send(self.message(topic, payload, qos, retain=retain, packet_id=packet_id, properties=properties))
        if not qos:
            return 0
        body = self.expect(Kind.PUBACK if qos == 1 else Kind.PUBREC)
        code = body[2] if len(body) > 2 else 0
        if qos == 2 and code < 0x80:
            self.send(acknowledgement(Kind.PUBREL, packet_id, self.version))
            self.expect(Kind.PUBCOMP)
        return code

    def message(
        self,
        topic: str,
        payload: bytes = b"x",
        qos: int = 0,
        *,
        retain: bool = False,
        packet_id: int = 10,
        properties: Iterable[tuple[int, Value]] = (),
    ) -> bytes:
        """An encoded PUBLISH."""
        packet = Publish(topic.encode(), payload, qos, retain, False, packet_id, Properties(properties))
        return encode_publish(packet, self.version)

    def expect(self, kind: Kind, *, seconds: float = 20.0) -> bytes:
        """The body of the next packet of this kind; deliveries that come before it are acknowledged and kept."""
        while True:
            first, body = self.receive(seconds=seconds)
            if first & 0xF0 == kind:
                return body
            if first & 0xF0 == Kind.PUBLISH:
                self._delivered(first, body)
            elif first & 0xF0 == Kind.PUBREL:
                self.send(acknowledgement(Kind.PUBCOMP, int.from_bytes(body[:2], "big"), self.version))
            else:
                raise AssertionError(f"expected {kind.name}, got {first:#x} {body.hex()}")

    def delivery(self, *, seconds: float = 20.0) -> Publish:
        """The next delivered message, acknowledged."""
        while not self.deliveries:
            first, body = self.receive(seconds=seconds)
            if first & 0xF0 == Kind.PUBLISH:
                self._delivered(first, body)
            elif first & 0xF0 == Kind.PUBREL:
                self.send(acknowledgement(Kind.PUBCOMP, int.from_bytes(body[:2], "big"), self.version))
            else:
                raise AssertionError(f"expected a delivery, got {first:#x} {body.hex()}")
        return self.deliveries.pop(0)

    def nothing(self, *, seconds: float = 0.15) -> None:
        """Fail when a message is delivered: everything sent before is through once PINGRESP is back, plus a moment."""
        self.ping()
        time.sleep(seconds)
        self.ping()
        assert self.deliveries == [], self.deliveries

    def ping(self) -> None:
        self.send(bytes([Kind.PINGREQ, 0]))
        self.expect(Kind.PINGRESP)

    def disconnect(self) -> None:
        """A clean end."""
        self.send(bytes([Kind.DISCONNECT, 0]))
        self.sock.close()

    def _delivered(self, first: int, body: bytes) -> None:
        message = decode_publish(first, body, self.version, where="DELIVERY")
        self.deliveries.append(message)
        if message.qos:
            kind = Kind.PUBACK if message.qos == 1 else Kind.PUBREC
            self.send(acknowledgement(kind, message.packet_id, self.version))


def dial_tls(port: int, context: ssl.SSLContext, *, name: str = "localhost", source: str = "") -> Wire:
    """MQTT over TLS, from the address ``source`` when one is given (all of 127/8 is loopback)."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0) if source else None)
    return Wire(context.wrap_socket(raw, server_hostname=name))


def dial_unix(path: Path) -> Wire:
    """MQTT straight to a broker."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Wire(sock)


def dial_websocket(port: int, context: ssl.SSLContext | None, *, path: str = "/mqtt", protocol: str = "mqtt") -> Wire:
    """MQTT over WebSocket, over TLS when a context is given."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock = context.wrap_socket(raw, server_hostname="localhost") if context else raw
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        if not data:
            raise ClosedError
        answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise ClosedError(head.decode())
    wire = Wire(sock, websocket=True)
    if rest:
        wire._feed(rest)
    return wire


def ended(wire: Wire, reason: int, *, seconds: float = 20.0) -> None:
    """The peer closes; with MQTT 5 it says why."""
    packets = wire.closed(seconds=seconds)
    if wire.version == 5:
        assert [first for first, _ in packets] == [Kind.DISCONNECT]
        assert packets[0][1][0] == reason
    else:
        assert packets == []

"""MQTT over WebSocket (MQTT 5 s6): the same session, with the frames of RFC 6455 around its bytes.

``websockets`` does the handshake and the frames, without I/O of its own. A read may hold several frames and a frame
several packets, or a part of one; each read still becomes one write.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.exceptions import PayloadTooBig, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import Reason
from cloudsignal.edge.session.context import CONNECT_MAX, Phase
from cloudsignal.edge.session.uplink import SMALL
from cloudsignal.edge.transport.admission import Place
from cloudsignal.edge.transport.connection import Client, Host, pause

PATHS = frozenset({"/", "/mqtt"})

GREETING_MAX = 16_384
"""Bytes of the handshake, headers included."""

TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

FRAME_TOO_LARGE = "a WebSocket frame is larger than a packet may be"

SLICE = 4_096
"""Bytes handed to the library at a time."""

FRAMES_MAX = 256
"""Frames worked off before everybody else gets a turn, give or take a slice."""

_SILENT = logging.getLogger("cloudsignal.edge.transport.websocket.frames")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL)
"""The library's own log would contain the bytes of frames."""


class WebSocketClient(Client):
    """A client behind a WebSocket."""

    __slots__ = ("_greeting", "_rest", "_resting", "_unfinished", "_websocket")

    def __init__(self, host: Host, origin: Origin, place: Place) -> None:
        super().__init__(host, origin, place)
        self._websocket = ServerProtocol(subprotocols=[Subprotocol("mqtt")], max_size=CONNECT_MAX, logger=_SILENT)
        self._greeting = 0
        """Bytes of the handshake so far."""
        self._unfinished = 0
        """Bytes taken from the organization for a frame that is not complete."""
        self._rest = b""
        self._resting = False
        """Whether part of what was received waits until other sessions have had their turn."""

    def take(self, data: bytes) -> None:
        """Bytes from the client: a handshake or frames."""
        if self._resting:
            self._rest += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Process ``data`` until it has cost a turn: a frame can be as small as six bytes."""
        websocket = self._websocket
        if self._blocked:
            self._answers += len(data)  # a pong is as long as its ping
        websocket.max_message_size = max(self.session.packet_limit, CONNECT_MAX)
        if websocket.state is State.CONNECTING:
            self._greeting += len(data)
            if self._greeting > GREETING_MAX:
                self.session.transport_broken("the WebSocket handshake is too long")
                self.transport.write(TOO_LONG)
                self.pump()
                return
        parts: list[bytes] = []
        position = seen = 0
        while position < len(data) and seen < FRAMES_MAX:
            websocket.receive_data(data[position : position + SLICE])
            position += SLICE
            for event in websocket.events_received():
                seen += 1
                self._event(event, parts)
        if not self._too_big:
            self._write()
        if parts:
            self.received(b"".join(parts))
        if websocket.close_expected():
            self._finish()
        elif not self._closing:
            self._pace(data[position:], seen)
            self._count_unfinished(len(websocket.reader.buffer))

    def _count_unfinished(self, size: int) -> None:
        """A frame that is not complete counts against its organization as a packet does."""
        if (size <= SMALL and not self._unfinished) or self.session.phase is not Phase.LIVE:
            return
        unfinished = self.session.org.unfinished
        unfinished.give(self._unfinished)
        self._unfinished = size if size > SMALL else 0
        if not unfinished.take(self._unfinished):
            self._unfinished = 0
            self.session.limit_reached("unfinished_packets")
            text = "the organization has too many unfinished packets"
            self.session.transport_broken(text, Reason.QUOTA_EXCEEDED)
            self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's socket is gone."""
        if self._unfinished:
            self.session.org.unfinished.give(self._unfinished)
            self._unfinished = 0
        super().connection_lost(exc)

    def _event(self, event: Event, parts: list[bytes]) -> None:
        if isinstance(event, Request):
            self._greet(event)
        elif isinstance(event, Frame):
            if event.opcode in {Opcode.BINARY, Opcode.CONT}:
                parts.append(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                self._websocket.fail(1003, "MQTT travels in binary frames")

    def _pace(self, rest: bytes, seen: int) -> None:
        """Let other sessions go first when this read cost a turn; pause when the client does not read its pongs."""
        if seen >= FRAMES_MAX:
            self._rest, self._resting = rest, True
            pause(self.transport)
            asyncio.get_running_loop().call_soon(self._next_turn)
        elif self.deaf:
            pause(self.transport)

    def _next_turn(self) -> None:
        rest, self._rest, self._resting = self._rest, b"", False
        if self._closing:
            return
        if rest:
            self._take(rest)
        self.read_on()

    def read_on(self) -> None:
        """Read from the client again, unless part of what it sent waits for its turn."""
        if not self._resting:
            super().read_on()

    def _finish(self) -> None:
        """Close the transport after a close frame, or after a handshake that failed."""
        websocket = self._websocket
        if websocket.state is State.CONNECTING:
            self.session.transport_broken("the WebSocket handshake came to nothing")
        elif self._too_big:
            self.session.transport_broken(FRAME_TOO_LARGE, Reason.PACKET_TOO_LARGE)
        elif websocket.close_rcvd is None and websocket.close_sent is not None and websocket.close_sent.code != 1000:
            self.session.transport_broken("a WebSocket frame is wrong")
        self.pump()
        if not self.transport.is_closing():
            self.transport.close()

    def send(self, data: bytes) -> None:
        """Write MQTT bytes to the client as one binary frame."""
        if self._too_big:
            self.transport.write(Frame(Opcode.BINARY, data).serialize(mask=False))
            return
        try:
            self._websocket.send_binary(data)
        except WebSocketException:
            return
        self._write()

    @property
    def _too_big(self) -> bool:
        """Whether a frame was too large: the library's close frame waits, so that MQTT has its last word before it."""
        return isinstance(self._websocket.parser_exc, PayloadTooBig)

    def farewell(self) -> None:
        """A close frame before the transport closes."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(1000)
        self._write()

    def _greet(self, request: Request) -> None:
        path = request.path.partition("?")[0]
        if path in PATHS:
            response = self._websocket.accept(request)
        else:
            response = self._websocket.reject(404, "MQTT over WebSocket is served at /mqtt\n")
        self._websocket.send_response(response)

    def _write(self) -> None:
        data = b"".join(self._websocket.data_to_send())
        if data and not self.transport.is_closing():
            self.transport.write(data)

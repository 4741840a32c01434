"""TLS of one client: OpenSSL between two buffers in memory, the loop's plain transport below, the client above.

The loop's own TLS allocates 256 KiB for every connection, raises an exception for every read and keeps to itself what
came in on a handshake that failed. This one reads into the buffer all sessions share, knows when a record is complete
and is a tenth to a fifth cheaper per message and per connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from cloudsignal.edge.transport.connection import LINGER, READ_BUFFER, Client

HANDSHAKE = 10.0
"""Seconds a TLS handshake may take."""

RECORD = 16_384
"""Bytes one TLS record holds at most (RFC 8446 s5.1): a read of this size leaves nothing of it behind."""

_CIPHERTEXT = memoryview(bytearray(65_536))
"""Shared buffer for every read of every socket; a callback copies its bytes before it returns."""


class NothingSaidError(Exception):
    """A connection that was opened and closed: a health check or a port scan, no handshake that failed."""


class SecureTransport(asyncio.BufferedProtocol, asyncio.Transport):
    """The protocol of the socket and, once the handshake is done, the transport of the client.

    Whatever one read of the socket completes is decrypted at once and handed over as one: the hot loops and their
    single write live on it. As a read never holds more than :data:`_CIPHERTEXT`, it always fits.
    """

    __slots__ = (
        "_acknowledge",
        "_below",
        "_client",
        "_closing",
        "_heard",
        "_incoming",
        "_make",
        "_outgoing",
        "_over",
        "_paused",
        "_timer",
        "_tls",
        "ready",
    )

    _below: asyncio.Transport

    def __init__(
        self, context: ssl.SSLContext, make: Callable[[], Client], acknowledge: Callable[[], None] | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make = make
        self._acknowledge = acknowledge
        """Have the kernel acknowledge at once the Finished of TLS 1.3, which gets no answer: a client without
        ``TCP_NODELAY`` would keep its CONNECT back for the 40 ms of a delayed acknowledgement."""
        self._client: Client | None = None
        self._closing = False
        self._heard = False
        self._paused = False
        """Whether reading is paused. The end of the stream is then not reported either, as with a plain socket."""
        self._over = False
        """The client has sent close_notify, or its records cannot be decrypted."""
        self._timer = loop.call_later(HANDSHAKE, self.give_up)
        self.ready: asyncio.Future[None] = loop.create_future()
        """Completes with the handshake; its exception says why the handshake failed."""

    # --- the socket's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours; the client speaks first."""
        self._below = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket's bytes go."""
        return _CIPHERTEXT

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the socket."""
        if self._closing:
            return  # the last words are out, and nothing is listened to any more
        self._incoming.write(_CIPHERTEXT[:nbytes])
        if self._client is not None:
            self._read(self._client)
            if nbytes == len(_CIPHERTEXT) and self._client is not None:
                self._client.yield_turn()
        else:
            self._heard = True
            self._shake()

    def eof_received(self) -> bool:
        """MQTT has no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._closing = True
        self._timer.cancel()
        client, self._client = self._client, None
        if client is not None:
            client.connection_lost(exc)
        else:
            self._fail(exc or ConnectionResetError())

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        if self._client is not None:
            self._client.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._client is not None:
            self._client.resume_writing()

    # --- TLS -----------------------------------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._acknowledge is not None:
                self._acknowledge()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._fail(error)
            self._below.close()
            return
        if self._tls.version() != "TLSv1.3":
            self._flush()  # in 1.3 only a ticket is left to be sent: it goes with the first answer
        self._timer.cancel()
        self._client = client = self._make()
        client.connection_made(self)
        self.ready.set_result(None)
        if self._incoming.pending:
            self._read(client)

    def _read(self, client: Client) -> None:
        """Decrypt all complete records, then hand them over together."""
        read, incoming = self._tls.read, self._incoming
        count, over = 0, False
        try:
            count = cast(int, read(RECORD, READ_BUFFER))
            over = not count
            while incoming.pending and not over:
                more = cast(int, read(RECORD, READ_BUFFER[count:]))
                over = not more
                count += more
        except ssl.SSLWantReadError:
            pass  # the rest of a record has not arrived
        except ssl.SSLError:
            over = True
            self._flush()
        if count:
            client.take(READ_BUFFER[:count].tobytes())
        if over and not self._closing:
            self._over = True
            if not self._paused:
                self._below.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._below.write(data)

    def give_up(self) -> None:
        """Abort a handshake that takes too long."""
        self._fail(TimeoutError())
        self._below.abort()

    def _fail(self, error: BaseException) -> None:
        if not self.ready.done():
            if isinstance(error, ConnectionError) and not self._heard:
                error = NothingSaidError()
            self.ready.set_exception(error)

    # --- the client's side ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write."""
        if self._closing:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self.abort()
            return
        self._below.write(self._outgoing.read())

    def close(self) -> None:
        """Send close_notify after what is queued, and wait for the client's, so that it reads ours."""
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        if self._below.is_closing():
            return
        self._below.write_eof()
        self._below.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._below.abort)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        if self._over:
            self._below.close()
        else:
            self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes the socket has not taken yet."""
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``ssl_object`` and whatever the socket's transport knows."""
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

"""Listeners: accept, count, shake hands, hand over."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Protocol

from cloudsignal.config import Address
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.transport import proxy_protocol
from cloudsignal.edge.transport.address_limits import Limits
from cloudsignal.edge.transport.admission import Admission, Place
from cloudsignal.edge.transport.certificates import Certificates
from cloudsignal.edge.transport.connection import Client, Host
from cloudsignal.edge.transport.proxy_protocol import ProxyError
from cloudsignal.edge.transport.tls_transport import HANDSHAKE, NothingSaidError, SecureTransport

logger = logging.getLogger("cloudsignal.edge.transport.listener")

BACKLOG = 4096

DEFER = 1
"""Seconds the kernel keeps a connection to itself whose client says nothing (``TCP_DEFER_ACCEPT``): MQTT clients speak
first. No more, because what waits there takes room from others."""


class Reception(Host, Protocol):
    """Interface of the process that a listener runs in."""

    clients: dict[str, Client]
    limits: Limits
    admission: Admission
    capacity: int

    def tls_failed(self, origin: Origin, reason: str) -> None:
        """A handshake failed."""

    def turned_away(self, origin: Origin, limit: str) -> None:
        """A connection was closed before its handshake because a limit was reached."""


MakeClient = Callable[[Host, Origin, Place], Client]


class ListenError(OSError):
    """An address cannot be listened on; the text names it."""


class Listener:
    """One listening socket. Several processes may share its port (SO_REUSEPORT)."""

    def __init__(
        self,
        host: Reception,
        address: Address,
        transport: str,
        make: MakeClient,
        certificates: Certificates | None,
        *,
        proxied: bool = False,
    ) -> None:
        self._host = host
        self._transport = transport
        self._make = make
        self._certificates = certificates
        self._proxied = proxied
        """A TLS terminator is in front and begins every connection with a PROXY v2 header."""
        self._tasks: set[asyncio.Task[None]] = set()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
            if hasattr(socket, "TCP_DEFER_ACCEPT"):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER)
            self._socket.bind((address.host, address.port))
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
        self.port: int = self._socket.getsockname()[1]
        self._listening = False
        self._resume()

    def close(self) -> None:
        """Accept no more; handshakes under way are given up."""
        self._pause()
        self._socket.close()
        for task in self._tasks:
            task.cancel()

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def _resume(self) -> None:
        if not self._listening and self._socket.fileno() >= 0:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("accept failed: %s", error)
                self._pause()
                asyncio.get_running_loop().call_later(0.1, self._resume)
                return
            self._admit(connection, (str(address[0]).removeprefix("::ffff:"), int(address[1])))

    def _admit(self, connection: socket.socket, address: tuple[str, int]) -> None:
        host = self._host
        origin = Origin(address[0], address[1], self._transport)
        limit = ""
        if host.journal.full:
            limit = "audit_journal"
        elif len(host.clients) + len(self._tasks) >= host.capacity:
            limit = "file_descriptors"
        elif not self._proxied:
            limit = self._address_limit(origin)
        if limit:
            connection.close()
            host.turned_away(origin, limit)
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(connection, origin))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _address_limit(self, origin: Origin) -> str:
        """The limit this address has reached, or nothing; then it is counted until ``limits.release``."""
        return "" if self._host.limits.admit(origin.ip) else "address_connections"

    async def _serve(self, connection: socket.socket, origin: Origin) -> None:
        counted = not self._proxied
        place: Place | None = None
        try:
            if self._proxied:
                proxied = await self._read_proxy(connection)
                if proxied is None:
                    return
                origin = replace(origin, **asdict(proxied))
                limit = self._address_limit(origin)
                if limit:
                    connection.close()
                    self._host.turned_away(origin, limit)
                    return
                counted = True
            place = await self._place(connection, origin)
            if place is None:
                return
            await self._hand_over(connection, origin, place)
            counted, place = False, None  # the client's from here on: see node.closed
        except ProxyError as error:
            self._host.tls_failed(origin, str(error))
        except NothingSaidError:
            pass
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._host.tls_failed(origin, handshake_reason(error))
        finally:
            if place is not None:
                place.leave()
            if counted:
                self._host.limits.release(origin.ip)

    async def _place(self, connection: socket.socket, origin: Origin) -> Place | None:
        """A place among those that have not signed in, waited for in turn; ``None`` when the connection was closed."""
        try:
            place = await self._host.admission.enter(origin.ip)
        except BaseException:
            connection.close()
            raise
        if place is None:
            connection.close()
            self._host.turned_away(origin, "handshakes")
        return place

    async def _hand_over(self, connection: socket.socket, origin: Origin, place: Place) -> None:
        """Do the TLS handshake and start the client's connection."""
        loop = asyncio.get_running_loop()

        def make() -> Client:
            client = self._make(self._host, origin, place)
            place.give_up = client.give_up
            return client

        try:
            if self._certificates is None:
                await loop.connect_accepted_socket(make, connection)
                return
            secure = SecureTransport(self._certificates.default, make, _acknowledger(connection))
            place.give_up = secure.give_up
            await loop.connect_accepted_socket(lambda: secure, connection)
        except BaseException:
            connection.close()
            raise
        try:
            await secure.ready
        except asyncio.CancelledError:
            secure.abort()
            raise

    async def _read_proxy(self, connection: socket.socket) -> proxy_protocol.Proxied | None:
        """The PROXY header, to the byte: what follows belongs to MQTT."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE):
                header = await _exactly(loop, connection, proxy_protocol.HEADER)
                found = proxy_protocol.parse(
                    header, await _exactly(loop, connection, proxy_protocol.variable_length(header))
                )
        except BaseException:
            connection.close()
            raise
        if found is None:
            connection.close()
        return found


def _acknowledger(connection: socket.socket) -> Callable[[], None] | None:
    """Where the system knows it: set TCP_QUICKACK, which the kernel resets by itself."""
    option = getattr(socket, "TCP_QUICKACK", None)
    return None if option is None else partial(connection.setsockopt, socket.IPPROTO_TCP, option, 1)


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(connection, count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def handshake_reason(error: BaseException) -> str:
    """A failed handshake in one word, e.g. ``unsupported_protocol`` or ``http_request``."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower()
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "timeout"
    return "connection_lost"

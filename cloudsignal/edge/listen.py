"""Listeners: accept, count, shake hands, hand over."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from cloudsignal.config import Address
from cloudsignal.edge import proxy
from cloudsignal.edge.link import Client
from cloudsignal.edge.node import Node
from cloudsignal.edge.proxy import ProxyError
from cloudsignal.edge.secure import HANDSHAKE, NothingSaidError, SecureTransport
from cloudsignal.edge.tls import Certificates
from cloudsignal.edge.trail import Origin

logger = logging.getLogger("cloudsignal.edge.listen")

BACKLOG = 1024
AT_ONCE = 512
"""Handshakes under way at a time; beyond it, new connections wait in the kernel."""

PATIENCE = 2.0
"""Seconds after which a handshake is given up when others wait."""

RESERVE = 128
"""File descriptors kept back for everything that is not a client."""

PER_CLIENT = 2
"""File descriptors of one session: the client's socket and the broker's."""

MakeClient = Callable[[Node, Origin], Client]


class ListenError(OSError):
    """An address cannot be listened on; the text names it."""


class Listener:
    """One listening socket. Several processes may share its port (SO_REUSEPORT)."""

    def __init__(
        self,
        node: Node,
        address: Address,
        transport: str,
        make: MakeClient,
        certificates: Certificates | None,
        *,
        proxied: bool = False,
    ) -> None:
        self._node = node
        self._transport = transport
        self._make = make
        self._certificates = certificates
        self._proxied = proxied
        """A TLS terminator is in front and begins every connection with a PROXY v2 header."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._shaking: dict[SecureTransport, float] = {}
        """Handshakes under way and when they began, oldest first."""
        self._capacity = (_raise_limit() - RESERVE) // PER_CLIENT
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
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
            if len(self._tasks) >= AT_ONCE and not self._make_room():
                self._pause()
                asyncio.get_running_loop().call_later(PATIENCE / 8, self._resume)
                return
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

    def _make_room(self) -> bool:
        """Give up the oldest handshake if it had its time: silent sockets of one host must not keep the others out."""
        oldest = next(iter(self._shaking), None)
        if oldest is None or time.monotonic() - self._shaking[oldest] < PATIENCE:
            return False
        del self._shaking[oldest]
        oldest.give_up()
        return True

    def _admit(self, connection: socket.socket, address: tuple[str, int]) -> None:
        node = self._node
        origin = Origin(address[0], address[1], self._transport)
        limit = ""
        if node.journal.full:
            limit = "audit_journal"
        elif len(node.clients) + len(self._tasks) >= self._capacity:
            limit = "file_descriptors"
        elif not self._proxied:
            limit = self._address_limit(origin)
        if limit:
            connection.close()
            node.turned_away(origin, limit)
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(connection, origin))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _address_limit(self, origin: Origin) -> str:
        """The limit this address has reached, or nothing; then it is counted until ``limits.release``."""
        return "" if self._node.limits.admit(origin.ip) else "address_connections"

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._listening and len(self._tasks) < AT_ONCE // 2:
            self._resume()

    async def _serve(self, connection: socket.socket, origin: Origin) -> None:
        counted = not self._proxied
        try:
            if self._proxied:
                proxied = await self._read_proxy(connection)
                if proxied is None:
                    return
                origin = replace(origin, **asdict(proxied))
                limit = self._address_limit(origin)
                if limit:
                    self._node.turned_away(origin, limit)
                    return
                counted = True
            await self._hand_over(connection, origin)
            counted = False
        except ProxyError as error:
            self._node.tls_failed(origin, str(error))
        except NothingSaidError:
            pass
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._node.tls_failed(origin, handshake_reason(error))
        finally:
            if counted:
                self._node.limits.release(origin.ip)

    async def _hand_over(self, connection: socket.socket, origin: Origin) -> None:
        """Shake hands; from then on the client is on its own."""
        loop = asyncio.get_running_loop()

        def make() -> Client:
            return self._make(self._node, origin)

        try:
            if self._certificates is None:
                await loop.connect_accepted_socket(make, connection)
                return
            secure = SecureTransport(self._certificates.default, make)
            await loop.connect_accepted_socket(lambda: secure, connection)
        except BaseException:
            connection.close()
            raise
        self._shaking[secure] = time.monotonic()
        try:
            await secure.ready
        except asyncio.CancelledError:
            secure.abort()
            raise
        finally:
            self._shaking.pop(secure, None)

    async def _read_proxy(self, connection: socket.socket) -> proxy.Proxied | None:
        """The PROXY header, to the byte: what follows belongs to MQTT."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE):
                header = await _exactly(loop, connection, proxy.HEADER)
                found = proxy.parse(header, await _exactly(loop, connection, proxy.variable_length(header)))
        except BaseException:
            connection.close()
            raise
        if found is None:
            connection.close()
        return found


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


def _raise_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard

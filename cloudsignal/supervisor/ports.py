"""TCP ports: find free ones that ``localhost`` reaches, and name the program that holds a taken one."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from cloudsignal.supervisor.errors import StartError

PRIVATE_RANGE = range(20_000, 32_000)
"""Where the embedded parts listen: below the ephemeral range, so that no outgoing connection takes the port while a
part restarts."""

SEARCH = 200
"""How many ports after the usual one are tried before giving up."""

LOOPBACK = ("127.0.0.1", "::1")
"""The addresses of ``localhost``: one or both, in an order that differs from machine to machine."""


def localhost() -> str:
    """The address to listen on so that ``localhost`` reaches it: 127.0.0.1, or ::1 where only that resolves."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    return LOOPBACK[1] if LOOPBACK[1] in found and LOOPBACK[0] not in found else LOOPBACK[0]


def is_free(port: int, host: str = LOOPBACK[0]) -> bool:
    """Whether a listener could be opened on ``host:port`` now, and nobody else answers to ``localhost:port`` either.

    Raises :class:`OSError` when no port of that address is ours: it is another machine's, or the port is root's.
    """
    if not _opens(port, host):
        return False
    other = _beside(host)
    with suppress(OSError):  # this machine may have no such address
        return not other or _opens(port, other)
    return True


def _opens(port: int, host: str) -> bool:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _beside(host: str) -> str:
    """Other addresses that ``localhost`` may resolve to beside ``host``; none when it does not resolve to ``host``."""
    if host == LOOPBACK[1]:
        return LOOPBACK[0]
    return LOOPBACK[1] if host in {LOOPBACK[0], "localhost", "0.0.0.0"} else ""  # noqa: S104


class Ports:
    """Hands out ports, never the same one twice."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self.notes: list[str] = []
        """Notes that the start prints: usual ports that were taken."""
        self.held: list[socket.socket] = []
        """Bound and never listened on: who tries ``::1`` first is refused there and goes on to 127.0.0.1, and no other
        program can answer in our place. To be kept as long as the listeners live."""

    def public(self, *, wanted: int | None, usual: int, host: str, what: str, option: str) -> int:
        """The port for a public listener.

        ``wanted`` None: ``usual``, or the next free one after it. ``wanted`` 0: any free one. Otherwise exactly that
        one; raises :class:`StartError`, naming who holds it, when it is taken.
        """
        try:
            port = self._public(wanted, usual, host, what, option)
        except OSError as error:
            raise StartError(
                f"{what} cannot listen on port {wanted or usual} of {host}: {error.strerror or error}; choose another "
                f"port with {option}" + ("" if error.errno == errno.EACCES else ", or another address with --listen")
            ) from None
        self._hold(port, _beside(host))
        return port

    def _public(self, wanted: int | None, usual: int, host: str, what: str, option: str) -> int:
        if wanted == 0:
            return self._take(self._first(random.sample(PRIVATE_RANGE, k=SEARCH), host, what))
        if wanted is not None:
            if wanted in self._taken or not is_free(wanted, host):
                raise StartError(
                    f"port {wanted} for {what} is taken by {holder(wanted)}; stop that, or choose another port "
                    f"with {option} (0 takes any free one)"
                )
            return self._take(wanted)
        port = self._take(self._first(range(usual, usual + SEARCH), host, what))
        if port != usual:
            self.notes.append(f"port {usual} is taken by {holder(usual)}; {what} uses {port} (choose with {option})")
        return port

    def private(self, *, last: object = None) -> int:
        """Some free port for an embedded part: the ``last`` one when it still is, so that addresses stay the same."""
        candidates = random.sample(PRIVATE_RANGE, k=SEARCH)
        if isinstance(last, int) and 1024 <= last <= 65535:
            candidates.insert(0, last)
        return self._take(self._first(candidates, LOOPBACK[0], "an embedded part"))

    def _first(self, candidates: Iterable[int], host: str, what: str) -> int:
        for port in candidates:
            if port not in self._taken and is_free(port, host):
                return port
        raise StartError(f"no free port was found for {what} on {host}")

    def _take(self, port: int) -> int:
        self._taken.add(port)
        return port

    def _hold(self, port: int, host: str) -> None:
        with suppress(OSError):  # this machine may have no such address
            if host:
                holding = socket.socket(_family(host), socket.SOCK_STREAM)
                self.held.append(holding)
                holding.bind((host, port))


def holder(port: int) -> str:
    """The program that listens on ``port``: ``nginx (process 812)``, or ``another program`` when unknown."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"

"""TCP ports: find free ones, and name who holds one that is taken."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import suppress

import psutil

from cloudsignal.supervisor.errors import StartError

PRIVATE_RANGE = range(20_000, 32_000)
"""Where the embedded parts listen: below the ephemeral range, so that no outgoing connection takes the port while a
part restarts."""

SEARCH = 200
"""How many ports after the usual one are tried before giving up."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a listener could be opened on ``host:port`` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class Ports:
    """Hands out ports, never the same one twice."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self.notes: list[str] = []
        """What is worth telling: usual ports that were taken."""

    def public(self, *, wanted: int | None, usual: int, host: str, what: str, option: str) -> int:
        """The port for a public listener.

        ``wanted`` None: ``usual``, or the next free one after it. ``wanted`` 0: any free one. Otherwise exactly that
        one; raises :class:`StartError`, naming who holds it, when it is taken.
        """
        if wanted == 0:
            return self.private(host)
        if wanted is not None:
            if wanted in self._taken or not is_free(wanted, host):
                raise StartError(
                    f"port {wanted} for {what} is taken by {holder(wanted)}; stop that, or choose another port "
                    f"with {option} (0 takes any free one)"
                )
            return self._take(wanted)
        port = self._take(self._first(iter(range(usual, usual + SEARCH)), host, what))
        if port != usual:
            self.notes.append(f"port {usual} is taken by {holder(usual)}; {what} uses {port} (choose with {option})")
        return port

    def private(self, host: str = "127.0.0.1", *, last: object = None) -> int:
        """Some free port for an embedded part: the ``last`` one when it still is, so that addresses stay the same."""
        candidates = random.sample(PRIVATE_RANGE, k=SEARCH)
        if isinstance(last, int) and 1024 <= last <= 65535:
            candidates.insert(0, last)
        return self._take(self._first(iter(candidates), host, "an embedded part"))

    def _first(self, candidates: Iterator[int], host: str, what: str) -> int:
        for port in candidates:
            if port not in self._taken and is_free(port, host):
                return port
        raise StartError(f"no free port was found for {what} on {host}")

    def _take(self, port: int) -> int:
        self._taken.add(port)
        return port


def holder(port: int) -> str:
    """Who listens on ``port``: ``nginx (process 812)``, or ``another program`` where the system does not tell us."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"

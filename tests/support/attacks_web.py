"""Attacks on the web process: bounded in number and time, on loopback only."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"


@dataclass
class Held:
    """Connections whose requests are not complete."""

    sockets: list[socket.socket] = field(default_factory=list)

    def answers(self, *, seconds: float) -> list[bytes]:
        """What the server says to each until it closes the connection; empty where it says nothing in time."""
        found: dict[socket.socket, bytes] = dict.fromkeys(self.sockets, b"")
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for one in self.sockets:
                selector.register(one, selectors.EVENT_READ)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    try:
                        data = one.recv(65536)
                    except OSError:
                        data = b""
                    found[one] += data
                    if not data:
                        selector.unregister(one)
        return list(found.values())


@contextlib.contextmanager
def without_a_body(
    url: str, count: int = 16, *, path: str = "/v2/tokens/create", length: int = 1000, begin: bytes = b""
) -> Iterator[Held]:
    """``count`` requests that announce a body of ``length`` bytes and send ``begin`` of it, until the block ends.

    In front of a server that reads bodies in its threads, as many requests as it has threads switch it off.
    """
    host, port = where(url)
    held = Held()
    try:
        for _ in range(count):
            one = socket.create_connection((host, port), timeout=10)
            held.sockets.append(one)
            one.sendall(HEAD.format(path=path, host=f"{host}:{port}", length=length).encode() + begin)
        yield held
    finally:
        for one in held.sockets:
            one.close()


@contextlib.contextmanager
def without_reading(url: str, count: int, *, path: str) -> Iterator[Held]:
    """``count`` requests whose answers nobody reads, with the smallest window that the system allows."""
    host, port = where(url)
    held = Held()
    try:
        for _ in range(count):
            one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            held.sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            one.settimeout(10)
            one.connect((host, port))
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        yield held
    finally:
        for one in held.sockets:
            one.close()


def where(url: str) -> tuple[str, int]:
    """Host and port of a URL on this machine; refuses any other."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)
    if host not in {"127.0.0.1", "::1"}:
        raise ValueError(f"{url} is not on this machine")
    return host, parts.port or 80

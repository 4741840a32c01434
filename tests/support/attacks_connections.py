"""Attacks on an edge's memory, journal and connections, as tests and benchmarks run them. Loopback only.

Each takes a :class:`Target`, is bounded in count and time, and says what it achieved. Attacker and neighbour tell
themselves apart by their source address: all of 127.0.0.0/8 is loopback.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.support.wire import ClosedError, Wire, dial_tls, dial_websocket


@dataclass(frozen=True)
class Target:
    """An edge, and whose credential the attacker has."""

    port: int
    wss_port: int
    context: ssl.SSLContext
    username: str = ""
    password: str = ""
    source: str = "127.0.0.2"
    """The attacker's address."""

    def dial(self) -> Wire:
        """A TLS connection from the attacker's address."""
        return dial_tls(self.port, self.context, source=self.source)

    def client(self, client_id: str, *, version: int = 5) -> Wire:
        """A signed-in client."""
        wire = self.dial()
        answer = wire.connect(version=version, client_id=client_id, username=self.username, password=self.password)
        assert answer.code == 0, hex(answer.code)
        return wire

    def of(self, source: str) -> Target:
        """The same edge from another address."""
        return replace(self, source=source)


class Progress:
    """What an attack under way has done."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.count = 0
        self.codes: Counter[int] = Counter()


@contextlib.contextmanager
def _threads(number: int, work: Callable[[Progress, int], None]) -> Iterator[Progress]:
    """Run ``work`` in so many threads for as long as the block lasts."""
    progress = Progress()

    def run(index: int) -> None:
        with contextlib.suppress(OSError, ClosedError):
            work(progress, index)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield progress
    finally:
        progress.stop.set()
        for thread in threads:
            thread.join(10)


@contextlib.contextmanager
def denied_topics(
    target: Target, *, connections: int = 4, size: int = 60_000, most: int = 100_000
) -> Iterator[Progress]:
    """Publish to fresh topics of ``size`` bytes that nothing allows: each is a denial of its own in the audit."""

    def work(progress: Progress, index: int) -> None:
        wire = target.client("", version=4)
        number = 0
        while not progress.stop.is_set() and number < most // connections:
            topic = f"no/{index}/{number}/".ljust(size, "x")
            wire.send(wire.message(topic))
            number += 1
            with progress.lock:
                progress.count += 1
        wire.ping()

    with _threads(connections, work) as progress:
        yield progress


def remembered_topics(target: Target, client_id: str, *, topics: int = 512, size: int = 65_000) -> Wire:
    """A session that has published and received once on each of so many long topics, and is idle now."""
    wire = target.client(client_id)
    wire.subscribe("#")
    for first in range(0, topics, 20):
        names = [f"{client_id}/{number}/".ljust(size, "x") for number in range(first, min(first + 20, topics))]
        wire.send(*(wire.message(topic) for topic in names))
        for _ in names:
            wire.delivery()
    return wire


def huge_frame(target: Target, client_id: str, *, size: int = 16 * 1024 * 1024) -> Wire:
    """A live session over WebSocket sends all of a frame of ``size`` bytes but the last."""
    wire = dial_websocket(target.wss_port, target.context)
    answer = wire.connect(version=5, client_id=client_id, username=target.username, password=target.password)
    assert answer.code == 0
    with contextlib.suppress(OSError):
        wire.sock.sendall(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + bytes(size - 1))
    return wire


def unfinished_packet(target: Target, client_id: str, *, size: int = 250_000) -> Wire:
    """A live session that sends all of a packet but its last byte."""
    wire = target.client(client_id)
    wire.send(wire.message("a", bytes(size))[:-1])
    return wire


@contextlib.contextmanager
def silent_connections(
    target: Target, *, per_second: int = 1_500, first: bytes = b"", held: int = 6_000, port: int = 0
) -> Iterator[Progress]:
    """Open TCP connections and say nothing, or ``first`` (the head of a ClientHello, a whole handshake is too costly).

    At most ``held`` stay open; then the oldest goes for each that comes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def work(progress: Progress, _index: int) -> None:
        sockets: deque[socket.socket] = deque()
        began = time.monotonic()
        while not progress.stop.is_set():
            due = int((time.monotonic() - began) * per_second)
            for _ in range(min(due - progress.count, 200)):
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind((target.source, 0))
                sock.connect_ex(("127.0.0.1", port or target.port))
                sockets.append(sock)
                progress.count += 1
                if first and len(sockets) > 50:
                    with contextlib.suppress(OSError):
                        sockets[-50].send(first)
                if len(sockets) > held:
                    sockets.popleft().close()
            time.sleep(0.005)
        for sock in sockets:
            sock.close()

    with _threads(1, work) as progress:
        yield progress


@contextlib.contextmanager
def bad_sign_ins(
    target: Target, usernames: Sequence[str], *, most: int = 1_100, parallel: int = 32
) -> Iterator[Progress]:
    """Sign in with wrong passwords, each of ``usernames`` in turn; ``codes`` counts the CONNACKs, and -1 for none."""
    numbers = itertools.count()

    def work(progress: Progress, _index: int) -> None:
        while not progress.stop.is_set() and (number := next(numbers)) < most:
            code = -1
            with contextlib.suppress(OSError, ClosedError), contextlib.closing(target.dial()) as wire:
                code = wire.connect(version=5, username=usernames[number % len(usernames)], password="wrong").code
            with progress.lock:
                progress.codes[code] += 1
                progress.count += 1

    with _threads(parallel, work) as progress:
        yield progress


@contextlib.contextmanager
def no_mqtt(target: Target, *, most: int = 1_100, parallel: int = 8) -> Iterator[Progress]:
    """Shake hands and send bytes that are no CONNECT."""
    numbers = itertools.count()

    def work(progress: Progress, _index: int) -> None:
        while not progress.stop.is_set() and next(numbers) < most:
            with contextlib.suppress(OSError, ClosedError), contextlib.closing(target.dial()) as wire:
                wire.send(b"GET / HTTP/1.1\r\n\r\n")
                wire.closed()
            with progress.lock:
                progress.count += 1

    with _threads(parallel, work) as progress:
        yield progress

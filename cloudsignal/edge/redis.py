"""Redis as the edge uses it: one connection, everything pipelined, commands of one turn of the loop sent together.

A sign-in waits for two replies and announces four things; with a pool and a task per command that alone cost as much
as the TLS handshake. ``hiredis`` packs and parses, the rest is a queue of futures.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

TIMEOUT = 2.0
"""Seconds a reply may take before Redis counts as unavailable."""

BACKOFF = 0.25
"""Seconds after a failed connect during which commands fail at once."""

LAZY = 0.02
"""Seconds a command whose reply nobody needs may wait for company."""

WAITING_MAX = 100_000
"""Commands without a reply; beyond it Redis counts as unavailable."""

Command = Sequence[str | bytes | int]


class UnavailableError(Exception):
    """Redis did not answer, not in time, or with an error."""


class NotSentError(UnavailableError):
    """Redis was unavailable already: the command was never sent, and has not been carried out."""


class NoRoomError(UnavailableError):
    """Redis has reached its ``maxmemory``: it reads, and refuses what would take more."""


class Store:
    """A client of Redis or Valkey."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._options: dict[str, Any] = dict(parse_url(url))
        self._connection: _Connection | None = None
        self._queue: list[tuple[bytes, asyncio.Future[Any] | None]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._failed_at = -BACKOFF

    @property
    def waiting(self) -> int:
        """Commands without a reply."""
        return len(self._queue) + (len(self._connection.waiting) if self._connection is not None else 0)

    def consumer(self, *, block: float) -> Redis:
        """A client of its own for reads that block up to ``block`` seconds. It fails with :class:`RedisError` only."""
        return _Follower.from_url(
            self._url, socket_timeout=block + TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )

    async def call(self, *commands: Command) -> list[Any]:
        """Run commands in order; returns their replies. Raises :class:`UnavailableError` when any of them fails."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        for command, future in zip(commands, futures, strict=True):
            self._push(command, future)
        if len(futures) > 1:
            await asyncio.wait(futures)
        failed = [error for future in futures[1:] if future.done() and (error := future.exception())]
        first = await futures[0]
        if failed:
            raise failed[0]
        return [first, *(future.result() for future in futures[1:])]

    def ask(self, command: Command) -> asyncio.Future[Any]:
        """Run a command; its reply may be awaited later, or never. It fails with :class:`UnavailableError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._push(command, future)
        return future

    def send(self, *commands: Command) -> None:
        """Run commands whose replies nobody needs; failures are ignored."""
        for command in commands:
            self._push(command, None)

    async def close(self) -> None:
        """Give what is under way a moment and close the connection."""
        if self._connection is not None:
            end = time.monotonic() + TIMEOUT
            while self._connection is not None and self._connection.waiting and time.monotonic() < end:
                await asyncio.sleep(0.01)
        if self._connection is not None:
            self._connection.close()

    def _push(self, command: Command, future: asyncio.Future[Any] | None) -> None:
        packed = _packed(command)
        connection = self._connection
        if connection is not None:
            connection.push(packed, future)
            return
        if time.monotonic() - self._failed_at < BACKOFF or len(self._queue) >= WAITING_MAX:
            _fail(future, "redis is unavailable", NotSentError)
            return
        self._queue.append((packed, future))
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await self._open()
        except (OSError, TimeoutError, UnavailableError) as error:
            self._failed_at = time.monotonic()
            queue, self._queue = self._queue, []
            for _, future in queue:
                _fail(future, f"redis is unavailable: {type(error).__name__}", NotSentError)
        else:
            self._connection = connection
            queue, self._queue = self._queue, []
            for packed, future in queue:
                connection.push(packed, future)
        finally:
            self._connecting = None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        options = self._options
        kind = options.get("connection_class")
        if kind is UnixDomainSocketConnection:
            _, protocol = await loop.create_unix_connection(lambda: _Connection(self._lost), options["path"])
        else:
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            context = _tls(options) if kind is SSLConnection else None
            _, protocol = await loop.create_connection(lambda: _Connection(self._lost), host, port, ssl=context)
        hello: list[Command] = []
        if options.get("password"):
            name = [options["username"]] if options.get("username") else []
            hello.append(("AUTH", *name, options["password"]))
        if options.get("db"):
            hello.append(("SELECT", options["db"]))
        hello.append(("PING",))  # a port may accept and nobody answer: what waits here has then never been sent
        try:
            for command in hello:
                future: asyncio.Future[Any] = loop.create_future()
                protocol.push(_packed(command), future)
                await future
        except BaseException:
            protocol.close()
            raise
        return protocol

    def _lost(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None


class _Follower(Redis):
    """Says that the connection is lost also where uvloop says that its handle is closed.

    A connection that is reset between two reads is found closed by the next one, and uvloop, unlike asyncio, raises a
    bare ``RuntimeError`` for a write to it, which redis-py passes on.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise RedisConnectionError(str(error)) from error


class _Connection(asyncio.Protocol):
    """The connection: replies come in the order of the commands."""

    def __init__(self, lost: Any) -> None:
        self._lost = lost
        self._reader = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._progress = 0.0
        self._urgent = False
        self.waiting: deque[asyncio.Future[Any] | None] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def push(self, packed: bytes, future: asyncio.Future[Any] | None) -> None:
        """Queue a command; one that is waited for leaves at the end of this turn of the loop, with all before it."""
        if self._transport is None or self._transport.is_closing() or len(self.waiting) >= WAITING_MAX:
            _fail(future, "redis is unavailable", NotSentError)
            return
        if future is not None and not self._urgent:
            self._urgent = True
            asyncio.get_running_loop().call_soon(self._flush)
        elif not self._outgoing:
            asyncio.get_running_loop().call_later(LAZY, self._flush)
        if not self.waiting:
            self._progress = time.monotonic()
            if self._watch is None:
                self._watch = asyncio.get_running_loop().call_later(TIMEOUT, self._check)
        self._outgoing.append(packed)
        self.waiting.append(future)

    def data_received(self, data: bytes) -> None:
        self._progress = time.monotonic()
        self._reader.feed(data)
        while self.waiting:
            reply = self._reader.gets()
            if reply is False:
                return
            future = self.waiting.popleft()
            if future is None or future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                _fail(future, str(reply), NoRoomError if str(reply).startswith("OOM ") else UnavailableError)
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        if self._watch is not None:
            self._watch.cancel()
        while self.waiting:
            _fail(self.waiting.popleft(), "the connection to redis was lost")

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        self._urgent = False
        if self._outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _check(self) -> None:
        self._watch = None
        if not self.waiting:
            return
        left = self._progress + TIMEOUT - time.monotonic()
        if left <= 0:
            self.close()
        else:
            self._watch = asyncio.get_running_loop().call_later(left + 0.01, self._check)


async def close_client(redis: Redis) -> None:
    """Close a client. A connection whose peer has died may never say that it is closed: that is not waited for."""
    with suppress(RedisError, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(1.0):
            await redis.aclose()


def _packed(command: Command) -> bytes:
    return bytes(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """TLS as the options of a ``rediss://`` URL ask for it."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _seen(future: asyncio.Future[Any]) -> None:
    """Read the exception of an answer that nobody waits for, or asyncio would report it as forgotten."""
    if not future.cancelled():
        future.exception()


def _fail(future: asyncio.Future[Any] | None, why: str, kind: type[UnavailableError] = UnavailableError) -> None:
    if future is not None and not future.done():
        future.set_exception(kind(why))

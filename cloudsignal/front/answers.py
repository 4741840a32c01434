"""Send an answer from a thread to the client: the event loop waits for a slow reader, the thread does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from threading import Condition
from typing import Any

from cloudsignal.front.asgi import Send, Wsgi

logger = logging.getLogger(__name__)

HELD_MAX = 512 * 1024
"""Bytes that a thread may be ahead of the reader. A smaller answer frees its thread at once."""
PIECE = 64 * 1024
"""Bytes handed to the server at a time; it takes the next when the client has taken these."""
PATIENCE_SECONDS = 20.0
RATE_MIN = 32 * 1024
"""A reader may be this many seconds behind one that takes so many bytes a second; being ahead earns nothing."""


class Abandoned(Exception):  # noqa: N818 - nobody's mistake here
    """The client has disconnected or is too slow; the thread stops producing the answer."""


class Answer:
    """One HTTP answer in transit. :meth:`run` belongs to a thread, :meth:`deliver` to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = Condition()
        self._head: dict[str, Any] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._told = False
        self._finished = False
        self._failed = False
        self._abandoned = False

    # --- in the thread -----------------------------------------------------------------------------------------------

    def run(self, application: Wsgi, environ: dict[str, Any]) -> None:
        """Call the WSGI application and pass its answer to the event loop. Never raises."""
        try:
            pieces = application(environ, self._start)
            try:
                for piece in pieces:
                    if piece:
                        self._write(piece)
            finally:
                close: Callable[[], None] = getattr(pieces, "close", lambda: None)
                close()
        except Abandoned:
            pass
        except Exception:
            logger.exception("the application failed outside its own handlers")
            self._failed = True
        finally:
            with self._lock:
                self._finished = True
                self._tell()

    def _start(self, status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> Callable[[bytes], None]:
        self._head = {
            "type": "http.response.start",
            "status": int(status.split(" ", 1)[0]),
            "headers": [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers],
        }
        return self._write

    def _write(self, piece: bytes) -> None:
        with self._lock:
            self._pieces.append(piece)
            self._size += len(piece)
            self._tell()
            while self._size > HELD_MAX and not self._abandoned:
                self._lock.wait()
            if self._abandoned:
                raise Abandoned

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._news.set)

    # --- in the event loop -------------------------------------------------------------------------------------------

    async def deliver(self, send: Send) -> bool:
        """Send the answer as the thread produces it. False when the thread failed before it produced anything."""
        begun, sent, behind = False, 0, 0.0
        try:
            while True:
                await self._news.wait()
                with self._lock:
                    self._news.clear()
                    data, finished = b"".join(self._pieces), self._finished
                    self._pieces.clear()
                    self._told = False
                if self._abandoned:
                    return True
                if not begun:
                    if self._head is None or self._failed:
                        return False
                    await send(self._head)
                    begun = True
                if finished and len(data) <= PIECE and not sent:
                    await send({"type": "http.response.body", "body": data})
                    return True
                for start in range(0, len(data), PIECE):
                    piece = data[start : start + PIECE]
                    before = self._loop.time()
                    async with asyncio.timeout(PATIENCE_SECONDS - behind):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    behind = max(0.0, behind + self._loop.time() - before - len(piece) / RATE_MIN)
                    sent += len(piece)
                    with self._lock:
                        self._size -= len(piece)
                        self._lock.notify()
                if finished:
                    if not self._failed:  # otherwise the connection is cut, so that nobody takes it for the whole
                        await send({"type": "http.response.body", "body": b""})
                    return True
        except TimeoutError:
            return True
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give up the rest of the answer, so that the thread ends. Called by the event loop."""
        self._news.set()
        with self._lock:
            self._abandoned = True
            self._lock.notify()

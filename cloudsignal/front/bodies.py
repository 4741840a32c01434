"""Request bodies: read by the event loop, whole, before a thread is taken; bounded in time, size and number."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

from cloudsignal.front.asgi import Receive
from cloudsignal.front.refusal import Gone, Refusal, busy

SILENT_SECONDS = 10.0
"""Between two pieces of a body."""
WHOLE_SECONDS = 60.0
"""For all of it: 4 MiB at half a megabit a second."""
BODY_MAX = 4 * 1024 * 1024 + 64 * 1024
"""Bytes of one body: what the API takes, and what a form adds around a file."""
HELD_MAX = 64 * 1024 * 1024
"""Bytes of all bodies that are being read or wait for a thread."""


@dataclass
class Store:
    """How many bytes of bodies are held."""

    limit: int = HELD_MAX
    held: int = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes; raises :class:`Refusal` when there is no room for them."""
        if self.held + size > self.limit:
            raise busy("Too many requests with large bodies are being received.")
        self.held += size

    def give(self, size: int) -> None:
        """Forget ``size`` bytes."""
        self.held -= size


class Body:
    """The body of one request. ``close`` gives its room back, however far it came."""

    def __init__(self, store: Store, *, declared: int | None) -> None:
        if declared is not None and declared > BODY_MAX:
            raise _too_large()
        self._store = store
        self._parts: list[bytes] = []
        self._size = 0

    async def read(self, receive: Receive) -> bytes:
        """All of it. Raises :class:`Refusal` (408, 413, 503), and :class:`Gone` when the client leaves meanwhile."""
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                while await self._piece(receive):
                    pass
        except TimeoutError:
            message = (
                f"The request body did not arrive: send it within {WHOLE_SECONDS:.0f} seconds, "
                f"with no pause over {SILENT_SECONDS:.0f} seconds."
            )
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", message) from None
        return b"".join(self._parts)

    async def _piece(self, receive: Receive) -> bool:
        """Read one message; whether there is more."""
        async with asyncio.timeout(SILENT_SECONDS):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        if piece:
            if self._size + len(piece) > BODY_MAX:
                raise _too_large()
            self._store.take(len(piece))
            self._size += len(piece)
            self._parts.append(piece)
        return bool(message.get("more_body", False))

    def close(self) -> None:
        """Give the room back."""
        self._store.give(self._size)
        self._size = 0
        self._parts.clear()


def _too_large() -> Refusal:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Refusal(status, "too_large", f"The request body may have at most {BODY_MAX} bytes.")

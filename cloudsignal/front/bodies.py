"""Read complete request bodies in the event loop, before a thread is taken; bounded in time, size and number."""

from __future__ import annotations

import asyncio
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
"""Bytes of all bodies that are being read or belong to a request that is being served."""
RECEIVING_MAX = 1024
"""Bodies that are being read at a time."""
RECEIVING_OF_ADDRESS = 256
"""Of these, from one address."""


class Receiving:
    """The bodies that are being read. When there are too many, the one that has taken longest is refused."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Body, None]] = {}
        self._count = 0
        self._held = 0

    def add(self, body: Body) -> None:
        """Register a body that begins to be read."""
        if len(self._of.get(body.address, ())) >= RECEIVING_OF_ADDRESS:
            self._make_room(body.address)
        elif self._count >= RECEIVING_MAX:
            self._make_room(max(self._of, key=lambda address: len(self._of[address])))
        self._of.setdefault(body.address, {})[body] = None
        self._count += 1

    def remove(self, body: Body) -> None:
        """Remove a body that is complete or refused."""
        bodies = self._of.get(body.address, {})
        if body in bodies:
            del bodies[body]
            self._count -= 1
            if not bodies:
                del self._of[body.address]

    def take(self, size: int) -> None:
        """Count ``size`` bytes; raises :class:`Refusal` when there is no room for them."""
        if self._held + size > HELD_MAX:
            raise busy("Too many requests with large bodies are being received.")
        self._held += size

    def give(self, size: int) -> None:
        """Release ``size`` bytes."""
        self._held -= size

    def _make_room(self, address: str) -> None:
        oldest = next(iter(self._of[address]))
        self.remove(oldest)
        oldest.stop()


class Body:
    """The body of one request. ``close`` releases its memory, even when it is incomplete."""

    def __init__(self, receiving: Receiving, *, address: str, declared: int | None) -> None:
        if declared is not None and declared > BODY_MAX:
            raise _too_large()
        self.address = address
        self._receiving = receiving
        self._parts: list[bytes] = []
        self._size = 0
        self._limit: asyncio.Timeout | None = None
        self._stopped = False

    async def read(self, receive: Receive) -> bytes:
        """Read the complete body.

        Raises :class:`Refusal` (408, 413, 503), and :class:`Gone` when the client disconnects meanwhile.
        """
        self._receiving.add(self)
        try:
            async with asyncio.timeout(WHOLE_SECONDS) as self._limit:
                while await self._piece(receive):
                    pass
        except TimeoutError:
            if self._stopped:
                raise busy(
                    "Too many requests from this address are sending their bodies; send fewer at a time."
                ) from None
            message = (
                f"The request body did not arrive: send it within {WHOLE_SECONDS:.0f} seconds, "
                f"with no pause over {SILENT_SECONDS:.0f} seconds."
            )
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", message) from None
        finally:
            self._receiving.remove(self)
        return b"".join(self._parts)

    def stop(self) -> None:
        """Make :meth:`read` end now with a refusal."""
        self._stopped = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Release the body's memory."""
        self._receiving.give(self._size)
        self._size = 0
        self._parts.clear()

    async def _piece(self, receive: Receive) -> bool:
        """Read one ASGI message; true when there is more."""
        async with asyncio.timeout(SILENT_SECONDS):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        if piece:
            if self._size + len(piece) > BODY_MAX:
                raise _too_large()
            self._receiving.take(len(piece))
            self._size += len(piece)
            self._parts.append(piece)
        return bool(message.get("more_body", False))


def _too_large() -> Refusal:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Refusal(status, "too_large", f"The request body may have at most {BODY_MAX} bytes.")

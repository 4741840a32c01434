"""The ASGI application that the HTTP server runs: bodies, turns, threads, answers, health."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from cloudsignal.front.answers import Answer
from cloudsignal.front.asgi import Message, Receive, Scope, Send, Wsgi
from cloudsignal.front.bodies import Body, Receiving
from cloudsignal.front.environ import environ, forwarded_for, kept
from cloudsignal.front.refusal import Gone, Page, Refusal
from cloudsignal.front.turns import STUCK_SECONDS, Place, Turns
from cloudsignal.proxies import visitor

THREADS = 20
SHARES = {"tokens": 6, "entrance": 5, "api": 8, "pages": 14}
"""Threads that each kind of request may take at a time: none can take all, nor can the first three together."""
KINDS = (("/v2/tokens/", "tokens"), ("/v2/providers", "tokens"), ("/v2/", "api"), ("/accounts/", "entrance"))
HEALTH = ("/healthz", "/readyz")
HEALTH_SECONDS = 1.0
"""How long an answer about health holds: a flood of questions costs one look a second."""
LOOK_SECONDS = 15.0
"""How long a look may take."""

Refuse = Callable[[Scope, Refusal], Page]


class Front:
    """The ASGI application of one process. ``trusted``: networks of reverse proxies, separated by commas.

    ``refuse`` draws what the front itself refuses.
    """

    def __init__(self, application: Wsgi, *, refuse: Refuse, trusted: str) -> None:
        self._application = application
        self._refuse = refuse
        self._trusted = trusted
        self._turns = Turns(THREADS, SHARES)
        self._receiving = Receiving()
        self._threads = ThreadPoolExecutor(THREADS, "web")
        self._health_threads = ThreadPoolExecutor(len(HEALTH), "health")
        self._health: dict[str, tuple[float, asyncio.Task[Page]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["path"] in HEALTH and scope["method"] in {"GET", "HEAD"}:
            await _send(send, await self._health_of(scope["path"]))
            return
        headers = kept(scope["headers"])
        peer = str((scope.get("client") or ("", 0))[0])
        address = visitor(peer, forwarded_for(headers), self._trusted)
        try:
            await self._serve(scope, headers, address, receive, send)
        except Refusal as refusal:
            await self._send_refusal(scope, send, refusal)
        except Gone:
            pass

    async def _serve(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], address: str, receive: Receive, send: Send
    ) -> None:
        place = Place(kind_of(scope["path"]), network(address), caller(headers))
        body = Body(self._receiving, address=place.address, declared=_length(headers))
        try:
            values = environ(scope, headers, address, await body.read(receive))
            with self._turns.pending(place.address):
                await self._answer(values, place, receive, send)
        finally:
            body.close()

    async def _answer(self, values: dict[str, Any], place: Place, receive: Receive, send: Send) -> None:
        """Wait for a thread, run the request in it, and send the answer."""
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await self._turns.enter(place, leaving)
            answer = Answer()
            loop = asyncio.get_running_loop()
            thread = loop.run_in_executor(self._threads, answer.run, self._application, values)
            thread.add_done_callback(lambda _: self._turns.leave(place))
            leaving.add_done_callback(lambda _: answer.abandon())
            sent = await answer.deliver(send)
        finally:
            leaving.cancel()
        if not sent:
            detail = "Something went wrong on our side; it has been logged."
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)

    async def _health_of(self, path: str) -> Page:
        """Answer ``/healthz`` and ``/readyz`` with threads of their own; concurrent requests share one answer."""
        if path == "/healthz" and self._turns.stuck:
            return _json(503, {"status": "stuck", "detail": f"no request has ended for {STUCK_SECONDS:.0f} s"})
        loop = asyncio.get_running_loop()
        until, task = self._health.get(path, (0.0, None))
        if task is None or (task.done() and loop.time() > until):
            task = loop.create_task(self._look(path))
            self._health[path] = (loop.time() + HEALTH_SECONDS, task)
        return await asyncio.shield(task)

    async def _look(self, path: str) -> Page:
        """Ask Django with an anonymous request, so that no header of a client changes the shared answer."""
        scope: Scope = {"method": "GET", "path": path, "headers": ()}
        answer, page = Answer(), _Collected()
        values = environ(scope, [(b"host", b"localhost")], "127.0.0.1", b"")
        asyncio.get_running_loop().run_in_executor(self._health_threads, answer.run, self._application, values)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await answer.deliver(page)
        except TimeoutError:
            return _json(503, {"status": "stuck", "detail": f"no answer within {LOOK_SECONDS:.0f} s"})
        return page.page

    async def _send_refusal(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        page = self._refuse(scope, refusal)
        close = ((b"connection", b"close"),)  # the rest of an unread body would be taken for the next request
        await _send(send, Page(page.status, page.headers + close, page.body))


class _Collected:
    """Collects an answer in memory instead of sending it."""

    def __init__(self) -> None:
        self._status = 500
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], tuple(message["headers"])
        else:
            self._body += message["body"]

    @property
    def page(self) -> Page:
        return Page(self._status, self._headers, self._body)


def kind_of(path: str) -> str:
    """The kind of a request, which decides its share of the threads."""
    return next((kind for prefix, kind in KINDS if path.startswith(prefix)), "pages")


def network(address: str) -> str:
    """The unit of fairness for an address: an IPv4 address, or a /64 of IPv6, which is one site or machine."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def caller(headers: list[tuple[bytes, bytes]]) -> str:
    """The hash of a request's API key or session, which separates callers behind one address; never verified.

    Who makes up a new one for each request takes turns from nobody but those at the same address.
    """
    sent = [pair for pair in headers if pair[0] in {b"authorization", b"cookie"}]
    return hashlib.sha256(repr(sent).encode()).hexdigest() if sent else ""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    value = next((value for name, value in headers if name == b"content-length"), b"")
    return int(value) if value.isdigit() and len(value) < 20 else None


def _json(status: int, data: object) -> Page:
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Page(status, headers, json.dumps(data).encode())


async def _send(send: Send, page: Page) -> None:
    length = (b"content-length", str(len(page.body)).encode())
    headers = [pair for pair in page.headers if pair[0] != b"content-length"]
    await send({"type": "http.response.start", "status": page.status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": page.body})

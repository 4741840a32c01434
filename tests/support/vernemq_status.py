"""The HTTP status pages of VerneMQ nodes, told what to say by a test: members, a split, a node that drains, lies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Lie = Callable[[BaseHTTPRequestHandler], None]
"""A page's way of not answering as VerneMQ does."""


class StatusPages:
    """Pages of one node, in the form of VerneMQ 2.1."""

    def __init__(self, name: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.members: dict[str, bool] = {name: True}
        self.draining = False
        self.drops = 0
        self.lies: dict[str, Lie] = {}
        """By path, such as ``/status.json``."""
        self.asked = 0
        self.released = threading.Event()
        """Ends pages that hang."""
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages.asked += 1
                pages.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        lie = self.lies.get(handler.path)
        if lie is not None:
            lie(handler)
        elif handler.path == "/health":
            say(handler, *self._health())
        elif handler.path == "/status.json":
            say(handler, 200, [{self.name: {"num_online": 1, "mystatus": [self.members], "version": "2.1.2"}}])
        elif handler.path == "/metrics":
            say(handler, 200, self._metrics())
        else:
            say(handler, 404, "")

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Accept a request and never answer it."""
        self.released.wait(30)

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a byte at a time."""
        handler.send_response(200)
        handler.end_headers()
        while not self.released.wait(0.05):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    def _health(self) -> tuple[int, Any]:
        if self.draining:
            return 503, {"status": "DOWN", "reasons": ["Listeners are not ready: [mqtts]"]}
        return 200, {"status": "OK"}

    def _metrics(self) -> str:
        down = sum(not runs for runs in self.members.values())
        values = {
            "queue_message_in": 9, "queue_message_drop": self.drops, "cluster_bytes_dropped": 0,
            "netsplit_detected": down, "netsplit_resolved": 0,
        }  # fmt: skip
        lines = [
            f'# HELP {name} Text.\n# TYPE {name} counter\n{name}{{node="{self.name}"}} {value}'
            for name, value in values.items()
        ]
        return "\n".join(lines) + "\n"


def say(handler: BaseHTTPRequestHandler, code: int, body: Any, **headers: str) -> None:
    """Answer with a text, or with anything else as JSON."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def lying(code: int, body: Any, **headers: str) -> Lie:
    """A page with this answer."""
    return lambda handler: say(handler, code, body, **headers)

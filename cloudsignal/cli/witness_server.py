"""A witness: an HTTP server that cosigns checkpoints which continue what it saw (C2SP tlog-witness).

What it saw is one file, replaced as a whole before an answer is sent. A proxy with TLS stands in front.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from audit.log.signing import Cosigner
from audit.log.verifier import Key
from audit.log.witness import REQUEST_BYTES_MAX, WitnessRefusal, judge, parse_request

REQUESTS_MAX = 32
"""Requests at a time; further ones are told to come again (503)."""
SECONDS = 10
"""A connection that says nothing for so long is closed."""


class InUseError(Exception):
    """Another process witnesses with the same folder: both could cosign two histories."""


class WitnessState:
    """The newest checkpoint of each origin: size and root. One process at a time; raises :class:`InUseError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.Lock()
        self._held = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise InUseError(f"another witness runs with {path.parent}; stop it, or name another folder") from None
        self._seen: dict[str, list[Any]] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def latest(self, origin: str) -> tuple[int, bytes] | None:
        """Size and root that were cosigned last."""
        found = self._seen.get(origin)
        return (int(found[0]), bytes.fromhex(found[1])) if found else None

    def close(self) -> None:
        """Let another process have the folder."""
        self._held.close()

    def put(self, origin: str, size: int, root: bytes) -> None:
        """Keep a checkpoint, on the disk when this returns."""
        seen = {**self._seen, origin: [size, root.hex()]}
        draft = self._path.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(seen) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._seen = seen


class WitnessServer(ThreadingHTTPServer):
    """Answers ``POST /add-checkpoint``."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], state: WitnessState, cosigner: Cosigner, logs: Sequence[Key]) -> None:
        self.state, self.cosigner, self.logs = state, cosigner, logs
        super().__init__(address, _Handler)
        self.turns = threading.BoundedSemaphore(REQUESTS_MAX)

    def server_close(self) -> None:
        """Close the socket, and let another process have the folder."""
        super().server_close()
        self.state.close()

    def cosign(self, raw: bytes) -> bytes:
        """The cosignature line for a request; raises :class:`WitnessRefusal`. Looking and keeping are one step."""
        request, note, checkpoint = parse_request(raw)
        keys = [key for key in self.logs if key.name == checkpoint.origin]
        with self.state.lock:
            accepted = judge(request, note, checkpoint, keys, self.state.latest(checkpoint.origin))
            self.state.put(checkpoint.origin, checkpoint.size, checkpoint.root)
        return self.cosigner.line(accepted.text, at=int(time.time()))


class _Handler(BaseHTTPRequestHandler):
    server: WitnessServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "cloudsignal-witness", ""
    timeout = SECONDS

    def do_POST(self) -> None:
        """Cosign, or refuse with the status of the specification."""
        if not self.server.turns.acquire(blocking=False):
            self._answer(503, b"too many requests at a time\n", "text/plain; charset=utf-8")
            return
        try:
            self._answer(200, self.server.cosign(self._body()), "text/plain; charset=utf-8")
        except WitnessRefusal as error:
            self._answer(error.status, error.body.encode(), error.content_type)
        except OSError:
            self._answer(500, b"the checkpoint could not be kept\n", "text/plain; charset=utf-8")
        finally:
            self.server.turns.release()

    def _body(self) -> bytes:
        if self.path != "/add-checkpoint":
            raise WitnessRefusal(404, "only /add-checkpoint is here\n")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > REQUEST_BYTES_MAX:
            self.close_connection = True
            raise WitnessRefusal(400, f"a request has a Content-Length of at most {REQUEST_BYTES_MAX} bytes\n")
        return self.rfile.read(int(length))

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status not in {200, 409}:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Log nothing: requests are not authenticated, so anybody could fill the log."""

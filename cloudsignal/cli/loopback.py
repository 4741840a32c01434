"""The loopback redirect of the CLI's sign-in: a listener on 127.0.0.1 (RFC 8252 s7.3), and PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import queue
import secrets
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

from cloudsignal.cli.outcome import CommandError, Exit

PATH = "/callback"
PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>CloudSignal</title>
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<p style="font-family:system-ui;margin:4rem">%s</p></html>"""
THANKS = PAGE % b"Back to the terminal: it has the answer. This page can be closed."
STRANGER = PAGE % b"This is not the answer to the question that the terminal asked. Nothing was done."


@dataclass(frozen=True, slots=True)
class Proof:
    """The state and the PKCE verifier that tie the browser's answer to this process."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        """The S256 challenge (RFC 7636 s4.2)."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")

    @property
    def phrase(self) -> str:
        """Eight characters that the page in the browser shows too."""
        text = base64.b32encode(hashlib.sha256(self.challenge.encode()).digest()).decode()
        return f"{text[:4]}-{text[4:8]}"


class Listener:
    """Waits for the browser's redirect, or for a pasted code."""

    def __init__(self, proof: Proof) -> None:
        self._answers: queue.Queue[dict[str, str]] = queue.Queue()
        self._proof = proof
        answers, state = self._answers, proof.state

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                brought = {name: values[0] for name, values in parse_qs(parts.query).items()}
                shown = brought.get("state", "").encode("utf-8", "replace")
                ours = parts.path == PATH and secrets.compare_digest(shown, state.encode())
                self.send_response(200 if ours else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(THANKS if ours else STRANGER)
                if ours:
                    answers.put(brought)

            def log_message(self, *_: object) -> None:
                """Log nothing: an access log on the terminal would contain the code."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def redirect_uri(self) -> str:
        """The redirect URI that the browser is sent to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def address(self, url: str, *, machine: str, shows_code: bool) -> str:
        """The page to open in the browser."""
        asked = {
            "response_type": "code",
            "code_challenge": self._proof.challenge,
            "code_challenge_method": "S256",
            "redirect_uri": self.redirect_uri,
            "state": self._proof.state,
            "machine": machine,
        }
        return f"{url}/command-line/?{urlencode(asked | ({'show': 'code'} if shows_code else {}))}"

    def take_pasted(self) -> None:
        """Take a code, or the whole address the browser ended at, from standard input as well."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            if text := line.strip():
                query = parse_qs(urlsplit(text).query) if "://" in text else {}
                self._answers.put({"code": query.get("code", [text])[0]})
                return

    def wait(self, seconds: float) -> str:
        """The code. Raises :class:`CommandError` when the person refused, or did not answer in time."""
        try:
            brought = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise CommandError(f"no answer in the browser within {seconds:.0f} s; run it again", Exit.REFUSED) from None
        if code := brought.get("code"):
            return code
        raise CommandError("declined in the browser; not signed in", Exit.REFUSED)

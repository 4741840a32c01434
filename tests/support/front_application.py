"""What the tests put behind the front: an application that shows its environment, sleeps, and answers at length."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cloudsignal.front import answers, app, bodies, turns
from cloudsignal.front.app import Front
from cloudsignal.front.asgi import Scope
from cloudsignal.front.refusal import Page, Refusal

bodies.SILENT_SECONDS, bodies.WHOLE_SECONDS = 1.0, 3.0
answers.PATIENCE_SECONDS = 1.0
turns.WAIT_SECONDS, turns.STUCK_SECONDS = 2.0, 1.5
app.HEALTH_SECONDS = 0.2

release = threading.Event()
"""Ends every ``hold``."""
seen = {"looks": 0, "ended": 0, "closed": 0}


def django(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application."""
    name = environ["PATH_INFO"].rsplit("/", 1)[-1]
    if name == "broken":
        raise ValueError("outside every handler")
    body = environ["wsgi.input"].read()
    if name in {"healthz", "readyz"}:
        seen["looks"] += 1
    if name == "hold":
        release.wait(30)
    if name == "let-go":
        release.set()
        time.sleep(0.2)
        release.clear()
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Cookie", "a=1"), ("X-Cookie", "b=2")])
    if name == "long":
        return Long()
    if name == "pieces":
        return pieces()
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    shown |= {"body": body.decode("latin1"), "seen": json.dumps(seen), "threads": str(threading.active_count())}
    seen["ended"] += 1
    return [json.dumps(shown).encode()]


def pieces() -> Iterator[bytes]:
    """An answer that comes bit by bit."""
    yield b"first\n"
    release.wait(5)
    yield b"last\n"


class Long:
    """40 MiB."""

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(640):
            yield b"x" * 65_536

    def close(self) -> None:
        """Seen when the front lets go of it."""
        seen["closed"] += 1


def refuse(scope: Scope, refusal: Refusal) -> Page:
    """A refusal as one word."""
    retry = ((b"retry-after", str(refusal.retry_after).encode()),) if refusal.retry_after else ()
    return Page(refusal.status, retry, refusal.code.encode())


application = Front(django, refuse=refuse, trusted=os.environ.get("TRUSTED", ""))

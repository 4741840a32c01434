"""Chromium for the browser tests: the system's own, kept from talking to anybody but this machine."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]
PATIENCE = 30_000
"""Milliseconds in which a page has to become what a test expects; Playwright's own 5 s are none on a busy machine."""
LOCAL = {"127.0.0.1", "localhost", "::1", None}


def chromium() -> Path:
    """The program; `make setup` installs it."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    for app in APPS:
        if Path(app).exists():
            return Path(app)
    raise AssertionError("Chromium is not installed; run `make setup`")


def flags() -> list[str]:
    """Chromium refuses to start its sandbox as root."""
    return [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS


@dataclass
class Watch:
    """What must not happen on a page: script errors, blocked resources, requests to other hosts."""

    problems: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        """Watch ``page``."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # An answer such as 404 to a page that a test asks for on purpose is no defect; to a static file it is.
        answered = "Failed to load resource: the server responded with a status of" in message.text
        if answered and "/static/" not in str(message.location.get("url", "")):
            return
        if message.type == "error" or "Content Security Policy" in message.text:
            self.problems.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOCAL:
            self.problems.append(f"request to another host: {request.url}")

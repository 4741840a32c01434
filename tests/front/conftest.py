"""A running front: the HTTP server as the supervisor starts it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudsignal.supervisor.assembly import http_server
from tests.support.ports import free_port

logging.getLogger("httpx").setLevel(logging.WARNING)

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def running(trusted: str = "") -> Iterator[str]:
    """Start it, and yield its address."""
    port = free_port()
    command = http_server("127.0.0.1", port, "tests.support.front_application:application")
    environment = {**os.environ, "TRUSTED": trusted, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *command[1:]], cwd=ROOT, env=environment)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the server ended by itself"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def front() -> Iterator[str]:
    """The front, with no proxy trusted."""
    with running() as url:
        yield url

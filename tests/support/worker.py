"""A Celery worker as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

ROOT = Path(__file__).parents[2]


@contextmanager
def celery(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery process of its own group, gone afterwards."""
    command = [sys.executable, "-m", "celery", "-A", "cloudsignal", *arguments]
    log = (settings.DATA_DIR / f"{arguments[0]}.log").open("ab")
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)
        log.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of the whole group: a worker and its children at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def soon(question: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)

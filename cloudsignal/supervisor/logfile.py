"""Log files: one per part, rotated while the part goes on writing.

A part writes straight into its file (opened for appending), so a busy or dead supervisor never holds it up. Rotation
copies the file and cuts it to nothing; a line written in between, a fraction of a millisecond, may be lost.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
KEEP = 4
"""Rotated files kept beside the current one: ``worker.log.1`` is the newest."""


def open_log(path: Path) -> int:
    """A descriptor for appending, with a line that marks the start."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} started\n".encode())
    return descriptor


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
    """Rotate when the file is larger than ``max_bytes``; returns whether it was."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(keep, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    shutil.copy2(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def last_words(path: Path, *, lines: int = 1) -> list[str]:
    """The last lines of the newest run that say something, at most 300 characters each."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 16_384))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    run = text.rpartition("--- ")[2].splitlines()[1:]
    return [line.strip()[:300] for line in run if line.strip()][-lines:]

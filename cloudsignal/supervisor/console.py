"""The supervisor's output on the terminal: one line per event."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TextIO


class Console:
    """Writes ``14:03:22  worker     ready (process 812, 1.4 s)``; never holds anything up when nobody reads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def event(self, part: str, text: str) -> None:
        """Print an event of one part."""
        self.text(f"{time.strftime('%H:%M:%S')}  {part:<10} {text}")

    def text(self, text: str = "") -> None:
        """Print plain text, such as the summary after the start."""
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the system goes on
            print(text, file=self._stream, flush=True)

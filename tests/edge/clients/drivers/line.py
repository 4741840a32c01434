"""What every Python driver shares: options on the command line, commands on standard input, events on standard output.

Both are JSON, one object a line. A driver connects at once and lets its library reconnect as it does by default.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

OPTIONS: dict[str, Any] = json.loads(sys.argv[1])
_lock = threading.Lock()


def say(event: str, **facts: object) -> None:
    """Report an event."""
    with _lock:
        print(json.dumps({"event": event, **facts}), flush=True)


def commands(do: Callable[[dict[str, Any]], None]) -> None:
    """Carry out commands until standard input ends."""
    for text in sys.stdin:
        do(json.loads(text))

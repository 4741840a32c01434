"""Ports for the servers of tests: free, and nobody else's until they are bound.

A port that the system hands out (``bind`` to 0) lies where it takes the source ports of outgoing connections from too,
so that any client may have it before the server comes to bind it. These lie below, and a lock on a file keeps tests
that run at the same time apart.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

RANGE = range(10_240, 19_000)
"""Below the source ports of outgoing connections, and apart from those that the supervisor takes for itself."""
HELD = 200
"""Locks a process keeps; by then the first of them have long been bound."""

_held: deque[IO[str]] = deque(maxlen=HELD)


def free_port() -> int:
    """A TCP port on loopback that nothing uses now and no other test will be given soon."""
    folder = Path(tempfile.gettempdir()) / f"cloudsignal-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(RANGE, 500):
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        if len(_held) == HELD:
            _held[0].close()
        _held.append(lock)
        return port
    raise AssertionError(f"no free port was found in {RANGE}")

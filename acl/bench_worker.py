"""A worker process of ``acl.bench``: calls pure functions, one after the other, until its pipe is closed.

Started without the application's environment, so it holds no secret and no connection. It yields to the web
(``nice``), and each call has a limit of CPU time and memory that the kernel keeps.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

NICE = 5
MEMORY = 2**30
"""Bytes of address space."""


def serve(connection: Connection, cpu_seconds: int) -> None:
    """Answer calls ``(function, arguments, keywords)`` by ``(True, result)`` or ``(False, what went wrong)``."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; who asks is told by the end of the connection
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        try:
            function, arguments, keywords = connection.recv()
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime) + cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            answer = (True, function(*arguments, **keywords))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        try:
            connection.send(answer)
        except OSError:
            return


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))

"""One process that acts as the application on a running system: it runs pieces of Python, one after another.

To set Django up takes most of a second of a core, and the tests of a whole system run more than a hundred pieces.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback

from tests.support.process import PROJECT, StackError, clean_environment

SECONDS = 60.0
"""Seconds that a piece may take."""


class Shell:
    """The process that runs pieces; it ends with whoever started it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shell"],
            cwd=PROJECT, env=clean_environment() | environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process can run another piece."""
        return self._process.poll() is None

    def run(self, code: str, *arguments: str) -> str:
        """Run a piece in a namespace of its own with ``sys.argv[1:]`` as given; returns what it printed."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        with self._lock:
            try:
                pipe_in.write(json.dumps([code, arguments]).encode() + b"\n")
                pipe_in.flush()
                answered = select.select([pipe_out], [], [], SECONDS)[0]
                answer = pipe_out.readline() if answered else b""
            except BrokenPipeError:
                answer = b""
        if not answer:
            self.close()
            raise StackError(f"the process did not answer:\n{self._last_words()}")
        printed, failure = json.loads(answer)
        if failure:
            raise StackError(f"the code failed:\n{failure[-3000:]}")
        return str(printed)

    def close(self) -> None:
        """End the process. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-3000:]


def serve() -> None:
    """Answer each line of standard input, ``[code, arguments]``, by ``[what it printed, traceback]``."""
    import django

    django.setup()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        code, arguments = json.loads(line)
        sys.argv = ["-c", *arguments]
        printed, failure = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "<piece>", "exec"), {"__name__": "__main__"})  # noqa: S102
        except (Exception, SystemExit):
            failure = traceback.format_exc()
        _forget_connections()
        answers.write(json.dumps([printed.getvalue(), failure]) + "\n")
        answers.flush()


def _forget_connections() -> None:
    """The next piece must find servers that were killed meanwhile and started again."""
    from django.db import connections

    from cloudsignal.redis import client, fast_client

    for connection in connections.all(initialized_only=True):
        connection.close()
        close_pool = getattr(connection, "close_pool", None)
        if close_pool:
            close_pool()
    for redis in (client(), fast_client()):
        redis.connection_pool.disconnect()


if __name__ == "__main__":
    serve()

"""A pool of worker processes that examine policy documents, so that no document delays a page.

``run`` calls a pure function in a worker process and waits for it. An organization has one call running and two
waiting; further calls are refused at once with 429, or with 503 when all organizations together exceed the threads
set apart for waiting. Organizations without a running call take turns in order of arrival. A call that uses more than
``CPU_SECONDS`` of one core is ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

from cloudsignal.errors import Invalid, Limit

PROCESSES = max(1, min(4, (os.cpu_count() or 1)))
PER_ORG = 3
"""Calls of one organization that run or wait, in one process of the web."""
IN_ALL = 8
"""Calls that run or wait: half of the web's threads."""
CPU_SECONDS = 10
"""CPU time of one call; the worst documents known take half of it."""
WAIT = 30.0
"""Seconds that a call waits for its turn, and again for its answer."""
RETRY = 2
"""Seconds after which one that was refused may ask again."""

WORKER = Path(__file__).with_name("bench_worker.py")
logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Crowded(Limit):
    """All worker processes are busy for all organizations: 503."""

    status: ClassVar[HTTPStatus] = HTTPStatus.SERVICE_UNAVAILABLE


class Bench:
    """The worker processes and the queue of calls. Processes are started when they are first needed."""

    def __init__(self, processes: int = PROCESSES, cpu_seconds: int = CPU_SECONDS) -> None:
        self._processes, self._cpu_seconds = processes, cpu_seconds
        self._turn = threading.Condition()
        self._waiting: list[tuple[object, str]] = []
        self._running: Counter[str] = Counter()
        self._idle: list[_Process] = []

    def run(self, org: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, of a module that needs no settings, in a worker process for ``org``; returns its result.

        Raises :class:`Limit` (429, 503) where it must wait, and :class:`Invalid` where it takes too much.
        """
        with self._place(org) as process:
            answer = process.call(function, args, kwargs)
        if answer is None:
            logger.warning("a document of %s took too long to look at: %s", org, function.__qualname__)
            raise Invalid(
                "policy_too_costly",
                f"Looking at this takes more than {self._cpu_seconds} s of one core, so it was given up. "
                "Make the document smaller, or its rules simpler.",
            )
        worked, value = answer
        if not worked:
            raise RuntimeError(f"{function.__qualname__}: {value}")
        result: T = value
        return result

    def close(self) -> None:
        """End the idle worker processes."""
        with self._turn:
            while self._idle:
                self._idle.pop().end()

    @contextlib.contextmanager
    def _place(self, org: str) -> Iterator[_Process]:
        process = self._taken(org)
        try:
            yield process
        except BaseException:
            process.end()
            raise
        finally:
            with self._turn:
                self._running[org] -= 1
                self._running += Counter()  # drops what is zero
                if process.alive:
                    self._idle.append(process)
                self._turn.notify_all()

    def _taken(self, org: str) -> _Process:
        """Wait for the turn of ``org``, and take a worker process."""
        mine = (object(), org)
        with self._turn:
            self._admit(org)
            self._waiting.append(mine)
            try:
                if not self._turn.wait_for(lambda: self._next() is mine, WAIT):
                    raise _crowded()
            finally:
                self._waiting.remove(mine)
                self._turn.notify_all()
            self._running[org] += 1
            process = self._idle.pop() if self._idle else None
        if process is not None and process.alive:
            return process
        return _Process(self._cpu_seconds)

    def _admit(self, org: str) -> None:
        waiting = Counter(each for _, each in self._waiting)
        if waiting[org] + self._running[org] >= PER_ORG:
            raise Limit(
                "policy_busy",
                f"{PER_ORG} policies of this organization are being looked at already; try again in {RETRY} s.",
                retry_after=RETRY,
            )
        if waiting.total() + self._running.total() >= IN_ALL:
            raise _crowded()

    def _next(self) -> tuple[object, str] | None:
        """The next call to run: the first one waiting whose organization has nothing running."""
        if self._running.total() >= self._processes:
            return None
        return next((each for each in self._waiting if not self._running[each[1]]), None)


class _Process:
    """One worker process; its environment holds only the path of Python's modules."""

    def __init__(self, cpu_seconds: int) -> None:
        mine, theirs = socket.socketpair()
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", "")}
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(theirs.fileno()), str(cpu_seconds)],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        self._connection = Connection(mine.detach())
        self._pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the worker is usable: it has not ended, and it was not started before this process was forked."""
        return not self._connection.closed and self._pid == os.getpid() and self._child.poll() is None

    def call(
        self, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[bool, Any] | None:
        """Call the worker and return its answer; ``None`` when it exceeded its limits and was ended.

        Raises :class:`Crowded` when it had too little of the processor to answer in time.
        """
        try:
            self._connection.send((function, args, kwargs))
            if not self._connection.poll(WAIT):
                raise _crowded()
            answer: tuple[bool, Any] = self._connection.recv()
        except (EOFError, ConnectionError):
            self.end()
            return None
        return answer

    def end(self) -> None:
        """Kill the child."""
        self._connection.close()
        self._child.kill()
        self._child.wait()


def _crowded() -> Crowded:
    return Crowded("policy_busy", f"Many policies are being looked at; try again in {RETRY} s.", retry_after=RETRY)


_bench = Bench()


def run(org: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in the worker pool of this process; see :meth:`Bench.run`."""
    return _bench.run(org, function, *args, **kwargs)

"""Run one part of the system: start, health checks, restart with back-off, stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cloudsignal.supervisor import logfile
from cloudsignal.supervisor.account import Account
from cloudsignal.supervisor.console import Console
from cloudsignal.supervisor.health import silent_for

PROJECT = Path(__file__).resolve().parent.parent.parent

BACKOFF_FIRST = 0.2
BACKOFF_MOST = 10.0
"""Seconds before the first and, at most, before any later try. It never gives up."""

STEADY_SECONDS = 10.0
"""A part that was ready for this long starts again with the shortest pause."""

POLL_SECONDS = 0.1

SILENT_SECONDS = 60.0
LOOK_SECONDS = 5.0
WAITING_LOOK_SECONDS = 1.0
"""Between two questions what a part lacks that is not ready; :data:`LOOK_SECONDS` afterwards."""
LOOKS = 3
"""A silent part must be found silent this many times in a row: after a suspended machine wakes up it gets time."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class State(StrEnum):
    """The state of a part."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    DONE = "done"
    STOPPED = "stopped"


async def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Part:
    """The definition of a part; its run-time state is in :class:`Runner`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[float], Awaitable[bool]]
    """Asked until it says yes. It is given the time the process was started, seconds since the epoch."""
    after: tuple[str, ...] = ()
    """Parts that must be ready (or done) before the first start."""
    stage: int = 0
    """Parts of the highest stage are stopped first, those of one stage together."""
    one_shot: bool = False
    """Ends by itself; exit code 0 makes it done, anything else is tried again."""
    prepare: Callable[[], None] | None = None
    """Run in a thread before each start."""
    provision: Callable[[], Awaitable[None]] = _nothing
    """Run once after the part answers for the first time and before it counts as ready. An :class:`OSError` says that
    the part has gone away; it is run again then."""
    account: Account | None = None
    alive_file: Path | None = None
    """Touched by the process every few seconds; one that stays silent for :data:`SILENT_SECONDS` hangs and is ended."""
    alive: Callable[[], Awaitable[bool]] | None = None
    """Asked every few seconds once it is ready; one that says no for :data:`SILENT_SECONDS` hangs and is ended."""
    lacks: Callable[[float], Awaitable[str | None]] | None = None
    """Asked every few seconds: what the part lacks to do its work, in a sentence; empty for nothing, None while nobody
    can say. It is no fault of the part, which is not ended for it, however long it keeps it from being ready; the
    console and ``run.json`` say it."""
    folder: Path = PROJECT
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    start_seconds: float = 60.0
    """A part that is not ready by then is ended and started again."""


class Runner:
    """Runs one :class:`Part` until it is told to stop."""

    def __init__(self, part: Part, *, log: Path, console: Console, changed: Callable[[], None]) -> None:
        self.part = part
        self.log = log
        self.state = State.WAITING
        self.since = time.time()
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.up = asyncio.Event()
        """Set while the part is ready or done."""
        self.trouble = ""
        """The part's trouble, as last asked."""
        self._console = console
        self._changed = changed
        self._stopping = asyncio.Event()
        self._pause = BACKOFF_FIRST
        self._failures = 0
        self._provisioned = False

    async def run(self, others: Mapping[str, Runner]) -> None:
        """Wait for the parts this one comes after, then keep it running until :meth:`stop`."""
        for name in self.part.after:
            if name in others and not await self._unless_stopping(others[name].up.wait()):
                return
        while not self._stopping.is_set():
            if await self._once():
                return
            if self._stopping.is_set():
                break
            self._set(State.BACKING_OFF)
            await self._unless_stopping(asyncio.sleep(self._pause))
            self._pause = min(self._pause * 2, BACKOFF_MOST)
            self.restarts += 1
        self._set(State.STOPPED)

    async def _once(self) -> bool:
        """Run the process once, from start to end. True when it need not be restarted."""
        self.trouble = ""
        self._set(State.STARTING)
        started = time.time()
        try:
            if self.part.prepare:
                await asyncio.to_thread(self.part.prepare)
            if self._stopping.is_set():
                return False
            self.process = process = await self._spawn()
        except (OSError, ValueError) as error:
            self._report(f"could not be started: {error}")
            return False
        self._changed()
        exited = asyncio.ensure_future(process.wait())
        try:
            if self._stopping.is_set():  # asked while the process was being made, when there was nothing to end yet
                await self._end(exited)
            elif self.part.one_shot:
                await exited
            elif await self._becomes_ready(exited, started):
                ready_at = time.monotonic()
                await self._watch(exited, started)
                if time.monotonic() - ready_at >= STEADY_SECONDS:
                    self._pause, self._failures = BACKOFF_FIRST, 0
        finally:
            exited.cancel()
            self.up.clear()
        code = await process.wait()
        self._sweep(process.pid)
        if self.part.one_shot and code == 0:
            self._set(State.DONE)
            self._console.event(self.part.name, f"done ({time.time() - started:.1f} s)")
            self.up.set()
            return True
        if not self._stopping.is_set():
            self._report(f"{ending(code)} after {time.time() - started:.1f} s")
        return False

    async def _spawn(self) -> asyncio.subprocess.Process:
        part = self.part
        log = logfile.open_log(self.log)
        account = part.account
        try:
            return await asyncio.create_subprocess_exec(
                *part.command,
                env=dict(part.environment),
                cwd="/" if account else part.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid(), part.stop_signal),
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                umask=0o077,
            )
        finally:
            os.close(log)

    async def _becomes_ready(self, exited: asyncio.Future[int], started: float) -> bool:
        """Wait until the part is healthy; False when it ended or took too long (and was ended)."""
        deadline = time.monotonic() + self.part.start_seconds
        look = 0.0
        while not exited.done():
            if time.monotonic() >= look:
                look = time.monotonic() + WAITING_LOOK_SECONDS
                if await self._lacks(started):
                    deadline = time.monotonic() + self.part.start_seconds
            if await self.part.ready(started) and not exited.done() and await self._provision():
                self._set(State.READY)
                self.up.set()
                again = " again" if self.restarts else ""
                pid = self.process.pid if self.process else 0
                self._console.event(self.part.name, f"ready{again} (process {pid}, {time.time() - started:.1f} s)")
                return True
            if time.monotonic() > deadline:
                self._console.event(self.part.name, f"not ready after {self.part.start_seconds:.0f} s; ending it")
                await self._end(exited)
                return False
            await asyncio.wait([exited], timeout=POLL_SECONDS)
        return False

    async def _lacks(self, started: float) -> bool:
        """Whether the part lacks something; a change is said once."""
        trouble = await self.part.lacks(started) if self.part.lacks is not None else ""
        if trouble is not None and trouble != self.trouble:
            said = trouble if trouble else "has what it lacked"
            self._console.event(self.part.name, said)
            self.trouble = trouble
            self._changed()
        return bool(self.trouble)

    async def _provision(self) -> bool:
        """Run the part's one-time provisioning; False when the part ended meanwhile, so that it is repeated."""
        with contextlib.suppress(OSError):
            if not self._provisioned:
                await self.part.provision()
                self._provisioned = True
        return self._provisioned

    async def _watch(self, exited: asyncio.Future[int], started: float) -> None:
        """Wait until the process ends; end it when it hangs."""
        silent, heard = 0, time.monotonic()
        while not exited.done():
            await asyncio.wait([exited], timeout=LOOK_SECONDS)
            if exited.done():
                return
            await self._lacks(started)
            file = self.part.alive_file
            if self.part.alive is not None and await self.part.alive():
                heard = time.monotonic()
            quiet = silent_for(file) if file else time.monotonic() - heard if self.part.alive else 0.0
            silent = silent + 1 if quiet > SILENT_SECONDS else 0
            if silent >= LOOKS and not exited.done():
                self._console.event(self.part.name, f"has been silent for over {SILENT_SECONDS:.0f} s; ending it")
                await self._end(exited)

    def request_stop(self) -> None:
        """Prevent further restarts; :meth:`stop` ends the process itself."""
        self._stopping.set()

    async def stop(self) -> None:
        """End the process: its stop signal first, SIGKILL when it does not go within its time."""
        self._stopping.set()
        process = self.process
        if process is not None and process.returncode is None:
            await self._end(asyncio.ensure_future(process.wait()))
        self._set(State.STOPPED)

    async def _end(self, exited: asyncio.Future[int]) -> None:
        self.send_signal(self.part.stop_signal)
        await asyncio.wait([exited], timeout=self.part.stop_seconds)
        if not exited.done():
            self._console.event(self.part.name, f"did not stop within {self.part.stop_seconds:.0f} s; killed")
            self.kill()
            await exited

    def kill(self) -> None:
        """SIGKILL to the process and everything it started."""
        if self.process is not None and self.process.returncode is None:
            self._sweep(self.process.pid)
            self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            # Not Popen.send_signal: it looks whether the process has ended, and so can take its exit code from asyncio,
            # which then reports 255.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    @staticmethod
    def _sweep(pid: int) -> None:
        """Kill the remaining processes of the part's process group, such as workers of a killed parent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def _report(self, what: str) -> None:
        """Report that the process ended: the first three times in a row, then every sixth time."""
        self._failures += 1
        if self._failures > 3 and self._failures % 6:
            return
        self._console.event(self.part.name, f"{what}; starting again in {self._pause:.1f} s (log: {self.log})")
        if self._failures in {2, 3} or self._failures % 6 == 0:
            for line in logfile.last_words(self.log, lines=3):
                self._console.text(f"{'':<20} | {line}")

    async def _unless_stopping(self, waiting: Awaitable[object]) -> bool:
        """Wait for ``waiting``; False when a stop was requested first."""
        task, stop = asyncio.ensure_future(waiting), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        for one in (task, stop):
            one.cancel()
        return not self._stopping.is_set()

    def _set(self, state: State) -> None:
        if state is not self.state:
            self.state, self.since = state, time.time()
            self._changed()


def ending(code: int) -> str:
    """``exited with code 3`` or ``was killed (SIGKILL)``."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed (signal {-code})"


def end_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when the process that started it ends. Elsewhere it does nothing."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _die_with(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """Prepare a child process before exec: Linux ends it when the supervisor dies.

    The request comes after the change of account, which would clear it (prctl(2), PR_SET_PDEATHSIG).
    """
    if _libc is None:
        return None
    libc = _libc

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask

"""Run all parts: start them in order, keep them running, stop them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping

from cloudsignal import __version__
from cloudsignal.secrets import pki
from cloudsignal.supervisor import logfile, saving, state
from cloudsignal.supervisor.account import service_accounts
from cloudsignal.supervisor.assembly import Assembly, System
from cloudsignal.supervisor.console import Console
from cloudsignal.supervisor.layout import Layout
from cloudsignal.supervisor.options import Options
from cloudsignal.supervisor.part import Runner, State
from cloudsignal.supervisor.summary import summary

ROTATE_SECONDS = 30.0
RENEW_SECONDS = 6 * 3600.0
FILES_WANTED = 262_144
"""Open files that an edge may need: two per session and some."""


def up(options: Options, own: Mapping[str, str], console: Console | None = None) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    Raises :class:`~cloudsignal.supervisor.errors.StartError` or :class:`~cloudsignal.config.ConfigError` when it cannot
    start as asked; nothing runs then.
    """
    console = console or Console()
    layout = Layout(options.data, service_accounts())
    layout.create()
    raise_file_limit()
    with state.locked(layout.lock):
        for name in state.end_leftovers(layout.state, layout.root):
            console.event(name, "left over from a supervisor that was killed; ended")
        system = Assembly(options, own).build()
        console.text(f"CloudSignal {__version__}, data in {layout.root}")
        for note in system.notes:
            console.text(note)
        return asyncio.run(Supervisor(system, console).run())


def raise_file_limit() -> None:
    """Raise the soft limit of open files towards :data:`FILES_WANTED`, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Supervisor:
    """One run of a :class:`System`."""

    def __init__(self, system: System, console: Console) -> None:
        self.system = system
        self.console = console
        self.started = time.time()
        self.runners = {
            part.name: Runner(
                part, log=system.layout.logs / f"{part.name}.log", console=console, changed=self.write_state
            )
            for part in system.parts
        }
        self._stop = asyncio.Event()
        self._signals = 0

    async def run(self) -> int:
        """Start everything, wait for the end, stop everything. 0 after a clean stop, 1 after a forced one."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) means it
                loop.add_signal_handler(number, self._on_signal, number)
        tasks = [asyncio.create_task(runner.run(self.runners)) for runner in self.runners.values()]
        chores = [
            asyncio.create_task(chore) for chore in (self._announce(), self._rotate(), self._renew(), self._save())
        ]
        stop = asyncio.create_task(self._stop.wait())
        try:
            watched = {stop, *tasks}
            while not stop.done() and watched != {stop}:  # parts that run once may be all there is
                done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stop}:
                    task.result()  # a defect in the supervisor itself must not go unseen
        finally:
            stop.cancel()
            for chore in chores:
                chore.cancel()
            await self._stop_all(tasks)
        return 1 if self._signals > 1 else 0

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals == 1:
            self.console.text(f"{number.name} received: stopping (again to kill)")
            self._stop.set()
        elif self._signals == 2:
            self.console.text(f"{number.name} received again: killing what is left")
            for runner in self.runners.values():
                runner.kill()

    async def _stop_all(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop stage by stage, the last started first: edges drain while Valkey and ingest still run."""
        started = time.monotonic()
        for runner in self.runners.values():
            runner.request_stop()
        for stage in sorted({runner.part.stage for runner in self.runners.values()}, reverse=True):
            await asyncio.gather(*(one.stop() for one in self.runners.values() if one.part.stage == stage))
        await asyncio.gather(*tasks, return_exceptions=True)
        self.write_state()
        self.console.text(f"stopped ({time.monotonic() - started:.1f} s)")

    async def _announce(self) -> None:
        """Print the summary once every part is ready."""
        for runner in self.runners.values():
            await runner.up.wait()
        self.write_state()
        self.console.text(summary(self.system, seconds=time.time() - self.started))

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_SECONDS)
            for runner in self.runners.values():
                with contextlib.suppress(OSError):
                    logfile.rotate(runner.log)

    async def _renew(self) -> None:
        """Renew the local certificate in time; the edge reloads it by itself."""
        while self.system.ca is not None:
            await asyncio.sleep(RENEW_SECONDS)
            chain = await asyncio.to_thread(pki.ensure, self.system.layout.tls, names=self.system.names)
            if chain.renewed:
                self.console.event("tls", f"certificate renewed ({chain.cert})")

    async def _save(self) -> None:
        """Have the embedded broker save what it stores (see :mod:`cloudsignal.supervisor.saving`)."""
        broker = self.runners.get("mosquitto")
        saved_at = time.monotonic()
        while broker is not None:
            await asyncio.sleep(1.0)
            size = 0
            with contextlib.suppress(OSError):
                size = (self.system.layout.broker / "mosquitto.db").stat().st_size
            if time.monotonic() - saved_at >= saving.interval(size) and broker.up.is_set():
                saved_at = time.monotonic()
                broker.send_signal(signal.SIGUSR1)

    def write_state(self) -> None:
        """Bring ``run.json`` up to date."""
        parts = {}
        for name, runner in self.runners.items():
            process = runner.process
            alive = process is not None and process.returncode is None
            pid = process.pid if process is not None and alive else None
            parts[name] = {
                "state": runner.state.value,
                "pid": pid,
                "born": state.birth(pid) if pid else None,
                "since": runner.since,
                "restarts": runner.restarts,
                "trouble": runner.trouble,
                "log": str(runner.log),
            }
        settled = {State.READY.value, State.DONE.value}
        data = {
            "version": __version__,
            "pid": os.getpid(),
            "started": self.started,
            "ready": all(part["state"] in settled for part in parts.values()),
            "python": sys.executable,
            "data": str(self.system.layout.root),
            "urls": self.system.urls,
            "ports": self.system.ports,
            "ca": str(self.system.ca) if self.system.ca else None,
            "nodes": self.system.nodes,
            "demo": self.system.demo,
            "parts": parts,
        }
        with contextlib.suppress(OSError):
            state.write(self.system.layout.state, data)

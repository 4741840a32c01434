"""A ``cloudsignal up`` in the background of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from cloudsignal.config import VARIABLES
from cloudsignal.supervisor import state
from cloudsignal.supervisor.part import PROJECT

STOP_SECONDS = 60.0


class StackError(AssertionError):
    """The system did not do what the fixtures need; the message carries the last lines of its logs."""


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that configures CloudSignal."""
    names = {variable.name for variable in VARIABLES} | {"DJANGO_SETTINGS_MODULE"}
    return {name: value for name, value in os.environ.items() if name not in names}


def temporary_data_folder(prefix: str) -> Path:
    """A data folder outside pytest's own, which other accounts may not pass through."""
    return Path(tempfile.mkdtemp(prefix=f"cloudsignal-{prefix}-"))


class Up:
    """One ``cloudsignal up`` process with a data folder of its own."""

    def __init__(self, data: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.options = options
        self.environment = clean_environment() | (environment or {})
        self.output = data.with_name(f"{data.name}.out")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; :meth:`wait_ready` says when it runs."""
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", "cloudsignal.cli", "up", "--end-with-parent", "--data", str(self.data)]
            self.process = subprocess.Popen(
                [*command, *self.options],
                cwd=PROJECT, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def run_state(self) -> dict[str, Any]:
        """``run.json`` as it stands, of the running supervisor only."""
        data = state.read(self.data / "run.json")
        ours = self.process is not None and data.get("pid") == self.process.pid
        return data if ours else {}

    def wait_ready(self, *, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until every part is ready; returns ``run.json``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise StackError(f"cloudsignal up ended by itself\n{self.report()}")
            data = self.run_state()
            if data.get("ready"):
                return data
            time.sleep(0.05)
        raise StackError(f"not everything was ready after {seconds:.0f} s\n{self.report()}")

    def wait_part(self, name: str, *, other_than: int | None = None, seconds: float = 60.0) -> int:
        """Wait until the part is ready in a process other than ``other_than``; returns its pid."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            part = self.run_state().get("parts", {}).get(name, {})
            if part.get("state") == "ready" and part.get("pid") and part["pid"] != other_than:
                return int(part["pid"])
            time.sleep(0.05)
        raise StackError(f"{name} did not come up within {seconds:.0f} s\n{self.report(name)}")

    def pid(self, name: str) -> int:
        """The process id of a running part."""
        pid = self.run_state()["parts"][name]["pid"]
        assert pid, f"{name} is not running"
        return int(pid)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one part (SIGKILL unless told otherwise); returns the pid it had."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and wait; returns its exit code. Safe to call twice."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                descendants = psutil.Process(self.process.pid).children(recursive=True)
                for process in [*descendants, self.process]:
                    process.kill()
                raise StackError(f"cloudsignal up did not stop\n{self.report()}") from None
        return int(self.process.returncode)

    def log(self, name: str) -> str:
        """Everything in a part's current log."""
        return (self.data / "logs" / f"{name}.log").read_text(errors="replace")

    def report(self, *names: str) -> str:
        """The console and the tails of the logs, for failure messages."""
        text = [self.output.read_text(errors="replace")[-3000:] if self.output.exists() else ""]
        logs = [path for path in sorted((self.data / "logs").glob("*.log")) if not names or path.stem in names]
        text += [f"--- {path.name}\n" + path.read_text(errors="replace")[-1500:] for path in logs]
        return "\n".join(text)

    def remove(self) -> None:
        """Stop it and delete everything it wrote."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.data, ignore_errors=True)
            self.output.unlink(missing_ok=True)

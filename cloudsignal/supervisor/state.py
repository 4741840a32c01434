"""``run.json`` and the lock of the data folder: the running supervisor, its addresses and processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.secret import write_private

MARK = "CLOUDSIGNAL_SUPERVISED"
"""Environment variable of every part: the data folder it belongs to."""

LEFTOVER_SECONDS = 15.0
"""How long parts of a killed supervisor get to end by themselves before they are killed."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the data folder. Raises :class:`StartError` when another supervisor has it."""
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            pid = handle.read().strip() or "unknown"
            raise StartError(
                f"another CloudSignal (process {pid}) runs on {path.parent}; stop it, or use another data folder "
                "with --name or --data"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def is_running(path: Path) -> bool:
    """Whether a supervisor holds the lock ``path``. Makes nothing."""
    try:
        with path.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read(path: Path) -> dict[str, Any]:
    """Read ``run.json``; empty when there is none or it cannot be read."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write(path: Path, data: dict[str, Any]) -> None:
    """Replace ``run.json``; it holds no secret."""
    write_private(path, json.dumps(data, indent=2) + "\n")


def birth(pid: int) -> float | None:
    """The start time of a process in seconds since the epoch; with the PID it identifies the process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def end_leftovers(state: Path, data: Path) -> list[str]:
    """End the parts that a killed supervisor left behind; returns their names.

    A process is ours only when its pid *and* its time of birth are those written down, or when it belongs to this user
    and carries the mark of this data folder. A pid that was given to somebody else meanwhile is never touched.
    """
    ours: dict[int, tuple[str, psutil.Process]] = {}
    for name, part in read(state).get("parts", {}).items():
        pid, born = part.get("pid"), part.get("born")
        if isinstance(pid, int) and isinstance(born, float) and birth(pid) == born:
            with contextlib.suppress(psutil.Error):
                ours[pid] = (name, psutil.Process(pid))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marked = process.pid not in ours and process.environ().get(MARK) == str(data)
            if marked and process.pid != os.getpid():
                ours[process.pid] = (process.name(), process)
    for name, process in ours.values():
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_SECONDS
    _, alive = psutil.wait_procs([process for _, process in ours.values()], timeout=LEFTOVER_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=max(1.0, deadline - time.monotonic()))
    return sorted({name for name, _ in ours.values()})

"""The machine: Python, packages, programs, limits, disk and clock."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from cloudsignal.cli.checks.result import Result, fine, problem, warning
from cloudsignal.supervisor import programs
from cloudsignal.supervisor.account import planned_accounts
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.layout import require_usable

FILES_ENOUGH = 8192
DISK_ENOUGH = 2 * 1024**3
EARLIEST = 1_767_225_600
"""2026-01-01: a clock before that is wrong."""


def check(data: Path, own: Mapping[str, str]) -> Iterator[Result]:
    """Run every check of the machine."""
    yield _python()
    yield _packages()
    taken_over = {"DATABASE_URL": "postgres", "REDIS_URL": "valkey", "MQTT_UPSTREAM_URL": "mosquitto"}
    embedded = {part for variable, part in taken_over.items() if not own.get(variable, "").strip()}
    if "postgres" in embedded:
        yield _program("postgres", lambda: programs.postgres_folder() / "bin" / "postgres", "--version", "PostgreSQL")
    if "valkey" in embedded:
        yield _program("valkey", programs.valkey_server, "--version", "server")
    if "mosquitto" in embedded:
        yield _program("mosquitto", programs.mosquitto, "-h", "mosquitto version")
    yield _files()
    yield from _folder(data)
    yield _clock()


def _python() -> Result:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - somebody may have installed it by force
        return problem("python", f"Python {found} is too old", "install Python 3.11 or newer, then run `make setup`")
    return fine("python", f"Python {found}")


def _packages() -> Result:
    missing, wrong = [], []
    try:
        wanted = requires("cloudsignal") or []
    except PackageNotFoundError:
        return warning("packages", "cloudsignal is not installed, so nothing says what it needs", "run `make setup`")
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                wrong.append(f"{requirement.name} {version(requirement.name)}")
        except PackageNotFoundError:
            missing.append(requirement.name)
    if missing or wrong:
        words = [f"missing: {', '.join(missing)}"] if missing else []
        words += [f"unfit: {', '.join(wrong)}"] if wrong else []
        return problem("packages", "; ".join(words), "run `make setup`")
    return fine("packages", "every package that is needed is installed")


def _program(name: str, locate: Callable[[], Path], argument: str, says: str) -> Result:
    """``says`` stands in the first line of one that works; exit codes differ (``mosquitto -h`` has one of its own)."""
    try:
        path = locate()
        done = subprocess.run([str(path), argument], capture_output=True, text=True, timeout=10, check=False)
    except StartError as error:
        return problem(name, "not found", str(error))
    except (OSError, subprocess.TimeoutExpired) as error:
        return problem(name, f"{path} cannot be run: {error}", "reinstall it")
    words = ((done.stdout or done.stderr).strip() or f"exit code {done.returncode}").splitlines()[0]
    if says not in words:
        return problem(name, f"{path} does not work: {words}", "reinstall it")
    return fine(name, f"{words} ({path})")


def _files() -> Result:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_ENOUGH:
        return warning(
            "open files",
            f"at most {hard}; an edge needs two per session, so about {max(0, hard - 200) // 2} clients fit",
            "raise the hard limit: `ulimit -Hn 65536`, LimitNOFILE= of systemd, or /etc/security/limits.conf",
        )
    return fine("open files", "no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}")


def _folder(data: Path) -> Iterator[Result]:
    try:
        require_usable(data, planned_accounts() if os.geteuid() == 0 else None)
    except StartError as error:
        yield problem("data folder", f"{data} cannot be used", str(error))
        return
    there = next(folder for folder in (data, *data.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield problem("data folder", f"{data} cannot be written", "choose another one with --data or CLOUDSIGNAL_DATA")
        return
    yield fine("data folder", f"{data}{'' if data.exists() else ' (made at the first start)'}")
    free = shutil.disk_usage(there).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < DISK_ENOUGH:
        yield warning("disk", text, "audit events grow; give the data folder at least 2 GiB")
    else:
        yield fine("disk", text)


def _clock() -> Result:
    if time.time() < EARLIEST:
        return problem(
            "clock",
            f"the system says it is {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}",
            "set the clock and switch on time synchronization; credentials and certificates depend on it",
        )
    return fine("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))

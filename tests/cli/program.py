"""Runs ``cloudsignal`` as people do: as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from cloudsignal.supervisor.part import PROJECT
from tests.stack.process import clean_environment


@dataclass(frozen=True, slots=True)
class Done:
    """What a run left behind."""

    code: int
    output: str
    errors: str


def program(*arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Done:
    """Run ``cloudsignal`` with ``arguments`` and wait for its end."""
    start = "import sys; sys.argv[0] = 'cloudsignal'; from cloudsignal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=PROJECT, env=clean_environment() | (environment or {}), input=stdin,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)

"""Runs ``cloudsignal``: the whole program with its exit codes, in this process because starting one takes long."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from cloudsignal.cli import main
from cloudsignal.supervisor.part import PROJECT
from tests.support.process import clean_environment

OWN = {"CLOUDSIGNAL_URL", "CLOUDSIGNAL_API_KEY", "CLOUDSIGNAL_CA", "BROWSER"}


@dataclass(frozen=True, slots=True)
class Done:
    """What a run left behind."""

    code: int
    output: str
    errors: str


def program(*arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Done:
    """Run ``cloudsignal`` with ``arguments``."""
    output, errors = io.StringIO(), io.StringIO()
    own = alone() | (environment or {})
    code: object = 0
    with (
        mock.patch.dict(os.environ, own, clear=True),
        mock.patch.object(sys, "argv", ["cloudsignal", *arguments]),
        # The program configures no logging; Django does, when other tests have set it up in this process.
        mock.patch.object(logging.getLogger(), "handlers", []),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Done(int(code) if isinstance(code, int) else 1, output.getvalue(), errors.getvalue())


def process(*arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Done:
    """The same as a process of its own, as people start it."""
    done = subprocess.run(
        command(*arguments), cwd=PROJECT, env=alone() | (environment or {}), input=stdin, capture_output=True,
        text=True, timeout=90, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def command(*arguments: str) -> list[str]:
    """What starts the program."""
    return [sys.executable, "-m", "cloudsignal.cli", *arguments]


def alone() -> dict[str, str]:
    """An environment in which nobody is signed in, and nothing says where to."""
    given = {name: value for name, value in clean_environment().items() if name not in OWN}
    return given | {"XDG_CONFIG_HOME": "/nonexistent"}

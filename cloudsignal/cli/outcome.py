"""Exit codes, and the error with which a command fails."""

from __future__ import annotations

import json
from enum import IntEnum

import click


class Exit(IntEnum):
    """The exit codes of the CLI; scripts and CI depend on them."""

    FINE = 0
    FAILED = 1
    """The thing that was checked failed."""
    USAGE = 2
    """Wrong usage: arguments, options, environment variables."""
    REFUSED = 3
    """Not signed in, or not allowed."""
    SERVER = 4
    """The server or the network."""


class CommandError(Exception):
    """A command cannot go on. The message says what, where and what to do about it."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def print_json(data: object) -> None:
    """One JSON document on standard output, for programs. What would steer a terminal is written as ``\\uXXXX``."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    click.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

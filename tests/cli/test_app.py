"""The program itself: help, version, wrong usage."""

from __future__ import annotations

import json

import pytest

from cloudsignal import __version__
from cloudsignal.cli.app import COMMANDS
from tests.cli.program import process, program


def test_version() -> None:
    done = program("version")
    assert (done.code, done.output.split()[:2]) == (0, ["cloudsignal", __version__])
    assert json.loads(program("version", "--json").output)["cloudsignal"] == __version__
    assert __version__ in program("--version").output


def test_the_program_as_people_start_it() -> None:
    assert process("version").output.startswith(f"cloudsignal {__version__}")
    done = process("acl", "validate", "/nonexistent")
    assert (done.code, done.output) == (2, "")
    assert done.errors.startswith("cloudsignal: /nonexistent cannot be read")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_listed_and_has_help(command: str) -> None:
    assert f"  {command} " in program("--help").output
    assert program(command, "--help").output.startswith(f"Usage: cloudsignal {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["acl", "nonsense"], "No such command 'nonsense'"),
        (["up", "--nonsense"], "No such option '--nonsense'"),
        (["up", "--web-port", "70000"], "is not in the range 0<=x<=65535"),
        (["up", "--web-port", "http"], "is not a valid integer range"),
        (["up", "--edges", "0"], "is not in the range 1<=x<=64"),
        (["up", "--parts", "web,cache"], "there is no part 'cache'"),
        (["up", "--demo", "--parts", "web"], "--demo needs all parts"),
        (["acl", "validate"], "Missing argument 'FILE'"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_message(arguments: list[str], message: str) -> None:
    done = program(*arguments)
    assert done.code == 2
    assert message in done.errors
    assert "Traceback" not in done.errors


def test_a_data_folder_that_cannot_be_used_is_exit_code_1() -> None:
    done = program("up", "--data", "/dev/null/data", "--parts", "valkey")
    assert done.code == 1
    assert "/dev/null/data cannot be used" in done.errors
    assert "--data" in done.errors

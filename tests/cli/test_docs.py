"""docs/cli.md: its examples are commands and options that exist, and every command stands in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloudsignal.cli.app import cli

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
EXAMPLES = sorted(set(re.findall(r"^(?:\$ )?cloudsignal (.+?)(?:  +#.*)?$", TEXT, re.MULTILINE)))


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below ``group`` with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_command_with_options_that_exist(example: str) -> None:
    words = shlex.split(re.split(r" [|>] ", example)[0])
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, example
        command = found
    command.make_parser(click.Context(command)).parse_args(words)


def test_every_command_stands_in_the_document_and_has_json() -> None:
    assert len(EXAMPLES) >= 20
    for name, command in commands(cli):
        assert re.search(rf"`?{name.replace(' ', '[ a-z|]* ')}\b", TEXT), name
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or name == "up", name

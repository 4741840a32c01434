"""The command tree. Each command lives in a module of its own, imported only when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from cloudsignal import __version__
from cloudsignal.cli.outcome import CommandError, Exit
from cloudsignal.config import ConfigError

COMMANDS = {
    "up": "cloudsignal.cli.up:up",
    "doctor": "cloudsignal.cli.doctor:doctor",
    "version": "cloudsignal.cli.version:version",
    "acl": "cloudsignal.cli.acl:acl",
}
"""Name -> ``module:attribute``. A new command is one line here and one module."""


class LazyGroup(click.Group):
    """Imports a command when it is asked for: ``cloudsignal version`` does not wait for what ``up`` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of :data:`COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cloudsignal")
def cli() -> None:
    """CloudSignal: a self-hosted, multi-tenant control plane for MQTT.

    Exit codes: 0 fine, 1 the thing checked failed, 2 wrong usage, 3 not signed in or refused, 4 server or network.
    """


def main() -> None:
    """Entry point of the program: run the command, turn every error into a message and an exit code."""
    try:
        code = cli.main(prog_name="cloudsignal", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("aborted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CommandError as error:
        click.echo(f"cloudsignal: {error}", err=True)
        sys.exit(error.code)
    except ConfigError as error:
        click.echo(f"cloudsignal: {error}", err=True)
        sys.exit(Exit.USAGE)
    sys.exit(code if isinstance(code, int) else Exit.FINE)

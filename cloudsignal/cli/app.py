"""The command tree. Each command lives in a module of its own, imported only when it is used."""

from __future__ import annotations

import sys

import click

from cloudsignal import __version__
from cloudsignal.cli.group import LazyGroup
from cloudsignal.cli.outcome import CommandError, Exit
from cloudsignal.config import ConfigError

SECTIONS = {
    "An organization on a server": {
        "login": "cloudsignal.cli.login:login",
        "logout": "cloudsignal.cli.login:logout",
        "whoami": "cloudsignal.cli.login:whoami",
        "acl": "cloudsignal.cli.acl:acl",
        "creds": "cloudsignal.cli.creds:creds",
        "sessions": "cloudsignal.cli.sessions:sessions",
        "audit": "cloudsignal.cli.audit:audit",
    },
    "This machine": {
        "up": "cloudsignal.cli.up:up",
        "doctor": "cloudsignal.cli.doctor:doctor",
        "version": "cloudsignal.cli.version:version",
    },
}
"""Title -> name -> ``module:attribute``. A new command is one line here and one module."""

COMMANDS = {name: target for section in SECTIONS.values() for name, target in section.items()}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="cloudsignal")
def cli() -> None:
    """CloudSignal: a self-hosted, multi-tenant control plane for MQTT.

    \b
    cloudsignal login https://signal.example.com     sign in through the browser
    cloudsignal acl plan policy.yaml                 what would change
    cloudsignal acl push policy.yaml                 deploy it, and wait for every node

    For CI set CLOUDSIGNAL_URL and CLOUDSIGNAL_API_KEY instead of signing in.

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

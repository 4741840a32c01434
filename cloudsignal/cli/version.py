"""``cloudsignal version``."""

from __future__ import annotations

import platform

import click

from cloudsignal import __version__
from cloudsignal.cli.outcome import json_option, print_json


@click.command()
@json_option
def version(*, as_json: bool) -> None:
    """Show the versions of CloudSignal and Python."""
    if as_json:
        print_json({"cloudsignal": __version__, "python": platform.python_version(), "system": platform.platform()})
    else:
        click.echo(f"cloudsignal {__version__} (Python {platform.python_version()})")

"""Choose the server and the key of a command: a key for CI takes precedence over a sign-in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import click
from click.core import ParameterSource

from cloudsignal.cli import logins
from cloudsignal.cli.outcome import CommandError, Exit, json_option
from cloudsignal.cli.server import Server, checked_url

NOT_SIGNED_IN = "not signed in; run `cloudsignal login URL`, or set CLOUDSIGNAL_URL and CLOUDSIGNAL_API_KEY"
Command = Callable[..., int]

OPTIONS = (
    click.option("--url", envvar="CLOUDSIGNAL_URL", metavar="URL", help="The server.  [env: CLOUDSIGNAL_URL]"),
    click.option("--org", metavar="ORG", help="The organization, if you are signed in to several."),
    click.option(
        "--api-key", envvar="CLOUDSIGNAL_API_KEY", metavar="KEY",
        help="An API key instead of a sign-in. Other users of this machine can see it: better set CLOUDSIGNAL_API_KEY.",
    ),
    click.option(
        "--ca", envvar="CLOUDSIGNAL_CA", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
        help="Certificates of a private CA, PEM.  [env: CLOUDSIGNAL_CA]",
    ),
    json_option,
)  # fmt: skip


def online(command: Command) -> Command:
    """Add the options that choose a server; the command gets it, open, as ``server``."""

    @functools.wraps(command)
    def inner(*, url: str | None, org: str | None, api_key: str | None, ca: Path | None, **others: object) -> int:
        if api_key and click.get_current_context().get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
            click.echo("other users of this machine can see a key in a command; set CLOUDSIGNAL_API_KEY", err=True)
        with open_server(url, org, api_key, ca) as server:
            return command(server=server, **others)

    decorated: Command = inner
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


def open_server(
    url: str | None = None, org: str | None = None, api_key: str | None = None, ca: Path | None = None
) -> Server:
    """The server that these choose. Raises :class:`CommandError` when nobody is signed in there."""
    if api_key:
        if not url:
            raise CommandError("with an API key, say which server: set CLOUDSIGNAL_URL, or give --url", Exit.USAGE)
        return Server(url, api_key.strip(), ca=ca, hint="Is CLOUDSIGNAL_API_KEY a key of this server?")
    login = logins.find(checked_url(url) if url else None, org)
    if login is None:
        raise CommandError(NOT_SIGNED_IN, Exit.REFUSED)
    trusted = ca or (Path(login.ca) if login.ca else None)
    return Server(login.url, login.key, ca=trusted, hint=f"Sign in again: cloudsignal login {login.url}")


def default_server() -> Server | None:
    """The server that the environment or the latest sign-in names; None when there is none."""
    ca = os.environ.get("CLOUDSIGNAL_CA")
    try:
        return open_server(
            os.environ.get("CLOUDSIGNAL_URL") or None,
            None,
            os.environ.get("CLOUDSIGNAL_API_KEY") or None,
            Path(ca) if ca else None,
        )
    except CommandError as error:
        if error.code is Exit.REFUSED:
            return None
        raise

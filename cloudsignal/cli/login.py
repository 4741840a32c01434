"""``cloudsignal login``, ``logout``, ``whoami``."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click

from cloudsignal.cli import logins
from cloudsignal.cli.arguments import Number
from cloudsignal.cli.logins import Login
from cloudsignal.cli.loopback import Listener, Proof
from cloudsignal.cli.online import NOT_SIGNED_IN, online
from cloudsignal.cli.outcome import CommandError, Exit, json_option, print_json
from cloudsignal.cli.server import RefusedError, Server, checked_url, plain
from cloudsignal.cli.show import when

CA = click.option(
    "--ca", envvar="CLOUDSIGNAL_CA", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Certificates of a private CA, PEM; stored.  [env: CLOUDSIGNAL_CA]",
)  # fmt: skip


@click.command()
@click.argument("url", envvar="CLOUDSIGNAL_URL", required=False)
@click.option("--no-browser", is_flag=True, help="Print the address, and ask for the code.")
@click.option("--timeout", type=Number(10, 3600), default=300, show_default=True, help="Seconds to wait.")
@CA
@json_option
def login(*, url: str | None, no_browser: bool, timeout: int, ca: Path | None, as_json: bool) -> int:
    """Sign in to the server at URL through the browser, for one organization.

    The browser asks which organization, shows what the CLI may do, and sends the response to a port of
    127.0.0.1 here. With --no-browser, or where there is no display, open the printed address anywhere and paste the
    code that it shows.
    """
    last = logins.find()
    if url is None and last is None:
        raise click.UsageError("say which server: cloudsignal login https://signal.example.com")
    url = checked_url(url or (last.url if last else ""))
    ca = ca.absolute() if ca else None
    with Server(url, ca=ca) as server:
        _look(server)
        made = _ask(server, no_browser=no_browser, timeout=timeout)
    fresh = Login(
        url, made["organization_id"], made["organization"], made["person"], made["secret"], made["expires_at"],
        ca=str(ca or ""),
    )  # fmt: skip
    replaced = logins.remember(fresh)
    if replaced is not None:
        _end(replaced)
    if os.environ.get("CLOUDSIGNAL_API_KEY"):
        click.echo("CLOUDSIGNAL_API_KEY is set here and comes before this sign-in", err=True)
    if as_json:
        print_json(_facts(fresh))
    else:
        click.echo(
            plain(
                f"Signed in to {url} as {fresh.person} for {fresh.organization} ({fresh.organization_id}), "
                f"until {fresh.expires_at[:10]}."
            )
        )
    return Exit.FINE


@click.command()
@click.option("--url", help="Of this server only.")
@click.option("--org", metavar="ORG", help="Of this organization only.")
@click.option("--all", "everything", is_flag=True, help="Of every server and organization.")
@json_option
def logout(*, url: str | None, org: str | None, everything: bool, as_json: bool) -> int:
    """Sign out: the key is revoked on the server and deleted here.

    Without options, the session that commands use now.
    """
    wanted = [
        one
        for one in logins.all_logins()
        if url is None or one.url == checked_url(url)
        if org is None or one.organization_id == org
    ]
    if not wanted:
        raise CommandError(NOT_SIGNED_IN, Exit.REFUSED)
    ended = wanted if everything else wanted[:1]
    failed = [trouble for one in ended if (trouble := _end(one))]
    for one in ended:
        logins.forget(one)
    if as_json:
        print_json({"signed_out": [_facts(one) for one in ended], "not_revoked": failed})
    else:
        for one in ended:
            click.echo(f"Signed out of {one.url}, {plain(one.organization)}.")
    for trouble in failed:
        click.echo(f"The key is deleted here but may still work: revoke it under API keys. {trouble}", err=True)
    return Exit.SERVER if failed else Exit.FINE


@click.command()
@online
def whoami(*, server: Server, as_json: bool) -> int:
    """Show the account, server, organization and permissions of commands."""
    found = server.get("/v2/me")
    if as_json:
        print_json({"url": server.url, **found})
        return Exit.FINE
    who = f"{found['person']}, {found['role']}" if found["person"] else f"key {found['name']}"
    rows = {
        "server": server.url,
        "organization": f"{found['organization']} ({found['organization_id']})",
        "as": who,
        "key": found["name"],
        "until": when(found["expires_at"]) or "it is revoked",
        "may": ", ".join(found["permissions"]) or "nothing but exchange tokens",
    }
    for name, value in rows.items():
        click.echo(f"{name + ':':<14}{plain(value)}")
    return Exit.FINE


def _look(server: Server) -> None:
    """Fail before the browser opens when there is no CloudSignal at that address."""
    try:
        server.get("/v2/me")
    except RefusedError as error:
        if error.status != 401:
            raise


def _ask(server: Server, *, no_browser: bool, timeout: int) -> dict[str, Any]:
    proof, browser = Proof(), not no_browser and _has_browser()
    with Listener(proof) as listener:
        address = listener.address(server.url, machine=socket.gethostname(), shows_code=not browser)
        opened = browser and webbrowser.open(address)
        told = "Your browser asks you now. If it did not open, go to" if opened else "Open this address in a browser:"
        click.echo(f"{told}\n\n  {address}\n\nIt must show {click.style(proof.phrase, bold=True)}.", err=True)
        if not opened:
            click.echo("Paste the code that it shows here, and press Enter:", err=True)
            listener.take_pasted()
        code = listener.wait(timeout)
        redirect_uri = listener.redirect_uri
    asked = {"code": code, "code_verifier": proof.verifier, "redirect_uri": redirect_uri}
    try:
        made: dict[str, Any] = server.post("/v2/command-line/login", asked)
    except RefusedError as error:
        if error.problem == "invalid_grant":
            raise CommandError(str(error), Exit.REFUSED) from None
        raise
    return made


def _has_browser() -> bool:
    """Whether a window can open. Without a display a browser in text would take the terminal over."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _end(one: Login) -> str:
    """Revoke the key of a sign-in; returns what went wrong, if anything. A key that is over already is fine."""
    try:
        with Server(one.url, one.key, ca=Path(one.ca) if one.ca else None) as server:
            server.post("/v2/command-line/logout")
    except RefusedError as error:
        return "" if error.status == 401 else str(error)
    except CommandError as error:
        return str(error)
    return ""


def _facts(one: Login) -> dict[str, str]:
    """A sign-in without its key."""
    return {
        "url": one.url,
        "organization_id": one.organization_id,
        "organization": one.organization,
        "person": one.person,
        "expires_at": one.expires_at,
    }

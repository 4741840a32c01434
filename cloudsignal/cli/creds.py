"""``cloudsignal creds``: MQTT credentials of an organization."""

from __future__ import annotations

from urllib.parse import quote

import click

from cloudsignal.cli.arguments import CLAIM, YES, Duration, claims_of, limit
from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import Exit, print_json
from cloudsignal.cli.server import Server, plain
from cloudsignal.cli.show import agree, cut, say_more, table, when

STATES = ("active", "static", "retired", "expired", "revoked")


@click.group()
def creds() -> None:
    """Credentials that MQTT clients sign in with: create, list, revoke."""


@creds.command()
@click.argument("name", required=False)
@click.option("--ttl", type=Duration(), default=3600, metavar="TIME", help="How long it is valid: 60 s to 24h.  [1h]")
@click.option("--static", is_flag=True, help="A static credential: it does not expire.")
@CLAIM
@click.option("--note", default="", help="A description of the client.")
@click.option("--replace", is_flag=True, help="Revoke the other credentials of NAME.")
@online
def create(
    *, server: Server, name: str | None, ttl: int, static: bool, claims: tuple[str, ...], note: str, replace: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Issue a credential for the username NAME (if missing: a new opaque one). The password is shown only now."""
    body = {
        "username": name, "ttl": ttl, "static": static, "claims": claims_of(claims), "note": note,
        "replace_existing": replace,
    }  # fmt: skip
    made = server.post("/v2/credentials", body)
    if as_json:
        print_json(made)
        return Exit.FINE
    until = "never, until it is revoked" if made["static"] else when(made["expires_at"])
    for title, value in (("username", made["username"]), ("password", made["password"]), ("expires", until)):
        click.echo(f"{title + ':':<10}{plain(value)}")
    click.echo(f"token:    {plain(made['token_id'])}\nThe password is not stored and cannot be shown again.", err=True)
    return Exit.FINE


@creds.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--username", metavar="PREFIX", help="Only usernames that begin with this.")
@limit(50)
@online
def list_(*, server: Server, state: str | None, username: str | None, limit: int, as_json: bool) -> int:
    """List credentials, newest first, without their passwords."""
    rows, more = cut(server.pages("/v2/credentials", limit=limit + 1, state=state, username=username), limit)
    if as_json:
        print_json({"data": rows, "more": more})
        return Exit.FINE
    table(
        ("TOKEN", "USERNAME", "STATE", "ISSUED", "EXPIRES", "BY"),
        (
            (row["token_id"], row["username"], row["state"], when(row["issued_at"]), when(row["expires_at"]),
             row["created_by"])
            for row in rows
        ),
        nothing="no credentials",
    )  # fmt: skip
    say_more(more, limit)
    return Exit.FINE


@creds.command()
@click.argument("token", nargs=-1)
@click.option("--username", metavar="NAME", help="Every credential of this username.")
@YES
@online
def revoke(*, server: Server, token: tuple[str, ...], username: str | None, yes: bool, as_json: bool) -> int:
    """Revoke credentials by their TOKEN IDs, or all of a username. Live sessions that use them are closed."""
    if bool(token) == bool(username):
        raise click.UsageError("give either TOKEN ids or --username")
    what = f"every credential of {username}" if username else ", ".join(token)
    if not agree(f"Revoke {what}, and close the sessions that use it?", yes=yes):
        return Exit.FAILED
    paths = [f"/v2/users/{quote(username, safe='')}"] if username else []
    paths += [f"/v2/credentials/{quote(each, safe='')}" for each in token]
    ended, failed = server.delete_each(paths)
    if as_json:
        print_json({"revoked": ended})
    else:
        for each in ended:
            click.echo(f"revoked {plain(each.get('token_id') or each['username'])}")
    if failed is not None:
        raise failed
    return Exit.FINE

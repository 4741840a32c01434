"""``cloudsignal sessions``: who is connected."""

from __future__ import annotations

from urllib.parse import quote

import click

from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import Exit, print_json
from cloudsignal.cli.server import Server, plain
from cloudsignal.cli.show import table, when


@click.group()
def sessions() -> None:
    """Live MQTT sessions: list, close."""


@sessions.command("list")
@online
def list_(*, server: Server, as_json: bool) -> int:
    """List the connected clients, newest first."""
    rows = server.rows("/v2/sessions")
    if as_json:
        print_json({"data": rows})
        return Exit.FINE
    table(
        ("SESSION", "USERNAME", "CLIENT ID", "NODE", "ADDRESS", "TLS", "SINCE"),
        (
            (row["session"], row["username"], row["client_id"], row["node"], row["ip"], row["tls_version"],
             when(row["connected_at"]))
            for row in rows
        ),
        nothing="no client is connected",
    )  # fmt: skip
    return Exit.FINE


@sessions.command()
@click.argument("session", nargs=-1, required=True)
@online
def close(*, server: Server, session: tuple[str, ...], as_json: bool) -> int:
    """Close live sessions by ID. Their clients can sign in again: revoke a credential to keep one out."""
    closed, failed = server.delete_each(f"/v2/sessions/{quote(each, safe='')}" for each in session)
    if as_json:
        print_json({"closed": closed})
    else:
        for each in closed:
            click.echo(plain(f"closing {each['session']} of {each['username']}"))
    if failed is not None:
        raise failed
    return Exit.FINE

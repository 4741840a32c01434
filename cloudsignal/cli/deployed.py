"""``cloudsignal acl get`` and ``history``: the active version on a server, and earlier ones."""

from __future__ import annotations

from typing import Any

import click

from acl.policy import canonical, parse, to_yaml
from cloudsignal.cli.arguments import Number, limit
from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import CommandError, Exit, print_json
from cloudsignal.cli.server import Server
from cloudsignal.cli.show import cut, say_more, table, when

STATES = {"enforcing": "active", "pending": "rolling out"}
"""The dashboard's words for the states of a deployment, where the API's word is another one."""


@click.command()
@click.option("--pretty", is_flag=True, help="As YAML in one layout, without comments.")
@click.option("--compact", is_flag=True, help="As JSON on one line: equal rules, equal bytes.")
@click.option("--draft", is_flag=True, help="The draft, not the active version.")
@click.option("--version", "number", type=Number(1), metavar="NUMBER", help="An earlier version.")
@online
def get(*, server: Server, pretty: bool, compact: bool, draft: bool, number: int | None, as_json: bool) -> int:
    """Print the active policy, as it was written."""
    if pretty and compact:
        raise click.UsageError("give --pretty or --compact, not both")
    if draft and number is not None:
        raise click.UsageError("give --draft or --version, not both")
    found = server.get("/v2/policy/draft") if draft else version(server, number)
    text = str(found["text" if draft else "source"])
    if pretty or compact:
        text = _printed(text, compact=compact)
    if as_json:
        print_json({name: value for name, value in found.items() if name != "source"} | {"text": text})
    else:
        click.echo(text, nl=not text.endswith("\n"))
    return Exit.FINE


@click.command()
@limit(20)
@online
def history(*, server: Server, limit: int, as_json: bool) -> int:
    """List deployments, newest first: active, rolling out, superseded or rejected."""
    rows, more = cut(server.pages("/v2/policy/deployments", limit=limit + 1), limit)
    if as_json:
        print_json({"data": rows, "more": more})
        return Exit.FINE
    table(
        ("VERSION", "HOW", "STATUS", "WHEN", "BY", "NOTE"),
        (
            (
                row["version"],
                row["kind"],
                STATES.get(row["status"], row["status"]),
                when(row["created_at"]),
                row["created_by"],
                row["note"],
            )
            for row in rows
        ),
        nothing="nothing was deployed yet",
    )
    say_more(more, limit)
    return Exit.FINE


def current(server: Server) -> dict[str, Any]:
    """The active deployment."""
    found = server.rows("/v2/policy/deployments", limit=1)
    if not found:
        raise CommandError("nothing was deployed yet")
    deployment: dict[str, Any] = found[0]
    return deployment


def version(server: Server, number: int | None = None) -> dict[str, Any]:
    """A version with its text; without ``number`` the active one."""
    wanted = current(server)["version"] if number is None else number
    found: dict[str, Any] = server.get(f"/v2/policy/versions/{wanted}")
    return found


def current_text(server: Server) -> str:
    """The text of the active version."""
    return str(version(server)["source"])


def _printed(text: str, *, compact: bool) -> str:
    parsed = parse(text.encode())
    if parsed.policy is None or any(finding.level == "error" for finding in parsed.findings):
        raise CommandError("this document has errors and can only be printed as it was written")
    return canonical(parsed.policy).decode() if compact else to_yaml(parsed.policy)

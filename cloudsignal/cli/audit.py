"""``cloudsignal audit``: what happened, searched and followed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from cloudsignal.cli import proofs, witness
from cloudsignal.cli.arguments import Duration, limit
from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import Exit, print_json
from cloudsignal.cli.server import Server, plain
from cloudsignal.cli.show import cut, say_more

EVERY = 2.0
"""Seconds between two looks."""
LATE = timedelta(seconds=60)
"""An edge may deliver events this much after they happened: each look goes back as far."""
Wanted = dict[str, str | None]

FILTERS = (
    click.option("--kind", help="Event kinds, separated by commas: acl_denied,auth_failed."),
    click.option("--username", help="The MQTT username."),
    click.option("--client-id", help="The MQTT client ID."),
    click.option("--topic-prefix", metavar="TOPIC", help="Beginning of the topic."),
    click.option("--action", type=click.Choice(["publish", "subscribe", "receive", "will"])),
    click.option("--rule", help="ID of the deciding rule, or none."),
    click.option("--reason", help="A reason code."),
    click.option("--ip", metavar="ADDRESS", help="The client's IP address."),
    click.option("--session", help="ID of an MQTT session."),
)


def filters(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that narrow a search."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """The audit log of an organization: search, follow, prove."""


for each in (proofs.key, proofs.pack, proofs.verify, proofs.verifier, witness.witness):
    audit.add_command(each)


@audit.command()
@filters
@click.option("--last", type=Duration(), metavar="TIME", help="Only the last 15m, 12h, 7d.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31T12:00:00Z.  [30 days ago]")
@click.option("--until", metavar="TIME", help="Before this time.")
@limit(50)
@online
def search(
    *, server: Server, last: int | None, since: str | None, until: str | None, limit: int, as_json: bool, **wanted: Any
) -> int:
    """Search, newest first."""
    if last is not None and since is not None:
        raise click.UsageError("give --last or --since, not both")
    if last is not None:
        since = (datetime.now(UTC) - timedelta(seconds=last)).isoformat()
    rows = server.pages("/v2/audit/events", limit=limit + 1, since=since, until=until, **wanted)
    found, more = cut(rows, limit)
    if as_json:
        print_json({"data": found, "more": more})
        return Exit.FINE
    for event in found:
        _show(event)
    if not found:
        click.echo("no results")
    say_more(more, limit)
    return Exit.FINE


@audit.command()
@filters
@limit(10)
@click.option("--for", "seconds", type=Duration(), metavar="TIME", help="Stop after this time.")
@online
def tail(*, server: Server, limit: int, seconds: int | None, as_json: bool, **wanted: Any) -> int:
    """Show the latest events, then every new one, until Ctrl-C. --json is one object a line."""
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    try:
        for event in _follow(server, wanted, limit, end):
            if as_json:
                click.echo(json.dumps(event))
            else:
                _show(event)
    except KeyboardInterrupt:
        pass
    return Exit.FINE


def _follow(server: Server, wanted: Wanted, first: int, end: float) -> Iterator[dict[str, Any]]:
    """The ``first`` latest events, oldest first, then what comes, each once. Our own clock is not asked."""
    found = list(server.pages("/v2/audit/events", limit=first, **wanted))[::-1]
    yield from found
    # Events older than the first look are shown above, or were not asked for.
    floor = _time(found[-1]) if found else None
    seen = {event["id"]: _time(event) for event in found}
    while time.monotonic() < end:
        time.sleep(max(0.0, min(EVERY, end - time.monotonic())))
        since = max(floor, max(seen.values()) - LATE) if floor else None
        asked = {"since": since.isoformat()} if since else {}
        found = list(server.pages("/v2/audit/events", limit=10_000, **asked, **wanted))[::-1]
        yield from (event for event in found if event["id"] not in seen)
        seen |= {event["id"]: _time(event) for event in found}
        floor = floor or (min(seen.values()) if seen else None)
        seen = {key: ts for key, ts in seen.items() if since is None or ts >= since}


def _time(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["ts"])


def _show(event: dict[str, Any]) -> None:
    """One event as a line: when, what, who, about what, and why."""
    who = event["actor"] or event["username"] or event["client_id"] or event["node"] or event["ip"] or ""
    of = event["username"] if event["actor"] else ""
    about = " ".join(str(part) for part in (event["action"], event["topic"] or event["target"], of) if part)
    why = f"rule {event['rule']}" if event["rule"] else event["reason"]
    parts = [event["ts"][:23].replace("T", " ") + "Z", f"{event['kind']:<18}", who, about, why or ""]
    click.echo("  ".join(plain(part) for part in parts if part))

"""``cloudsignal acl plan``, ``push`` and ``rollback``: what would change, and changing it on every node."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cloudsignal.cli.acl import count, read_file, read_policy
from cloudsignal.cli.arguments import YES, Number
from cloudsignal.cli.deployed import current, version
from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import CommandError, Exit, print_json
from cloudsignal.cli.server import RefusedError, Server, plain
from cloudsignal.cli.show import agree

LOOK = 0.25
"""Seconds between two looks at a deployment."""


def _read(_: click.Context, __: click.Parameter, file: Path) -> str:
    """The text of a valid policy file: what is wrong with it is said before anybody has to sign in."""
    document = read_file(file)
    read_policy(file, document)
    return document.decode()


DOCUMENT = click.argument(
    "text", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), callback=_read
)
NO_WIDER = click.option("--no-wider", is_flag=True, help="Fail when anything becomes allowed that is denied now.")
NOTE = click.option("--note", default="", help="Why; shown in the history.")
TIMEOUT = click.option(
    "--timeout", type=Number(1, 3600), default=60, show_default=True, help="Seconds to wait for the nodes."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A document compared with the active version."""

    text: str
    over: dict[str, Any]
    """The active deployment."""
    draft: dict[str, Any]
    unsaved: bool
    """Whether the draft holds work of somebody that was never deployed, which pushing replaces."""
    same: bool
    """Whether the document equals the active version, to the letter."""
    checked: dict[str, Any]
    change: dict[str, Any] | None
    """The comparison by meaning; None when the document has errors."""

    @property
    def deployable(self) -> bool:
        """Whether the document has no errors and every test in it passes."""
        return bool(self.checked["deployable"])

    @property
    def wider(self) -> bool:
        """Whether the change allows anything new, or that could not be ruled out."""
        return self.change is not None and (bool(self.change["widened"]) or not self.change["complete"])

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "in_force": {"version": self.over["version"], "deployment": self.over["id"], "digest": self.over["digest"]},
            "same": self.same,
            "deployable": self.deployable,
            "wider": self.wider,
            "replaces_draft_of": self.draft["updated_by"] if self.unsaved else None,
            "digest": self.checked["digest"],
            "findings": self.checked["findings"],
            "tests": self.checked["tests"],
            "change": self.change,
        }


@click.command()
@DOCUMENT
@NO_WIDER
@online
def plan(*, server: Server, text: str, no_wider: bool, as_json: bool) -> int:
    """Check FILE on the server and show what deploying it would change. Changes nothing.

    Exit code 1 when it could not be deployed: errors, failing tests, or more allowed under --no-wider.
    """
    found = _plan(server, text)
    if as_json:
        print_json(found.data())
    else:
        _show(found)
    return _verdict(found, no_wider=no_wider)


@click.command()
@DOCUMENT
@YES
@NO_WIDER
@NOTE
@TIMEOUT
@online
def push(
    *, server: Server, text: str, yes: bool, no_wider: bool, note: str, timeout: int, as_json: bool
) -> int:  # fmt: skip
    """Deploy FILE: show what changes, ask, and wait until every node enforces it.

    Nothing is deployed when a test in it fails, when --no-wider is given and it allows more, or when somebody else
    saved the draft or deployed in the meantime (exit code 1).
    """
    found = _plan(server, text)
    if not as_json:
        _show(found)
    if code := _verdict(found, no_wider=no_wider):
        return _end(found, as_json, code)
    if found.same:
        return _end(found, as_json, Exit.FINE)
    if as_json and not yes:
        raise click.UsageError("--json asks nothing; give --yes")
    if not agree("Deploy this to every node?", yes=yes):
        return Exit.FAILED
    saved = server.send("PUT", "/v2/policy/draft", {"text": found.text}, if_match=found.draft["etag"])
    body = {"note": note, "over": found.over["id"]}
    made = server.send("POST", "/v2/policy/deployments", body, if_match=saved.etag).body
    return _finish(server, made, timeout, as_json=as_json, before=found.data())


@click.command()
@click.argument("number", metavar="VERSION", type=Number(1, 2**31 - 1))
@YES
@NO_WIDER
@NOTE
@TIMEOUT
@online
def rollback(
    *, server: Server, number: int, yes: bool, no_wider: bool, note: str, timeout: int, as_json: bool
) -> int:  # fmt: skip
    """Activate an earlier VERSION again: show what changes, ask, and wait for every node."""
    over = current(server)
    change = server.post("/v2/policy/diff", {"new_version": number})
    if not as_json:
        click.echo(f"version {number} over version {over['version']}, the active one", err=True)
        _show_change(change)
    if no_wider and (change["widened"] or not change["complete"]):
        click.echo("nothing was deployed: it allows more than the active version (--no-wider)", err=True)
        return Exit.FAILED
    if as_json and not yes:
        raise click.UsageError("--json asks nothing; give --yes")
    if not agree(f"Activate version {number} on every node?", yes=yes):
        return Exit.FAILED
    made = server.post("/v2/policy/rollback", {"version": number, "note": note, "over": over["id"]})
    return _finish(server, made, timeout, as_json=as_json, before={"change": change})


def _plan(server: Server, text: str) -> Plan:
    over = current(server)
    deployed = version(server, over["version"])
    draft = server.get("/v2/policy/draft")
    checked = server.post("/v2/policy/validate", {"text": text})
    change = server.post("/v2/policy/diff", {"new_text": text}) if checked["digest"] else None
    unsaved = draft["text"] not in {deployed["source"], text}
    return Plan(text, over, draft, unsaved, deployed["source"] == text, checked, change)


def _verdict(found: Plan, *, no_wider: bool) -> Exit:
    if not found.deployable:
        click.echo("it cannot be deployed", err=True)
        return Exit.FAILED
    if no_wider and found.wider:
        click.echo("it allows more than the active version (--no-wider)", err=True)
        return Exit.FAILED
    return Exit.FINE


def _show(found: Plan) -> None:
    over = found.over
    if found.same:
        click.echo(f"this is version {over['version']}, the active one: nothing to do")
        return
    tests = found.checked["tests"]
    failed = [test for test in tests if not test["passed"]]
    click.echo(f"{count(found.checked['rules'], 'rule')}, {count(len(tests), 'test')}, {len(failed)} failed")
    for finding in found.checked["findings"]:
        click.echo(plain(f"  {finding['level']}: {finding['path']} - {finding['message']} (line {finding['line']})"))
    for test in failed:
        click.secho(f"  FAIL  {plain(test['name'])}: {plain(test['message'])}", fg="red")
    if found.unsaved:
        by = plain(found.draft["updated_by"])
        click.secho(f"  the draft holds changes of {by} that were never deployed; pushing replaces them", fg="yellow")
    click.echo(f"against version {over['version']}, the active one:")
    if found.change is not None:
        _show_change(found.change)


def _show_change(change: dict[str, Any]) -> None:
    if change["relation"] == "equivalent":
        click.echo("  nothing becomes allowed or denied")
    _show_regions("+ allowed now", "yellow", change["widened"])
    _show_regions("- denied now", "cyan", change["narrowed"])
    if not change["complete"]:
        click.secho("  the comparison was stopped early; there may be more", fg="yellow")


def _show_regions(title: str, color: str, regions: Sequence[dict[str, Any]]) -> None:
    verbs = {"pub": "publish to", "sub": "subscribe to"}
    for each in regions:
        limit = f" ({each['limit']})" if each["limit"] else ""
        click.secho(f"  {title}: ", fg=color, nl=False)
        click.echo(plain(f"{each['who']}: {verbs.get(each['action'], each['action'])} {each['filter']}{limit}"))
        witness = f"{each['witness_username'] or 'anybody'} on {each['witness_topic']}"
        now, then = (f"rule {name}" if name else "no rule" for name in (each["old_rule"], each["new_rule"]))
        click.echo(plain(f"      by {now} so far, then by {then}; for example {witness}"))


def _end(found: Plan, as_json: bool, code: Exit) -> Exit:
    if as_json:
        print_json({"plan": found.data(), "deployment": None, "nodes": []})
    return code


def _finish(server: Server, made: dict[str, Any], timeout: int, *, as_json: bool, before: dict[str, Any]) -> Exit:
    """Wait for the nodes and print the outcome."""
    progress = _await(server, made, timeout, quiet=as_json)
    code, words = _outcome(progress, timeout)
    if as_json:
        print_json({"plan": before, "deployment": progress["deployment"], "nodes": progress["nodes"]})
    for node in () if as_json else progress["nodes"]:
        took = f"{node['seconds'] * 1000:.0f} ms" if node["seconds"] is not None else ""
        state = node["status"] if node["online"] else f"{node['status']}, offline"
        click.echo(plain(f"  {node['node']:<24} {state:<20} {took}{node['reason']}").rstrip())
    click.echo(f"version {made['version']} {words}", err=code is not Exit.FINE or as_json)
    return code


def _await(server: Server, made: dict[str, Any], timeout: int, *, quiet: bool) -> dict[str, Any]:
    end = time.monotonic() + timeout
    progress: dict[str, Any] = _look(server, made) or {"deployment": made, "finished": False, "nodes": []}
    drawn = not quiet and sys.stderr.isatty()
    total = max(1, len(progress["nodes"]))
    with click.progressbar(length=total, label="nodes", file=sys.stderr) if drawn else nullcontext() as bar:
        shown = 0
        while True:
            enforcing = sum(node["status"] == "enforcing" for node in progress["nodes"])
            if bar is not None:
                bar.update(enforcing - shown)
                shown = enforcing
            if progress["finished"] or not progress["nodes"] or time.monotonic() > end:
                return progress
            time.sleep(LOOK)
            progress = _look(server, made) or progress


def _look(server: Server, made: dict[str, Any]) -> dict[str, Any] | None:
    """Fetch the deployment's progress, retrying failures, because it is already deployed."""
    try:
        found: dict[str, Any] = server.get(f"/v2/policy/deployments/{made['id']}")
    except CommandError as error:
        if error.code is Exit.SERVER and not (isinstance(error, RefusedError) and error.status == 429):
            return None
        raise
    return found


def _outcome(progress: dict[str, Any], timeout: int) -> tuple[Exit, str]:
    nodes, status = progress["nodes"], progress["deployment"]["status"]
    waiting = [node for node in nodes if node["status"] == "pending" and node["online"]]
    refused = [node for node in nodes if node["status"] == "refused"]
    if status == "superseded":
        return Exit.FAILED, "was superseded: another one was deployed in the meantime"
    if refused:
        return Exit.FAILED, f"was rejected by {count(len(refused), 'node')}"
    if not any(node["online"] or node["status"] == "enforcing" for node in nodes):
        return Exit.SERVER, "is deployed, but no node is online to enforce it"
    if waiting:
        return Exit.SERVER, f"is deployed, but {count(len(waiting), 'node')} did not acknowledge it within {timeout} s"
    silent = sum(not node["online"] for node in nodes)
    there = count(sum(node["status"] == "enforcing" and node["online"] for node in nodes), "node")
    unknown = f"; {count(silent, 'node')} offline, so what they enforce is not known" if silent else ""
    return Exit.FINE, f"is active on {there}{unknown}"

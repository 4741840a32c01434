"""``cloudsignal acl``: work on policy files. Nothing here needs a server: it runs the code of the edge."""

from __future__ import annotations

import difflib
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from acl.policy import (
    MAX_DOCUMENT_BYTES,
    Explanation,
    Finding,
    Identity,
    Outcome,
    Policy,
    Request,
    digest,
    explain,
    lint,
    parse,
    run_tests,
    to_yaml,
)
from acl.policy.engine.model import ClaimValue
from acl.policy.engine.templates import variables
from acl.policy.engine.topics import MAX_LEVELS
from cloudsignal.cli.arguments import CLAIM, Number, claims_of
from cloudsignal.cli.group import LazyGroup
from cloudsignal.cli.outcome import CommandError, Exit, json_option, print_json
from cloudsignal.config import Environment

ORG = "org_aaaaaaaaaaaa"
"""Stands for ``{org}`` where no organization is named."""

FILE = click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
ORG_OPTION = click.option("--org", default=ORG, show_default=True, help="The organization that {org} stands for.")


ONLINE = {
    "get": "cloudsignal.cli.deployed:get",
    "plan": "cloudsignal.cli.push:plan",
    "push": "cloudsignal.cli.push:push",
    "history": "cloudsignal.cli.deployed:history",
    "rollback": "cloudsignal.cli.push:rollback",
}


@click.group(cls=LazyGroup, sections={"On a server": ONLINE, "On files": {}}, aliases={"pull": "get", "update": "push"})
def acl() -> None:
    """Access rules: work on policy files, deploy them, read the active version."""


@acl.command()
@FILE
@click.option("--local-only", is_flag=True, help="Do not ask the server.")
@json_option
def validate(*, file: Path, local_only: bool, as_json: bool) -> int:
    """Check a policy FILE (YAML or JSON; - reads standard input).

    Each finding is one line, FILE:LINE:COLUMN. Exit code 1 when there are errors; warnings alone are fine.
    When you are signed in, the server checks it too.
    """
    document = read_file(file)
    parsed = parse(document, filename=str(file))
    errors = sum(finding.level == "error" for finding in parsed.findings)
    if not errors and not local_only:
        errors = _errors_there(file, document)
    found_here = (*parsed.findings, *lint(parsed, now=datetime.now(UTC), levels=_levels()))
    if as_json:
        names = ("level", "path", "message", "code", "line", "column")
        findings = [{name: getattr(finding, name) for name in names} for finding in found_here]
        found = digest(parsed.policy) if parsed.policy else None
        print_json({"valid": not errors, "digest": found, "findings": findings})
        return Exit.FAILED if errors else Exit.FINE
    show_findings(file, found_here)
    if parsed.policy is not None and not errors:
        rules, tests = len(parsed.policy.rules), len(parsed.policy.tests)
        click.echo(f"{file}: valid, {count(rules, 'rule')}, {count(tests, 'test')}, {digest(parsed.policy)}")
        return Exit.FINE
    return Exit.FAILED


@acl.command()
@FILE
@ORG_OPTION
@json_option
def test(*, file: Path, org: str, as_json: bool) -> int:
    """Run the tests inside a policy FILE. Exit code 1 when one fails."""
    outcomes = run_tests(read_policy(file), org=org, now=datetime.now(UTC))
    failed = sum(not outcome.passed for outcome in outcomes)
    if as_json:
        tests = [{"name": one.name, "passed": one.passed, "message": one.message} for one in outcomes]
        print_json({"passed": not failed, "tests": tests})
        return Exit.FAILED if failed else Exit.FINE
    for outcome in outcomes:
        click.echo(f"{'pass' if outcome.passed else 'FAIL'}  {outcome.name}")
        if not outcome.passed:
            click.echo(f"      {outcome.message}")
    click.echo(f"{count(len(outcomes), 'test')}, {failed} failed" if outcomes else f"{file} carries no tests")
    return Exit.FAILED if failed else Exit.FINE


@acl.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), required=False)
@click.option("--as", "username", required=True, metavar="NAME", help="The client: a username, without @org.")
@click.option("--pub", metavar="TOPIC", help="May NAME publish to TOPIC?")
@click.option("--sub", metavar="FILTER", help="May NAME subscribe to FILTER?")
@click.option("--receive", metavar="TOPIC", help="Would a message on TOPIC be delivered to NAME?")
@click.option("--client-id", default="", help="Client ID of the connection.")
@CLAIM
@click.option("--qos", type=Number(0, 2), default=0, show_default=True)
@click.option("--retain", is_flag=True, help="Publish as a retained message.")
@click.option("--rules", is_flag=True, help="Explain for every rule why it did or did not decide.")
@click.option("--org", help=f"The organization that {{org}} stands for.  [with FILE: {ORG}, else yours]")
@json_option
def simulate(
    *,
    file: Path | None,
    username: str,
    pub: str | None,
    sub: str | None,
    receive: str | None,
    client_id: str,
    claims: tuple[str, ...],
    qos: int,
    retain: bool,
    rules: bool,
    org: str | None,
    as_json: bool,
) -> int:
    """Simulate one request on a policy FILE. Exit code 0 when the answer is allow, 1 when it is deny.

    Without FILE the active version on the server is asked. Without --claim a known NAME has the claims that the
    server stores.
    """
    asked: list[tuple[Literal["pub", "sub", "receive"], str]] = []
    asked += [("pub", pub)] if pub is not None else []
    asked += [("sub", sub)] if sub is not None else []
    asked += [("receive", receive)] if receive is not None else []
    if len(asked) != 1:
        raise click.UsageError("give exactly one of --pub, --sub and --receive")
    action, topic = asked[0]
    policy, home = (read_policy(file), ORG) if file else _in_force()
    carried, note = (claims_of(claims), "") if claims else _stored_claims(username, policy)
    if note:
        click.echo(note, err=True)
    identity = Identity(org or home, username, client_id, carried)
    request = Request(identity, action, topic, qos, retain)
    explanation = explain(policy, request, now=datetime.now(UTC), levels=_levels())
    if as_json:
        print_json(_explanation(explanation))
    else:
        _show_explanation(explanation, every_rule=rules)
    return Exit.FINE if explanation.decision.allowed else Exit.FAILED


@acl.command()
@click.argument("old", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--exit-code", is_flag=True, help="Exit with 1 when the two differ.")
@json_option
def diff(*, old: Path, new: Path, exit_code: bool, as_json: bool) -> int:
    """Compare two policy files, OLD and NEW, by what they say: order of keys, comments and layout do not count."""
    one, other = read_policy(old), read_policy(new)
    equal = digest(one) == digest(other)
    lines = list(
        difflib.unified_diff(to_yaml(one).splitlines(), to_yaml(other).splitlines(), str(old), str(new), lineterm="")
    )
    if as_json:
        print_json({"equal": equal, "old": digest(one), "new": digest(other), "lines": lines})
    elif equal:
        click.echo(f"the same policy, {digest(one)}")
    else:
        colors = {"+": "green", "-": "red", "@": "cyan"}
        for line in lines:
            click.secho(line, fg=colors.get(line[:1]))
    return Exit.FAILED if exit_code and not equal else Exit.FINE


def _levels() -> int:
    """The edges' limit on topics, as far as this machine's environment says it."""
    return Environment().number("EDGE_TOPIC_LEVELS", MAX_LEVELS, low=1, high=MAX_LEVELS)


def read_file(file: Path) -> bytes:
    """The file's bytes, one more than a document may have at most."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        with file.open("rb") as handle:
            return handle.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from None


def read_policy(file: Path, document: bytes | None = None) -> Policy:
    """The policy in ``file`` (or in what was read of it); shows the findings and fails when it has errors."""
    parsed = parse(read_file(file) if document is None else document, filename=str(file))
    if parsed.policy is None or any(finding.level == "error" for finding in parsed.findings):
        show_findings(file, parsed.findings)
        raise CommandError(f"{file} is not a valid policy")
    return parsed.policy


def _errors_there(file: Path, document: bytes) -> int:
    """The number of errors that the server, which may be newer, finds; none when it cannot be asked."""
    from cloudsignal.cli.online import default_server
    from cloudsignal.cli.server import plain

    try:
        server = default_server()
        if server is None:
            return 0
        with server:
            found = server.post("/v2/policy/validate", {"text": document.decode()})
    except CommandError as error:
        click.echo(f"checked here only; the server was not asked: {error}", err=True)
        return 0
    errors = [each for each in found["findings"] if each["level"] == "error"]
    for each in errors:
        text = f"{each['level']}: {each['path']} - {each['message']} (found by {server.url})"
        click.echo(f"{file}:{each['line']}:{each['column']}: {plain(text)}", err=True)
    return len(errors)


def _in_force() -> tuple[Policy, str]:
    """The active policy on the server, and its organization."""
    from cloudsignal.cli.deployed import current_text
    from cloudsignal.cli.online import NOT_SIGNED_IN, default_server

    server = default_server()
    if server is None:
        raise CommandError(f"give a FILE, or sign in to ask the active version: {NOT_SIGNED_IN}", Exit.REFUSED)
    with server:
        text, org = current_text(server), server.get("/v2/me")["organization_id"]
    parsed = parse(text.encode())
    if parsed.policy is None:
        raise CommandError("the active version cannot be read by this version of the program; upgrade it", Exit.SERVER)
    return parsed.policy, org


def _stored_claims(username: str, policy: Policy) -> tuple[dict[str, ClaimValue], str]:
    """The claims that the server stores for ``username``, and what there is to say about them."""
    from cloudsignal.cli.online import default_server
    from cloudsignal.cli.server import plain

    asks = any(rule.who.claims or any(name.startswith("claims.") for name in variables(rule)) for rule in policy.rules)
    if not asks:
        return {}, ""
    unknown = f"no claims of {username} are known; give --claim NAME=VALUE where rules ask for one"
    try:
        server = default_server()
        if server is None:
            return {}, unknown
        with server:
            question = {"text": "", "username": username, "action": "pub", "topic": "a"}
            found = server.post("/v2/policy/simulate", question)
    except CommandError as error:
        return {}, f"{unknown} ({error})"
    if found["claims_source"] != "stored":
        return {}, unknown
    told = ", ".join(f"{name}={value}" for name, value in found["claims"].items()) or "none"
    return found["claims"], plain(f"with the stored claims of {username}: {told}")


def show_findings(file: Path, findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        click.echo(f"{file}:{finding.line}:{finding.column}: {finding}", err=True)


def _show_explanation(explanation: Explanation, *, every_rule: bool) -> None:
    decision = explanation.decision
    click.secho(decision.effect.value, fg="green" if decision.allowed else "red", nl=False)
    click.echo(f"  rule {decision.rule or 'none'}: {decision.reason}")
    if decision.valid_until:
        click.echo(f"  holds until {decision.valid_until.isoformat()}")
    for rule in explanation.rules:
        if every_rule or rule.outcome in {Outcome.NEAR_MISS, Outcome.TAKES_PART}:
            click.echo(f"  {rule.index:>4}  {rule.rule:<24} {rule.effect.value:<5}  {rule.outcome.value}: {rule.why}")


def _explanation(explanation: Explanation) -> dict[str, object]:
    decision = explanation.decision
    return {
        "allowed": decision.allowed,
        "rule": decision.rule or "none",
        "reason": decision.reason,
        "qos": decision.qos,
        "holes": list(decision.holes),
        "partial_holes": list(decision.partial),
        "valid_until": decision.valid_until,
        "near_misses": [asdict(miss) for miss in decision.near_misses],
        "rules": [asdict(rule) for rule in explanation.rules],
    }


def count(number: int, noun: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

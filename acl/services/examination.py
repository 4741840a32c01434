"""Looking at policy documents without storing anything: may it be deployed, and how does it stand to another one."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone

from acl.access import current_deployment, get_draft, get_version
from acl.policy import (
    EMPTY_POLICY,
    Finding,
    Policy,
    PolicyDiff,
    TestOutcome,
    diff,
    digest,
    from_canonical,
    is_quick,
    lint,
    parse,
    run_tests,
)
from acl.services.policies import check_size
from cloudsignal.errors import Detail, Invalid
from orgs.access import Access
from orgs.permissions import Permission


@dataclass(frozen=True, slots=True)
class Examination:
    """What there is to say about a document."""

    deployable: bool
    """No errors, and every test in it passes."""
    digest: str | None
    rules: int
    findings: tuple[Finding, ...]
    tests: tuple[TestOutcome, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a text, a version by number, or neither for the default of that side."""

    text: str | None = None
    version: int | None = None


def examine(text: str, *, org: str) -> Examination:
    """Parse ``text``, look for warnings where that is quick, and run its tests.

    Raises :class:`Invalid` only when it is too large to look at.
    """
    check_size(text)
    parsed = parse(text)
    errors = any(finding.level == "error" for finding in parsed.findings)
    if parsed.policy is None or errors:
        return Examination(False, None, 0, tuple(parsed.findings), ())
    policy, now = parsed.policy, timezone.now()
    warnings = lint(parsed, now=now) if is_quick(policy) else ()
    outcomes = tuple(run_tests(policy, org=org, now=now))
    passed = all(outcome.passed for outcome in outcomes)
    return Examination(passed, digest(policy), len(policy.rules), (*parsed.findings, *warnings), outcomes)


def compare(access: Access, old: Side, new: Side) -> PolicyDiff:
    """How ``new`` (default: the draft) stands to ``old`` (default: what is in force), by meaning.

    Raises :class:`Invalid` with the findings when a document has errors, and ``NotFound`` for an unknown version.
    """
    access.require(Permission.POLICY_SIMULATE)
    before = _policy(_text(access, old, "old"), "old_text") if old != Side() else _in_force(access)
    after = _policy(_text(access, new, "new") if new != Side() else get_draft(access).text, "new_text")
    return diff(before, after, now=timezone.now())


def _text(access: Access, side: Side, name: str) -> str:
    if side.text is not None and side.version is not None:
        raise Invalid("two_sources", f"Give {name}_text or {name}_version, not both.", field=f"{name}_version")
    if side.version is not None:
        return get_version(access, side.version).source
    return side.text or ""


def _in_force(access: Access) -> Policy:
    current = current_deployment(access)
    return from_canonical(bytes(current.version.document)) if current else EMPTY_POLICY


def _policy(text: str, field: str) -> Policy:
    check_size(text)
    parsed = parse(text)
    errors = [finding for finding in parsed.findings if finding.level == "error"]
    if parsed.policy is None or errors:
        details = [Detail(f"{each.path} - {each.message}", each.path, each.line) for each in errors]
        raise Invalid("policy_invalid", "The document has errors; it cannot be compared.", field=field, details=details)
    return parsed.policy

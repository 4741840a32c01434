"""From text to something that may be deployed: parsed without errors, and its own tests pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from acl.policy import Policy, TestOutcome, canonical, digest, parse, run_tests
from cloudsignal.errors import Detail, Invalid

TEXT_MAX = 1024 * 1024
"""Bytes of a policy document."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy fit for deployment."""

    policy: Policy
    document: bytes
    """Canonical JSON."""
    digest: str
    tests: tuple[TestOutcome, ...]


def check_size(text: str) -> None:
    """Raise :class:`Invalid` when ``text`` is too large or cannot be stored."""
    if len(text) > TEXT_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX:
        raise Invalid("policy_too_large", "A policy document has at most 1 MiB.", field="text")
    if "\0" in text or not _is_unicode(text):
        raise Invalid("policy_not_text", "The document contains NUL or is not valid Unicode.", field="text")


def check_policy(text: str, *, org: str) -> Checked:
    """Parse ``text`` and run its tests. Raises :class:`Invalid` with every error, or with every failing test."""
    check_size(text)
    parsed = parse(text)
    errors = [finding for finding in parsed.findings if finding.level == "error"]
    if parsed.policy is None or errors:
        details = [Detail(f"{finding.path} - {finding.message}", finding.path, finding.line or 0) for finding in errors]
        raise Invalid(
            "policy_invalid", f"The policy has {_count(errors, 'error')}; nothing was deployed.", details=details
        )
    outcomes = tuple(run_tests(parsed.policy, org=org, now=timezone.now()))
    failing = [outcome for outcome in outcomes if not outcome.passed]
    if failing:
        raise Invalid(
            "policy_tests_failed",
            f"{_count(failing, 'test')} in the policy failed; nothing was deployed.",
            details=[Detail(f"{outcome.name}: {outcome.message}") for outcome in failing],
        )
    return Checked(parsed.policy, canonical(parsed.policy), digest(parsed.policy), outcomes)


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

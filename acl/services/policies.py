"""From text to something that may be deployed: parsed without errors, and its own tests pass."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils import timezone

from acl import bench, examining
from acl.examining import Checked
from cloudsignal.errors import Detail, Invalid

TEXT_MAX = 1024 * 1024
"""Bytes of a policy document."""


def check_size(text: str) -> None:
    """Raise :class:`Invalid` when ``text`` is too large or cannot be stored."""
    if len(text) > TEXT_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX:
        raise Invalid("policy_too_large", "A policy document has at most 1 MiB.", field="text")
    if "\0" in text or not _is_unicode(text):
        raise Invalid("policy_not_text", "The document contains NUL or is not valid Unicode.", field="text")


def check_policy(text: str, *, org: str) -> Checked:
    """Parse ``text`` and run its tests. Raises :class:`Invalid` with every error, or with every failing test."""
    check_size(text)
    return _fit(bench.run(org, examining.check, text, org=org, now=timezone.now()))


def check_known_policy(text: str, *, org: str) -> Checked:
    """The same of a text of ours, here and now."""
    return _fit(examining.check(text, org=org, now=timezone.now()))


def _fit(checked: Checked) -> Checked:
    errors = checked.errors
    if errors:
        details = [Detail(f"{finding.path} - {finding.message}", finding.path, finding.line) for finding in errors]
        message = f"The policy has {_count(errors, 'error')}; nothing was deployed."
        raise Invalid("policy_invalid", message, details=details)
    failing = [outcome for outcome in checked.tests if not outcome.passed]
    if failing:
        raise Invalid(
            "policy_tests_failed",
            f"{_count(failing, 'test')} in the policy failed; nothing was deployed.",
            details=[Detail(f"{outcome.name}: {outcome.message}") for outcome in failing],
        )
    return checked


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

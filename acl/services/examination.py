"""Examine policy documents without storing anything; used by pages, API, CLI and deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils import timezone

from acl import bench, examining
from acl.access import current_deployment, get_draft, get_version
from acl.examining import Examined, Review, Unreadable
from acl.models import PolicyVersion
from acl.policy import EMPTY_POLICY, MAX_DOCUMENT_BYTES, Finding, PolicyDiff, canonical
from cloudsignal.errors import Detail, Invalid, Limit
from orgs.access.grants import Access
from orgs.permissions import Permission

NAGS = 1024
_nags: dict[str, tuple[Finding | None]] = {}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a text, a version by number, or neither for the default of that side."""

    text: str | None = None
    version: int | None = None


def examine(access: Access, text: str) -> Examined:
    """Parse ``text``, look for warnings where that is quick, and run its tests.

    Raises :class:`Invalid` when it is too large to look at, and :class:`Limit` when too many are being looked at.
    """
    _may_examine(access, text)
    return bench.run(access.org_id, examining.examine, text, **_whose(access))


def validate(access: Access, text: str) -> bytes:
    """Examine ``text`` and return the API's JSON answer. Raises as :func:`examine` does."""
    _may_examine(access, text)
    return bench.run(access.org_id, examining.validation, text, **_whose(access))


def _whose(access: Access) -> dict[str, Any]:
    """For whom and when a text is examined, and the levels that the edges take."""
    return {"org": access.org_id, "now": timezone.now(), "levels": settings.TOPIC_LEVELS}


def examine_to_deploy(org_id: str, text: str, *, ours: bool = False) -> Examined:
    """Examine ``text`` for deployment, with its canonical form. Raises :class:`Invalid` for errors and failing tests.

    For services that have asked for a permission of their own. A text of ``ours`` is looked at here and now, without
    the limits on what tenants write.
    """
    if ours:
        found = examining.examine(text, org=org_id, now=timezone.now(), to_deploy=True)
    else:
        check_size(text)
        found = bench.run(org_id, examining.examine, text, org=org_id, now=timezone.now(), to_deploy=True)
    if not found.is_policy:
        message = f"The policy has {_count(found.errors, 'error')}; nothing was deployed."
        raise Invalid("policy_invalid", message, details=_details(found.errors))
    if found.failing:
        raise Invalid(
            "policy_tests_failed",
            f"{_count(found.failing, 'test')} in the policy failed; nothing was deployed.",
            details=[Detail(f"{outcome.name}: {outcome.message}") for outcome in found.failing],
        )
    return found


def check_size(text: str) -> None:
    """Raise :class:`Invalid` when ``text`` is too large or cannot be stored."""
    if len(text) > MAX_DOCUMENT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        raise Invalid("policy_too_large", "A policy document has at most 1 MiB.", field="text")
    if "\0" in text or not _is_unicode(text):
        raise Invalid("policy_not_text", "The document contains NUL or is not valid Unicode.", field="text")


def review(access: Access, before: str, after: str) -> Review:
    """Examine ``after`` and compare it with ``before``. Raises as :func:`examine` does."""
    access.require(Permission.ORG_READ)
    return bench.run(access.org_id, examining.review, before, after, **_whose(access))


def compare(access: Access, old: Side, new: Side) -> PolicyDiff:
    """Compare ``new`` (default: the draft) with ``old`` (default: the active version) by meaning.

    Raises :class:`Invalid` with the findings when a document has errors, and ``NotFound`` for an unknown version.
    """
    access.require(Permission.POLICY_SIMULATE)
    before: str | bytes = _text(access, old, "old") if old != Side() else _in_force(access)
    after = _text(access, new, "new") if new != Side() else get_draft(access).text
    check_size(after)
    found = bench.run(access.org_id, examining.compare, before, after, now=timezone.now())
    if isinstance(found, Unreadable):
        message = "The document has errors; it cannot be compared."
        raise Invalid("policy_invalid", message, field=f"{found.side}_text", details=_details(found.errors))
    return found


def permits_all(access: Access, version: PolicyVersion) -> Finding | None:
    """The warning about a rule of ``version`` that allows every client everything; None also when it is unknown.

    Remembered for an hour at most, because such a rule may end.
    """
    key = f"permits-all:{version.pk}:{timezone.now():%Y%m%d%H}"
    found: tuple[Finding | None] | None = _nags.get(key)
    if found is None:
        try:
            found = (bench.run(access.org_id, examining.permits_all, version.source, now=timezone.now()),)
        except (Limit, Invalid):
            return None
        while len(_nags) >= NAGS:
            _nags.pop(next(iter(_nags)), None)
        _nags[key] = found
    return found[0]


def count_rules(access: Access, *texts: str) -> list[int]:
    """How many rules there are in each of ``texts``. Raises as :func:`examine` does."""
    access.require(Permission.ORG_READ)
    return bench.run(access.org_id, examining.count_rules, *texts)


def _may_examine(access: Access, text: str) -> None:
    if not access.may(Permission.POLICY_SIMULATE):  # a key that checks documents in CI holds no more than that
        access.require(Permission.ORG_READ)
    check_size(text)


def _details(errors: Sequence[Finding]) -> list[Detail]:
    return [Detail(f"{each.path} - {each.message}", each.path, each.line) for each in errors]


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(access: Access, side: Side, name: str) -> str:
    if side.text is not None and side.version is not None:
        raise Invalid("two_sources", f"Give {name}_text or {name}_version, not both.", field=f"{name}_version")
    if side.version is not None:
        return get_version(access, side.version).source
    check_size(side.text or "")
    return side.text or ""


def _in_force(access: Access) -> bytes:
    current = current_deployment(access)
    return bytes(current.version.document) if current else canonical(EMPTY_POLICY)

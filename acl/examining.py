"""Examine a policy text for pages and API: findings, tests, comparison, and the verdict rule by rule.

Pure, and called through ``acl.bench``: what is returned is no larger than what is shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from acl.policy import (
    EMPTY_POLICY,
    NO_RULE,
    Decision,
    Explanation,
    Finding,
    Outcome,
    Parsed,
    PolicyDiff,
    Region,
    Request,
    TestOutcome,
    canonical,
    diff,
    digest,
    exceptions,
    explain,
    from_canonical,
    is_quick,
    lint,
    parse,
    run_tests,
    suggest,
)
from acl.policy.engine.topics import MAX_LEVELS, too_deep

ACTION_WORDS = {"pub": "publish", "sub": "subscribe", "receive": "receive"}
NAGGED_BYTES = 256 * 1024
SUGGESTED_REGIONS = 4
RULES_SHOWN = 200
"""Rules listed under a verdict; of a longer policy those that have a part in it come first."""


LISTED = 200
"""Findings that a page lists, and tests; of more, errors and tests that fail come first."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A parsed policy text with its findings, and the results of its tests when it has no errors."""

    findings: tuple[Finding, ...]
    """Errors and warnings, in the order of the text."""
    tests: tuple[TestOutcome, ...]
    is_policy: bool
    rules: int
    """How many there are; 0 when the text is not a policy."""
    unlinted: bool
    """Whether there are too many topics to look for warnings here."""
    digest: str | None
    """Of the canonical form; None when the text is not a policy."""
    document: bytes = b""
    """The canonical form, for a deployment."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def failing(self) -> list[TestOutcome]:
        """The tests that do not pass."""
        return [test for test in self.tests if not test.passed]

    @property
    def listed_findings(self) -> list[Finding]:
        """The findings that a page shows."""
        return [*self.errors, *self.warnings][:LISTED] if self.unlisted_findings else list(self.findings)

    @property
    def unlisted_findings(self) -> int:
        """The number of findings that a page does not show."""
        return max(0, len(self.findings) - LISTED)

    @property
    def listed_tests(self) -> list[TestOutcome]:
        """The test results that a page shows."""
        return sorted(self.tests, key=lambda test: test.passed)[:LISTED] if self.unlisted_tests else list(self.tests)

    @property
    def unlisted_tests(self) -> int:
        """The number of test results that a page does not show."""
        return max(0, len(self.tests) - LISTED)

    @property
    def deployable(self) -> bool:
        """Whether a deployment would be accepted."""
        return self.is_policy and not self.errors and not self.failing


@dataclass(frozen=True, slots=True)
class Suggested:
    """A change that would allow a denied request, with what else it would allow and deny."""

    title: str
    widened: tuple[Region, ...]
    narrowed: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule's part in a verdict, with the line of the text it stands on (0 when unknown)."""

    number: int
    rule: str
    line: int
    effect: str
    outcome: str
    tone: str
    why: str

    @property
    def index(self) -> int:
        """The number, counted from 0."""
        return self.number - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """An explanation as the simulator shows it: ``rules`` are those of it that are listed."""

    request: Request
    decision: Decision
    tone: str
    word: str
    shape: str
    line: int
    rules: list[RuleLine]
    hidden: int
    """Rules that are not listed."""
    suggestions: tuple[Suggested, ...]

    @property
    def action(self) -> str:
        """The action in a word."""
        return ACTION_WORDS[self.request.action]

    @property
    def by_default(self) -> bool:
        """Whether the verdict is the default denial without a near miss."""
        return self.decision.reason == NO_RULE

    @property
    def shown_reason(self) -> str:
        """The reason, without what the name of the deciding rule already says."""
        return exceptions(self.decision.holes, self.decision.partial)


def examine(text: str, *, org: str, now: datetime, levels: int = MAX_LEVELS, to_deploy: bool = False) -> Examined:
    """Parse ``text`` and, when it is a policy, look for warnings and run its tests as identities of ``org``.

    ``levels`` is the edge's limit on topics (``EDGE_TOPIC_LEVELS``).
    ``to_deploy`` asks for the canonical document instead of the warnings: they stop nothing, and take longest.
    """
    return _examined(parse(text), org=org, now=now, levels=levels, to_deploy=to_deploy)


FINDING = ("level", "path", "message", "code", "line", "column", "end_line", "end_column")


def validation(text: str, *, org: str, now: datetime, levels: int = MAX_LEVELS) -> bytes:
    """The body of ``POST /v2/policy/validate`` as encoded JSON, however many findings there are.

    To put thousands of them together takes longer than a thread of the web should be busy with one caller.
    """
    found = examine(text, org=org, now=now, levels=levels)
    answer = {
        "deployable": found.deployable,
        "digest": found.digest,
        "rules": found.rules,
        "findings": [{name: getattr(finding, name) for name in FINDING} for finding in found.findings],
        "tests": [
            {"name": test.name, "passed": test.passed, "expected": test.expected.value, "message": test.message}
            for test in found.tests
        ],
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _examined(parsed: Parsed, *, org: str, now: datetime, levels: int, to_deploy: bool = False) -> Examined:
    policy = parsed.policy
    tests = run_tests(policy, org=org, now=now) if policy else ()
    quick = policy is not None and is_quick(policy)
    warnings = lint(parsed, now=now, levels=levels) if quick and not to_deploy else ()
    findings = tuple(sorted((*parsed.findings, *warnings), key=lambda finding: (finding.line, finding.column)))
    return Examined(
        findings=findings,
        tests=tests,
        is_policy=policy is not None,
        rules=len(policy.rules) if policy else 0,
        unlinted=policy is not None and not quick,
        digest=digest(policy) if policy else None,
        document=canonical(policy) if policy and to_deploy else b"",
    )


@dataclass(frozen=True, slots=True)
class Review:
    """A policy text compared with the active one."""

    before: Examined
    after: Examined
    change: PolicyDiff | None
    """By meaning; None when the new text is not a policy."""


def review(before: str, after: str, *, org: str, now: datetime, levels: int = MAX_LEVELS) -> Review:
    """Examine ``after``, and compare what it allows with ``before``."""
    old, new = parse(before), parse(after)
    change = diff(old.policy or EMPTY_POLICY, new.policy, now=now) if new.policy else None
    sides = [_examined(parsed, org=org, now=now, levels=levels) for parsed in (old, new)]
    return Review(sides[0], sides[1], change)


def count_rules(*texts: str) -> list[int]:
    """How many rules there are in each of ``texts``."""
    return [len(policy.rules) if (policy := parse(text).policy) else 0 for text in texts]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The comparison failed because one of the two texts has errors."""

    side: Literal["old", "new"]
    errors: tuple[Finding, ...]


def compare(old: str | bytes, new: str, *, now: datetime) -> PolicyDiff | Unreadable:
    """Compare ``new`` with ``old`` by meaning; a text given as bytes is in canonical form."""
    before = parse(old) if isinstance(old, str) else Parsed(from_canonical(old), ())
    if before.policy is None:
        return Unreadable("old", before.errors)
    after = parse(new)
    if after.policy is None:
        return Unreadable("new", after.errors)
    return diff(before.policy, after.policy, now=now)


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of simulating one request: the verdict, or none when the text has errors."""

    findings: tuple[Finding, ...]
    verdict: Verdict | None


def simulate(text: str, request: Request, *, now: datetime, levels: int = MAX_LEVELS) -> Simulation:
    """Check ``request`` with the policy ``text`` and explain the verdict rule by rule, as an edge with ``levels``."""
    parsed = parse(text)
    if parsed.policy is None:
        return Simulation(parsed.findings, None)
    explanation = explain(parsed.policy, request, now=now, levels=levels)
    deep = too_deep(request.action, request.topic, levels) is not None
    proposed = () if deep else _suggestions(parsed, explanation, now=now)  # no rule would allow it
    return Simulation(parsed.findings, _verdict(parsed, explanation, proposed))


def _suggestions(parsed: Parsed, explanation: Explanation, *, now: datetime) -> tuple[Suggested, ...]:
    """The smallest changes that would allow what was denied; none for what is allowed."""
    policy = parsed.policy
    if policy is None or explanation.decision.allowed or not is_quick(policy):
        return ()
    found = suggest(policy, explanation.request, now=now, limit=3)
    return tuple(
        Suggested(each.title, each.widened[:SUGGESTED_REGIONS], each.narrowed[:SUGGESTED_REGIONS]) for each in found
    )


def permits_all(text: str, *, now: datetime) -> Finding | None:
    """The warning about an active rule that allows every client everything, if the policy has one."""
    found = examine(text, org="", now=now).warnings if len(text) <= NAGGED_BYTES else []
    return next((finding for finding in found if finding.code == "permit-all"), None)


def _verdict(parsed: Parsed, explanation: Explanation, proposed: tuple[Suggested, ...]) -> Verdict:
    """The verdict as the simulator shows it: every rule's part, the deciding rule's line, and the default denial."""
    decision = explanation.decision
    lines = [
        RuleLine(
            number=part.index + 1,
            rule=part.rule,
            line=_line(parsed, part.index),
            effect=part.effect.value,
            outcome=part.outcome.value,
            tone=_tone(part.outcome, part.effect.value),
            why=part.why,
        )
        for part in explanation.rules
    ]
    shown = lines
    if len(lines) > RULES_SHOWN:
        involved = [line for line in lines if line.outcome != Outcome.NO_MATCH.value]
        involved.sort(key=lambda line: line.outcome != Outcome.DECIDES.value)
        shown = sorted(involved[:RULES_SHOWN], key=lambda line: line.number)
    deciding = next((line.line for line in lines if line.rule == decision.rule), 0)
    if decision.allowed:
        tone, word, shape = "good", "Allowed", "ok"
    elif decision.rule:
        tone, word, shape = "bad", "Denied by a rule", "bad"
    else:
        tone, word, shape = "bad", "Denied: no rule allows it", "none"
    if decision.allowed and decision.holes:
        word = "Allowed, with exceptions"
    hidden = len(lines) - len(shown)
    return Verdict(explanation.request, decision, tone, word, shape, deciding, shown, hidden, proposed)


def _line(parsed: Parsed, index: int) -> int:
    span = parsed.spans.get(f"rules[{index}]")
    return span.line if span else 0


def _tone(outcome: Outcome, effect: str) -> str:
    if outcome in {Outcome.DECIDES, Outcome.TAKES_PART}:
        return "good" if effect == "allow" else "bad"
    return "warning" if outcome is Outcome.NEAR_MISS else "neutral"

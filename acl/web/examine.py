"""What a policy text comes to, as the pages show it: findings, tests, the verdict rule by rule. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from acl.policy import (
    EMPTY_POLICY,
    Explanation,
    Finding,
    Outcome,
    Parsed,
    PolicyDiff,
    Suggestion,
    TestOutcome,
    diff,
    is_quick,
    lint,
    parse,
    run_tests,
    suggest,
)

ACTION_WORDS = {"pub": "publish", "sub": "subscribe", "receive": "receive"}
NAGGED_BYTES = 256 * 1024
RULES_SHOWN = 200
"""Rules listed under a verdict; of a longer policy those that have a part in it come first."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A text, parsed, and its own tests run when it has no errors."""

    parsed: Parsed
    tests: tuple[TestOutcome, ...]
    findings: tuple[Finding, ...]
    """Errors and warnings, in the order of the text."""

    @property
    def unlinted(self) -> bool:
        """Whether there are too many topics to look for warnings here."""
        return self.parsed.policy is not None and not is_quick(self.parsed.policy)

    @property
    def errors(self) -> list[Finding]:
        """What keeps the text from being a policy."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What deserves a look and stops nothing."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def failing(self) -> list[TestOutcome]:
        """The tests that do not pass."""
        return [test for test in self.tests if not test.passed]

    @property
    def rules(self) -> int:
        """How many rules there are; 0 when the text is not a policy."""
        return len(self.parsed.policy.rules) if self.parsed.policy else 0

    @property
    def deployable(self) -> bool:
        """Whether a deployment would be accepted."""
        return self.parsed.policy is not None and not self.errors and not self.failing


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """An explanation as the simulator shows it."""

    explanation: Explanation
    tone: str
    word: str
    shape: str
    line: int
    rules: list[RuleLine]
    hidden: int
    """Rules that are not listed."""
    suggestions: tuple[Suggestion, ...]

    @property
    def action(self) -> str:
        """The action in a word."""
        return ACTION_WORDS[self.explanation.request.action]

    @property
    def shown_reason(self) -> str:
        """What the reason adds to the name of the deciding rule."""
        decision = self.explanation.decision
        return decision.reason.partition(f"by rule {decision.rule}")[2].lstrip(", ") if decision.rule else ""


def examine(text: str, *, org: str, now: datetime) -> Examined:
    """Parse ``text`` and, when it is a policy, look for warnings and run its tests as identities of ``org``."""
    parsed = parse(text)
    tests = run_tests(parsed.policy, org=org, now=now) if parsed.policy else ()
    warnings = lint(parsed, now=now) if parsed.policy and is_quick(parsed.policy) else ()
    findings = sorted((*parsed.findings, *warnings), key=lambda finding: (finding.line, finding.column))
    return Examined(parsed, tests, tuple(findings))


def compared(before: Examined, after: Examined, *, now: datetime) -> PolicyDiff | None:
    """What ``after`` allows that ``before`` does not, and the reverse; None when ``after`` is not a policy."""
    if after.parsed.policy is None:
        return None
    return diff(before.parsed.policy or EMPTY_POLICY, after.parsed.policy, now=now)


def suggestions(parsed: Parsed, explanation: Explanation, *, now: datetime) -> tuple[Suggestion, ...]:
    """The smallest changes that would allow what was denied; none for what is allowed."""
    policy = parsed.policy
    if policy is None or explanation.decision.allowed or not is_quick(policy):
        return ()
    return suggest(policy, explanation.request, now=now, limit=3)


def permits_all(text: str, *, now: datetime) -> Finding | None:
    """The warning about a rule that lets everybody do everything, when the policy has one in force."""
    return _permits_all(text, now.replace(minute=0, second=0, microsecond=0)) if len(text) <= NAGGED_BYTES else None


@lru_cache(maxsize=64)
def _permits_all(text: str, now: datetime) -> Finding | None:
    return next((finding for finding in examine(text, org="", now=now).warnings if finding.code == "permit-all"), None)


def verdict(parsed: Parsed, explanation: Explanation, *, now: datetime) -> Verdict:
    """The verdict with every rule's part, the deciding rule's line, and a word and shape of its own for "no rule"."""
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
        word = "Allowed, with holes"
    hidden = len(lines) - len(shown)
    proposed = suggestions(parsed, explanation, now=now)
    return Verdict(explanation, tone, word, shape, deciding, shown, hidden, proposed)


def _line(parsed: Parsed, index: int) -> int:
    span = parsed.spans.get(f"rules[{index}]")
    return span.line if span else 0


def _tone(outcome: Outcome, effect: str) -> str:
    if outcome in {Outcome.DECIDES, Outcome.TAKES_PART}:
        return "good" if effect == "allow" else "bad"
    return "warning" if outcome is Outcome.NEAR_MISS else "neutral"

"""What a policy text comes to, as the pages show it: findings, tests, the verdict rule by rule. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from acl.policy import Explanation, Finding, Outcome, Parsed, TestOutcome, parse, run_tests

ACTION_WORDS = {"pub": "publish", "sub": "subscribe", "receive": "receive"}
RULES_SHOWN = 200
"""Rules listed under a verdict; of a longer policy those that have a part in it come first."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A text, parsed, and its own tests run when it has no errors."""

    parsed: Parsed
    tests: tuple[TestOutcome, ...]

    @property
    def errors(self) -> list[Finding]:
        """What keeps the text from being a policy."""
        return [finding for finding in self.parsed.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What deserves a look and stops nothing."""
        return [finding for finding in self.parsed.findings if finding.level == "warning"]

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
    """Rules without a part in it that are not listed."""

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
    """Parse ``text`` and, when it is a policy, run its tests as identities of ``org``."""
    parsed = parse(text)
    tests = run_tests(parsed.policy, org=org, now=now) if parsed.policy else ()
    return Examined(parsed, tests)


def verdict(parsed: Parsed, explanation: Explanation) -> Verdict:
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
        shown = involved[:RULES_SHOWN]
    deciding = next((line.line for line in lines if line.rule == decision.rule), 0)
    if decision.allowed:
        tone, word, shape = "good", "Allowed", "ok"
    elif decision.rule:
        tone, word, shape = "bad", "Denied by a rule", "bad"
    else:
        tone, word, shape = "bad", "Denied: no rule allows it", "none"
    if decision.allowed and decision.holes:
        word = "Allowed, with holes"
    return Verdict(explanation, tone, word, shape, deciding, shown, len(lines) - len(shown))


def _line(parsed: Parsed, index: int) -> int:
    span = parsed.spans.get(f"rules[{index}]")
    return span.line if span else 0


def _tone(outcome: Outcome, effect: str) -> str:
    if outcome in {Outcome.DECIDES, Outcome.TAKES_PART}:
        return "good" if effect == "allow" else "bad"
    return "warning" if outcome is Outcome.NEAR_MISS else "neutral"

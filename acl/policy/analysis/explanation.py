"""Explain a decision: for one request, what every rule did or why it did not decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from acl.policy.engine import evaluate, globs, verdicts
from acl.policy.engine.index import compile_policy
from acl.policy.engine.model import Decision, Effect, Identity, Policy, Request, Rule, as_utc
from acl.policy.engine.templates import Pattern, Template, compile_pattern, resolve, unusable, variable_value
from acl.policy.engine.topics import (
    HASH,
    MAX_LEVELS,
    PLUS,
    Levels,
    covers,
    filter_problem,
    intersect,
    is_hidden,
    level_matches,
    matches,
    split,
    too_deep,
    topic_problem,
    unshared,
)

QUICKLY_READ = 200
"""Filters up to which the evaluator judges a subscription at once."""


class Outcome(StrEnum):
    """The effect of one rule on a request."""

    DECIDES = "decides"
    TAKES_PART = "takes part"  # a subscription: the rule grants or denies a part of the filter
    NEAR_MISS = "near miss"
    TOO_LATE = "too late"  # it would decide, had an earlier rule not done so
    NO_MATCH = "no match"


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule's part in a decision: ``index`` counts from 0, ``why`` is a sentence for people."""

    index: int
    rule: str
    effect: Effect
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and every rule's part in it, in rule order."""

    request: Request
    decision: Decision
    rules: tuple[RuleExplanation, ...]


def explain(policy: Policy, request: Request, *, now: datetime, levels: int = MAX_LEVELS) -> Explanation:
    """Decide ``request`` and explain for every rule why it did or did not decide.

    Beyond ``levels``, the edge's limit, no rule is asked.
    """
    deep = too_deep(request.action, request.topic, levels)
    decision = verdicts.refused(deep) if deep else decision_of(policy, request, now=now)
    topic = request.topic if request.action == "pub" else unshared(request.topic)[0]
    check = filter_problem if request.action == "sub" else topic_problem
    malformed = deep or check(topic) or (request.action != "pub" and unshared(request.topic)[1])
    explained: list[RuleExplanation] = []
    decided = False
    for index, rule in enumerate(policy.rules):
        if malformed:
            outcome, why = Outcome.NO_MATCH, decision.reason
        else:
            aside = _inapplicable(rule, request.identity, "pub" if request.action == "pub" else "sub", now)
            difference = aside or _topic_difference(rule, request, split(topic))
            outcome, why = (Outcome.NO_MATCH, difference) if difference else _part(rule, request, decision, decided)
        decided = decided or outcome is Outcome.DECIDES
        explained.append(RuleExplanation(index, rule.id, rule.effect, outcome, why))
    return Explanation(request, decision, tuple(explained))


def decision_of(policy: Policy, request: Request, *, now: datetime) -> Decision:
    """Decide one request without compiling the policy, which is faster for a single request.

    A subscription under many filters is the exception: the evaluator compares them pairwise, so the policy is compiled.
    """
    if request.action == "sub" and sum(len(rule.topics) for rule in policy.rules) > QUICKLY_READ:
        return compile_policy(policy).subscribe(request.identity, request.topic, now=now)
    if request.action == "pub":
        return evaluate.publish(
            policy, request.identity, request.topic, qos=request.qos, retain=request.retain, now=now
        )
    if request.action == "sub":
        return evaluate.subscribe(policy, request.identity, request.topic, now=now)
    return evaluate.receive(policy, request.identity, request.topic, now=now)


def _part(rule: Rule, request: Request, decision: Decision, decided: bool) -> tuple[Outcome, str]:
    """The outcome of a rule that applies to the request, and the sentence that explains it."""
    if request.action == "pub" and rule.effect is Effect.ALLOW:
        miss = verdicts.near_miss(rule, request.qos, request.retain)
        if miss:
            return Outcome.NEAR_MISS, miss.reason
    verb = "allows" if rule.effect is Effect.ALLOW else "denies"
    if rule.id == decision.rule:
        return Outcome.DECIDES, f"{verb} it"
    if request.action == "sub":
        asked = split(unshared(request.topic)[0])
        resolved = (resolve(compile_pattern(topic), request.identity, rule.effect) for topic in rule.topics)
        whole = any(levels is not None and covers(levels, asked) for levels in resolved)
        return Outcome.TAKES_PART, f"{verb} {'all' if whole else 'a part'} of the filter"
    if decided:
        return Outcome.TOO_LATE, f"rule {decision.rule} decides first"
    return Outcome.NO_MATCH, "does not decide"


def _inapplicable(rule: Rule, identity: Identity, action: Literal["pub", "sub"], now: datetime) -> str | None:
    """Why the rule does not apply to this identity and action at ``now``, or ``None`` if it does."""
    if rule.expires is not None and rule.expired(as_utc(now)):
        return f"expired at {rule.expires:%Y-%m-%dT%H:%M:%SZ}"
    if not rule.acts_on(action):
        return f"action is {rule.action} only"
    return who_difference(rule, identity)


def who_difference(rule: Rule, identity: Identity) -> str | None:
    """Which condition of ``who`` excludes ``identity``, or ``None`` if it matches."""
    if not globs.matches_any(rule.who.username, identity.username):
        return f'username glob {_globs(rule.who.username)} does not match "{identity.username}"'
    if not globs.matches_any(rule.who.client_id, identity.client_id):
        return f'client ID glob {_globs(rule.who.client_id)} does not match "{identity.client_id}"'
    for name, wanted in rule.who.claims:
        texts = identity.claim(name)
        if not texts:
            return f"claim {name} missing"
        if not any(globs.matches_any(wanted, text) for text in texts):
            return f"claim {name} is {_quoted(texts, ', ')}, not {_globs(wanted)}"
    return None


def _globs(wanted: tuple[str, ...]) -> str:
    return _quoted(wanted, " or ")


def _quoted(texts: Iterable[str], between: str) -> str:
    return between.join(f'"{text}"' for text in texts)


def _topic_difference(rule: Rule, request: Request, asked: Levels) -> str | None:
    """Why no filter of the rule matches the request, explained for the closest one; ``None`` if one does."""
    closest, told = -1, "it has no topic"
    for topic in rule.topics:
        pattern = compile_pattern(topic)
        levels = resolve(pattern, request.identity, rule.effect)
        if levels is None:
            depth, why = 0, _unresolved(pattern, request.identity)
        elif (intersect(asked, levels) is not None) if request.action == "sub" else matches(levels, asked):
            return None
        else:
            depth, why = _difference(levels, asked)
        if depth > closest:
            closest, told = depth, why
    return told


def _unresolved(pattern: Pattern, identity: Identity) -> str:
    for level in pattern:
        for variable in level.variables if isinstance(level, Template) else ():
            value = variable_value(variable, identity)
            name = variable.replace("claims.", "claim ").replace("client_id", "client ID")
            if value is None:
                listed = variable.startswith("claims.") and identity.claim(variable.removeprefix("claims."))
                return f"{name} is a list" if listed else f"{name} missing"
            if unusable(value):
                return f"{name} is empty" if not value else f"{name} {value} cannot stand in a topic"
    return "a variable does not resolve"


def _difference(levels: Levels, asked: Levels) -> tuple[int, str]:
    """The first level (counted from 0) at which a filter and a request differ, and the sentence that explains it."""
    if {levels[0], asked[0]} & {PLUS, HASH} and (is_hidden(levels[0]) or is_hidden(asked[0])):
        return 0, "a leading wildcard does not reach topics that start with $"
    for at, (wanted, level) in enumerate(zip(levels, asked, strict=False)):
        if not (level_matches(wanted, level) or level == PLUS or HASH in (wanted, level)):
            return at, f'topic differs at level {at + 1}: "{level}" is not "{wanted}"'
    at = min(len(levels), len(asked))
    if len(asked) > len(levels):
        return at, f"topic has more levels than the rule's {len(levels)}"
    return at, f'topic ends before level {at + 1}: "{levels[at]}"'

"""Suggest small policy changes that would allow a denied request, each with what else it would allow.

Candidates are made from what keeps each allow rule from deciding (see ``acl.policy.analysis.explanation``), tried
out, and kept only when the request is then allowed. They are ordered by how little has to change, then by how
little else they allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import SequenceMatcher
from typing import Literal

from acl.policy.analysis.comparison import EFFORT, diff
from acl.policy.analysis.explanation import decision_of
from acl.policy.analysis.regions import Region
from acl.policy.engine import globs
from acl.policy.engine.model import Effect, Policy, Request, Rule, Who, as_utc
from acl.policy.engine.templates import VARIABLE, compile_pattern, pattern_problem, resolve
from acl.policy.engine.topics import HASH, PLUS, Levels, covers, filter_problem, split, unshared
from acl.policy.language.document import MadeIds

MAX_CANDIDATES = 24
_TYPO = 0.6
"""Two texts at least this alike are taken for one and a slip of the pen (``difflib`` ratio)."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One change that would allow the request. ``rule`` is the id of the rule that changes or is added."""

    kind: Literal["limit", "action", "topic", "who", "claim", "expiry", "new-rule"]
    title: str
    rule: str
    policy: Policy
    widened: tuple[Region, ...]
    narrowed: tuple[Region, ...] = ()
    """Requests that the change denies: a variable that becomes a literal leaves out every other client."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    cost: float
    kind: Literal["limit", "action", "topic", "who", "claim", "expiry", "new-rule"]
    title: str
    rule: Rule
    at: int
    added: bool = False


def suggest(policy: Policy, request: Request, *, now: datetime, limit: int = 5) -> tuple[Suggestion, ...]:
    """Up to ``limit`` changes that would allow ``request``, the smallest first. None if it is allowed or malformed."""
    now = as_utc(now)
    if "*" in request.identity.username:
        return ()  # typed to ask for several at once; a rule with it would speak of all of them
    decision = decision_of(policy, request, now=now)
    asked_text = unshared(request.topic)[0] if request.action != "pub" else request.topic
    if decision.allowed or filter_problem(asked_text) or pattern_problem(asked_text):
        return ()
    asked = split(asked_text)
    candidates = [
        candidate
        for at, rule in enumerate(policy.rules)
        if rule.effect is Effect.ALLOW
        for candidate in _changes(rule, at, request, asked, now)
    ]
    candidates.append(_new_rule(policy, request, asked, decision.rule))
    kept: list[tuple[float, int, Suggestion]] = []
    for candidate in sorted(candidates, key=lambda each: each.cost)[:MAX_CANDIDATES]:
        changed = _applied(policy, candidate)
        if not decision_of(changed, request, now=now).allowed:
            continue
        change = diff(policy, changed, now=now, effort=EFFORT // (2 * limit))
        suggestion = Suggestion(
            candidate.kind, candidate.title, candidate.rule.id, changed, change.widened, change.narrowed
        )
        kept.append((candidate.cost + bool(change.narrowed), len(change.widened), suggestion))
        if len(kept) >= 2 * limit:
            break
    return tuple(suggestion for _, _, suggestion in sorted(kept, key=lambda each: each[:2])[:limit])


def _applied(policy: Policy, candidate: _Candidate) -> Policy:
    rules = list(policy.rules)
    rules[candidate.at : candidate.at + (not candidate.added)] = [candidate.rule]
    return replace(policy, rules=tuple(rules))


def _changes(rule: Rule, at: int, request: Request, asked: Levels, now: datetime) -> Iterator[_Candidate]:
    """The changes to one allow rule that remove the condition that keeps it from deciding."""
    action: Literal["pub", "sub"] = "pub" if request.action == "pub" else "sub"
    people = globs.admits(rule.who, request.identity)
    acts = rule.acts_on(action)
    reaches = any(
        (levels := resolve(compile_pattern(topic), request.identity, Effect.ALLOW)) and covers(levels, asked)
        for topic in rule.topics
    )
    limited = action == "pub" and (request.qos > rule.qos or (request.retain and not rule.retain))
    obstacles = [not people, not acts, not reaches, limited, rule.expired(now)]
    if sum(obstacles) != 1:
        return
    if limited:
        wider = replace(rule, qos=max(rule.qos, request.qos), retain=rule.retain or request.retain)
        what = f"QoS {request.qos}" if request.qos > rule.qos else "retained messages"
        yield _Candidate(0.0, "limit", f"let rule {rule.id} allow {what}", wider, at)
    elif not acts:
        title = f"apply rule {rule.id} to {'publishing' if action == 'pub' else 'subscribing'} too"
        yield _Candidate(0.1, "action", title, replace(rule, action="pub+sub"), at)
    elif not reaches:
        yield from _topic_changes(rule, at, request, asked)
    elif not people:
        yield from _who_changes(rule, at, request)
    else:
        yield _Candidate(0.3, "expiry", f"renew rule {rule.id}", replace(rule, expires=None), at)


def _topic_changes(rule: Rule, at: int, request: Request, asked: Levels) -> Iterator[_Candidate]:
    for number, topic in enumerate(rule.topics):
        levels = resolve(compile_pattern(topic), request.identity, Effect.ALLOW)
        if levels is None:
            continue
        for cost, changed, how in _nearer(topic, levels, asked):
            if how == "fix" and set(VARIABLE.findall(topic)) - set(VARIABLE.findall(changed)):
                topics = (*rule.topics, changed)  # a literal in place of a variable would leave out everybody else
                title = f"add {changed} to rule {rule.id}"
            else:
                topics = (*rule.topics[:number], changed, *rule.topics[number + 1 :])
                title = f"{how} rule {rule.id}: {changed} instead of {topic}"
            yield _Candidate(cost, "topic", title, replace(rule, topics=tuple(dict.fromkeys(topics))), at)


def _nearer(topic: str, levels: Levels, asked: Levels) -> Iterator[tuple[float, str, str]]:
    """Filters near ``topic`` that match ``asked``: with ``/#``, with one level corrected, with one level a ``+``."""
    written = topic.split("/")
    if levels[-1] != HASH and covers((*levels, HASH), asked):
        yield 0.2, topic + "/#", "extend"
    if len(levels) != len(asked):
        return
    wrong = [at for at, (mine, yours) in enumerate(zip(levels, asked, strict=True)) if mine not in (yours, PLUS)]
    if len(wrong) != 1 or HASH in (levels[wrong[0]], asked[wrong[0]]):
        return
    wrong_level = wrong[0]
    alike = SequenceMatcher(None, levels[wrong_level], asked[wrong_level]).ratio()
    if asked[wrong_level] != PLUS and alike >= _TYPO:
        yield (
            0.15 + (1 - alike) / 4,
            "/".join([*written[:wrong_level], asked[wrong_level], *written[wrong_level + 1 :]]),
            "fix",
        )
    yield 0.6, "/".join([*written[:wrong_level], PLUS, *written[wrong_level + 1 :]]), "widen"


def _who_changes(rule: Rule, at: int, request: Request) -> Iterator[_Candidate]:
    identity, who = request.identity, rule.who
    if not globs.matches_any(who.username, identity.username):
        if "*" not in identity.username:
            added = replace(who, username=(*who.username, identity.username))
            title = f"also apply rule {rule.id} to {identity.username}"
            yield _Candidate(0.4, "who", title, replace(rule, who=added), at)
        return
    if not globs.matches_any(who.client_id, identity.client_id):
        added = replace(who, client_id=("*",))
        yield _Candidate(0.45, "who", f"apply rule {rule.id} to any client ID", replace(rule, who=added), at)
        return
    claims = dict(who.claims)
    for name, wanted in who.claims:
        texts = [text for text in identity.claim(name) if "*" not in text]
        if any(globs.matches_any(wanted, text) for text in texts):
            continue
        if texts:
            claims[name] = (*wanted, texts[0])
            title = f"accept {texts[0]} as claim {name} in rule {rule.id}"
        else:
            del claims[name]
            title = f"remove claim {name} from rule {rule.id}"
        mended = replace(who, claims=tuple(sorted(claims.items())))
        yield _Candidate(0.5, "claim", title, replace(rule, who=mended), at)
        return


def _new_rule(policy: Policy, request: Request, asked: Levels, denied_by: str | None) -> _Candidate:
    """A rule for just this identity and topic, with the identity's own name as a variable where it stands."""
    username = request.identity.username
    levels = ["{username}" if level == username and level else level for level in asked]
    action: Literal["pub", "sub"] = "pub" if request.action == "pub" else "sub"
    ids = {rule.id: at for at, rule in enumerate(policy.rules)}
    at = ids.get(denied_by or "", len(policy.rules))
    retain = request.retain if action == "pub" else True
    rule = Rule("", ("/".join(levels),), action, Effect.ALLOW, Who((username,)), request.qos, retain)
    rule = replace(rule, id=MadeIds(ids).next(rule))
    place = f"before rule {denied_by}" if denied_by else "at the end"
    verb = "publish to" if action == "pub" else "subscribe to"
    return _Candidate(0.8, "new-rule", f"add a rule {place}: {username} may {verb} {rule.topics[0]}", rule, at, True)

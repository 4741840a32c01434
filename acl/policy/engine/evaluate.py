"""The reference evaluator: the readable specification of a policy. ``acl.policy.engine.index`` is its fast equivalent.

Rules are asked in order and the first that decides wins; when none decides the answer is deny. Nothing here raises on
any input, and time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from acl.policy.engine import verdicts
from acl.policy.engine.globs import admits
from acl.policy.engine.model import Decision, Effect, Identity, NearMiss, Policy, Rule, as_utc
from acl.policy.engine.templates import compile_pattern, resolve
from acl.policy.engine.topics import (
    FRESH,
    PLUS,
    Levels,
    covered,
    covers,
    filter_problem,
    intersect,
    join,
    matches,
    representatives,
    split,
    topic_problem,
    unshared,
)
from acl.policy.engine.verdicts import MAX_NEAR_MISSES, regions_examined

Entry = tuple[Rule, Levels]
"""A rule and one of its filters, as it reads for the identity that asks."""


def publish(policy: Policy, identity: Identity, topic: str, *, qos: int, retain: bool, now: datetime) -> Decision:
    """May ``identity`` publish to ``topic`` with this QoS and retain flag at ``now``?

    An allow rule that matches but forbids the QoS or the retain flag does not decide; it is a near miss.
    """
    problem = topic_problem(topic)
    if problem:
        return verdicts.refused(problem)
    near: dict[str, NearMiss] = {}
    for rule in _matching(policy, identity, "pub", split(topic), now):
        if rule.effect is Effect.DENY:
            return verdicts.denied(rule, tuple(near.values())[:MAX_NEAR_MISSES])
        miss = verdicts.near_miss(rule, qos, retain)
        if miss is None:
            return verdicts.allowed(rule, tuple(near.values())[:MAX_NEAR_MISSES])
        near[rule.id] = miss
    return verdicts.undecided(tuple(near.values())[:MAX_NEAR_MISSES])


def receive(policy: Policy, identity: Identity, topic: str, *, now: datetime) -> Decision:
    """May one message on ``topic`` be delivered to ``identity`` at ``now``?"""
    topic, problem = unshared(topic)
    problem = problem or topic_problem(topic)
    if problem:
        return verdicts.refused(problem)
    for rule in _matching(policy, identity, "sub", split(topic), now):
        return verdicts.denied(rule) if rule.effect is Effect.DENY else verdicts.allowed(rule)
    return verdicts.undecided()


def subscribe(policy: Policy, identity: Identity, topic_filter: str, *, now: datetime) -> Decision:
    """May ``identity`` subscribe to ``topic_filter`` at ``now``?

    Granted if and only if the allow rules together cover every topic of the filter and the deny rules before them
    leave something of it.
    """
    topic_filter, problem = unshared(topic_filter)
    problem = problem or filter_problem(topic_filter)
    if problem:
        return verdicts.refused(problem)
    asked = split(topic_filter)
    met = [entry for entry in _entries(policy, identity, "sub", now) if intersect(asked, entry[1])]
    return _gap(asked, met) or _grant(asked, met, _limit(policy, asked))


def _matching(
    policy: Policy, identity: Identity, action: Literal["pub", "sub"], topic: Levels, now: datetime
) -> Iterator[Rule]:
    """The rules that apply to this identity, action and topic, in order."""
    return (rule for rule, levels in _entries(policy, identity, action, now) if matches(levels, topic))


def _entries(policy: Policy, identity: Identity, action: Literal["pub", "sub"], now: datetime) -> Iterator[Entry]:
    """Every filter of every rule that applies to this identity and action at ``now``, in rule order."""
    now = as_utc(now)
    for rule in policy.rules:
        if rule.acts_on(action) and not rule.expired(now) and admits(rule.who, identity):
            for topic in rule.topics:
                levels = resolve(compile_pattern(topic), identity, rule.effect)
                if levels is not None:
                    yield rule, levels


def _gap(asked: Levels, met: Sequence[Entry]) -> Decision | None:
    """The denial when the allow rules leave out a part of ``asked``, or ``None`` when they cover it.

    A part that no rule speaks of is named first, the shortest one; otherwise the deny rule that decides the shortest
    part left out.
    """
    topics = list(representatives(asked, [levels for _, levels in met]))
    deciders = [[rule for rule, levels in met if matches(levels, topic)] for topic in topics]
    if not any(deciders):
        return verdicts.undecided()
    for topic, rules in zip(topics, deciders, strict=True):
        if not rules:
            return verdicts.uncovered(join([PLUS if level == FRESH else level for level in topic]))
    for rules in deciders:
        if all(rule.effect is Effect.DENY for rule in rules):
            return verdicts.not_allowed(rules[0])
    return None


def _grant(asked: Levels, met: Sequence[Entry], limit: int) -> Decision:
    """The decision on ``asked`` when the allow rules cover it: what do the deny rules before them take away?

    The rule of a grant is the one that covers all of ``asked``; where only the union does, the first with a part in it.
    A deny filter is a hole where the allow filters before it leave something to deny. The work is bounded: with more
    than ``limit`` filters to examine, the whole filter is given as the hole, and delivery decides.
    """
    deciding = _deciding(asked, met)
    allows = [entry for entry in deciding if entry[0].effect is Effect.ALLOW]
    denies = [entry for entry in deciding if entry[0].effect is Effect.DENY]
    valid_until = min((rule.expires for rule, _ in met if rule.expires), default=None)
    qos = min(rule.qos for rule, _ in met if rule.effect is Effect.ALLOW)
    first = next((rule for rule, _, _ in _left(asked, allows[:limit], deciding)), None)
    if allows and (len(denies) > limit or (first is None and len(allows) > limit)):
        return verdicts.granted(allows[-1][0], (join(asked),), qos, valid_until, (join(asked),))
    if first is None:
        return verdicts.nothing_left(deciding[0][0], valid_until)
    last, levels = deciding[-1]
    alone = last.effect is Effect.ALLOW and covers(levels, asked)
    denied = [(region, partial) for _, region, partial in _left(asked, denies, deciding)]
    names = largest([region for region, _ in denied])
    partial = {join(region) for region, rest in denied if rest}
    return verdicts.granted(
        last if alone else first, names, qos, valid_until, [name for name in names if name in partial]
    )


def _limit(policy: Policy, asked: Levels) -> int:
    """How many filters of each effect are examined for ``asked``."""
    lengths = [len(split(topic)) for rule in policy.rules for topic in rule.topics]
    return regions_examined(max(len(asked), *lengths), len(lengths))


def _left(asked: Levels, some: Sequence[Entry], deciding: Sequence[Entry]) -> Iterator[tuple[Rule, Levels, bool]]:
    """The parts of ``asked`` that each of ``some`` decides, after the entries of the other effect before it.

    The last value is true when those entries decide a part of it first.
    """
    for rule, levels in some:
        at = deciding.index((rule, levels))
        region = intersect(asked, levels)
        earlier = [before for decider, before in deciding[:at] if decider.effect is not rule.effect]
        if region is not None and not covered(region, earlier):
            yield rule, region, any(intersect(region, before) for before in earlier)


def _deciding(asked: Levels, met: Sequence[Entry]) -> Sequence[Entry]:
    """The entries up to the point where those of one effect cover ``asked``; later ones decide nothing about it."""
    seen: dict[Effect, list[Levels]] = {Effect.ALLOW: [], Effect.DENY: []}
    for at, (rule, levels) in enumerate(met):
        seen[rule.effect].append(levels)
        if covered(asked, seen[rule.effect]):
            return met[: at + 1]
    return met


def largest(regions: Sequence[Levels]) -> tuple[str, ...]:
    """The regions that no other region contains, as filters, in the order given."""
    kept: list[Levels] = []
    for region in dict.fromkeys(regions):
        if any(covers(other, region) for other in kept):
            continue
        kept = [other for other in kept if not covers(region, other)]
        kept.append(region)
    return tuple(join(region) for region in kept)

"""Compare two policies by meaning: find what the new one allows that the old one denies, and the reverse.

Two policies can only differ within rules that are not in both, in the same order. For each such rule the search
enumerates the identities that can make a difference (``acl.policy.analysis.sample_identities``) and the topics that can
(one text per level for every literal that a filter names, and one that no filter names), and compares both decisions.
Every difference comes with a request whose decision really changes.

What is compared is publishing (by QoS and retain flag) and receiving (by granted QoS) of single topics, and subscribing
to filters where it differs although no topic in them does (``acl.policy.analysis.subscriptions``); at ``now`` and
after every later ``expires``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import product
from typing import Literal

from acl.policy.analysis.budget import Budget
from acl.policy.analysis.neighbors import Neighbors, changed_rules, meaning
from acl.policy.analysis.regions import Near, Region, Tally, Told
from acl.policy.analysis.sample_identities import sample_identities
from acl.policy.analysis.subscriptions import asked, below
from acl.policy.analysis.topic_search import Difference, ResolvedFilter, TopicSearch
from acl.policy.engine.globs import admits
from acl.policy.engine.index import CompiledPolicy, compile_policy
from acl.policy.engine.model import Effect, Identity, Policy, Request, Rule, as_utc
from acl.policy.engine.running import Evaluator, decide
from acl.policy.engine.templates import Pattern, compile_pattern, resolve
from acl.policy.engine.topics import HASH, Levels, join

EFFORT = 4_000_000
"""Steps that one comparison may take: two seconds of one core, whatever the policies are."""
MAX_INSTANTS = 64
MAX_REGIONS = 500
"""Regions of one direction after which the search ends: nobody reads more."""


class Relation(StrEnum):
    """How the new policy relates to the old one."""

    EQUIVALENT = "equivalent"
    NARROWER = "narrower"
    WIDER = "wider"
    INCOMPARABLE = "incomparable"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """The differences between two policies. ``complete`` is false when the search was cut short."""

    relation: Relation
    widened: tuple[Region, ...]
    narrowed: tuple[Region, ...]
    complete: bool = True


def diff(old: Policy, new: Policy, *, now: datetime, effort: int | None = None) -> PolicyDiff:
    """Compare ``new`` with ``old`` by meaning, at ``now`` and later."""
    search = _Search(old, new, as_utc(now), Budget(EFFORT if effort is None else effort))
    widened, narrowed = search.regions()
    if widened and narrowed:
        relation = Relation.INCOMPARABLE
    elif widened or narrowed:
        relation = Relation.WIDER if widened else Relation.NARROWER
    else:
        relation = Relation.EQUIVALENT
    return PolicyDiff(relation, tuple(widened), tuple(narrowed), search.complete)


def is_wider(old: Policy, new: Policy, *, now: datetime) -> bool:
    """Whether ``new`` allows anything that ``old`` denies; also true when that could not be ruled out."""
    found = diff(old, new, now=now)
    return bool(found.widened) or not found.complete


def permits(evaluator: Evaluator, request: Request, *, now: datetime) -> bool:
    """Whether ``evaluator`` grants ``request`` in full: allowed, and for a subscription at the QoS that it names."""
    decision = decide(evaluator, request, now=now)
    return decision.allowed and (request.action == "pub" or decision.qos >= request.qos)


class _Search:
    """The search for the differences between two policies."""

    def __init__(self, old: Policy, new: Policy, now: datetime, budget: Budget) -> None:
        self.now, self._budget = now, budget
        self.complete = True
        self._changed = list({meaning(rule): rule for rule in reversed(changed_rules(old.rules, new.rules))}.values())[
            ::-1
        ]
        self._policies = (old, new)
        self._compiled: tuple[CompiledPolicy, CompiledPolicy] | None = None
        self._rules = (Neighbors(old.rules, now), Neighbors(new.rules, now))

    def regions(self) -> tuple[list[Region], list[Region]]:
        """The widened and the narrowed regions, each once, in the order of the changed rules."""
        found: tuple[dict[tuple[str, ...], Region], dict[tuple[str, ...], Region]] = ({}, {})
        filters = [(rule, topic) for rule in self._changed if not rule.expired(self.now) for topic in rule.topics]
        for rule, topic in filters:
            if max(map(len, found)) >= MAX_REGIONS or not self._budget.left:
                self.complete = False
                break
            for wider, region in self._differences(rule, topic):
                key = (region.who, region.action, region.filter, region.limit)
                found[0 if wider else 1].setdefault(key, region)
        return list(found[0].values()), list(found[1].values())

    def _differences(self, changed: Rule, topic: str) -> Iterable[tuple[bool, Region]]:
        """The regions within one filter of one changed rule, each with true when the new policy is wider there."""
        actions: tuple[Literal["pub"], Literal["sub"]] = ("pub", "sub")
        for action in actions:
            if not changed.acts_on(action):
                continue
            kinds: tuple[Told, ...] = ("pub",) if action == "pub" else ("receive", "sub")
            for told in kinds:
                tallies = (Tally(changed, told, topic), Tally(changed, told, topic))
                if told == "sub":
                    self._compare_subscriptions(replace(changed, topics=(topic,)), tallies)
                else:
                    self._compare_topics(replace(changed, topics=(topic,)), action, tallies)
                for wider, tally in zip((True, False), tallies, strict=True):
                    yield from ((wider, region) for region in tally.regions())

    def _compare_topics(self, changed: Rule, action: Literal["pub", "sub"], tallies: tuple[Tally, Tally]) -> None:
        """Add to ``tallies`` the topics of ``changed``, a rule of one filter, on which the policies differ."""
        pattern = compile_pattern(changed.topics[0])
        near = self._near(pattern, action)
        searches: dict[object, TopicSearch] = {}
        for identity, at, levels in self._covered_identities(changed, pattern, near):
            old, new = (tuple(_entries(rules, identity, action, at)) for rules in near)
            search = self._searched(searches, TopicSearch(levels, old, new, action))
            tallies[0].add(identity, at, search.widened, near, whole=search.same == 0)
            tallies[1].add(identity, at, search.narrowed, near, whole=search.same == 0)

    def _compare_subscriptions(self, changed: Rule, tallies: tuple[Tally, Tally]) -> None:
        """Add to ``tallies`` the subscriptions that change although the decision on no single topic does.

        Only an allow rule behind a deny rule can cause that.
        """
        pattern = compile_pattern(changed.topics[0])
        rules = [rule for some in self._near(pattern, "sub") for rule in some]
        if changed.effect is Effect.DENY or all(rule.effect is Effect.ALLOW for rule in rules):
            return
        names = {rule.id for rule in self._changed}
        others = [rule.qos for rule in rules if rule.effect is Effect.ALLOW and rule.id not in names]
        limited = any(qos > changed.qos for qos in others)
        near = self._near((*(() if limited else pattern[: below(pattern)]), HASH), "sub")
        lowered = False
        searches: dict[object, TopicSearch] = {}
        for identity, at, levels in self._covered_identities(changed, pattern, near):
            old, new = (tuple(_entries(rules, identity, "sub", at)) for rules in near)
            allows = [entry.levels for entry in (*old, *new) if entry.effect is Effect.ALLOW]
            filters, complete = asked(levels, allows, limited=limited)
            self.complete = self.complete and complete
            for each in filters:
                flipped = self._flipped(TopicSearch(each, old, new, "sub"), identity, at, searches)
                if flipped:
                    lowered = lowered or bool(flipped[1].limit)
                    tallies[not flipped[0]].add(identity, at, [flipped[1]], near, whole=False)
        low = (rule for some in near for rule in some if rule.effect is Effect.ALLOW and rule.qos <= changed.qos)
        if limited and not lowered and any(rule.id not in names for rule in low):
            self.complete = False  # a filter that meets no other rule of so low a QoS may be lowered, or may not

    def _flipped(
        self, search: TopicSearch, identity: Identity, at: datetime, searches: dict[object, TopicSearch]
    ) -> tuple[bool, Difference] | None:
        """The difference of one identity's subscription, true if wider; ``None`` if a topic in it differs."""
        if self._compiled is None:
            self._budget.take(50 * sum(len(rule.topics) for policy in self._policies for rule in policy.rules))
            self._compiled = (compile_policy(self._policies[0]), compile_policy(self._policies[1]))
        if not self._budget.take(500):
            self.complete = False
            return None
        text = join(search.region)
        decisions = [evaluator.subscribe(identity, text, now=at) for evaluator in self._compiled]
        before, after = (decision.qos if decision.allowed else -1 for decision in decisions)
        known = self._searched(searches, search) if before != after else search
        if before == after or (known.widened if after > before else known.narrowed):
            return None
        qos = min(before, after) + 1
        return after > before, Difference(text, text, qos, False, f"qos {qos}" if qos else "")

    def _near(self, pattern: Pattern, action: Literal["pub", "sub"]) -> Near:
        old, new = (neighbors.near(pattern, action, self._budget) for neighbors in self._rules)
        return old, new

    def _affected_identities(self, changed: Rule, near: Near) -> Iterable[tuple[Identity, datetime]]:
        """The identities and times for which ``changed``, a rule of one filter, can make a difference."""
        if not self._budget.left > 0:
            self.complete = False
            return ()
        share = Budget(self._budget.left // 2)  # the other half is for what they do
        left = share.left
        identities, complete = sample_identities(changed, [*near[0], *near[1]], share)
        self._budget.take(left - share.left)
        instants = self._expiry_times(changed, *near)
        self.complete = self.complete and complete
        return product(identities, instants)

    def _covered_identities(
        self, changed: Rule, pattern: Pattern, near: Near
    ) -> Iterator[tuple[Identity, datetime, Levels]]:
        """The affected identities that ``changed`` applies to, each with the rule's filter resolved for it."""
        for identity, at in self._affected_identities(changed, near):
            levels = resolve(pattern, identity, changed.effect)
            if levels is None or not admits(changed.who, identity):
                continue
            if not self._budget.take(12 * (len(near[0]) + len(near[1])) + 8):
                self.complete = False
                return
            yield identity, at, levels

    def _searched(self, done: dict[object, TopicSearch], search: TopicSearch) -> TopicSearch:
        """Run ``search``, or return the equal one in ``done``: many identities resolve to the same filters."""
        key = (search.region, search.old, search.new, search.action)
        if key not in done:
            self.complete = search.run(self._budget) and self.complete
            done[key] = search
        return done[key]

    def _expiry_times(self, changed: Rule, *near: Sequence[Rule]) -> list[datetime]:
        """Now, and every later time at which one of the rules expires."""
        later = {rule.expires for rules in near for rule in rules if rule.expires}
        if changed.expires:
            later.add(changed.expires)
        instants = [self.now, *sorted(later)]
        self.complete = self.complete and len(instants) <= MAX_INSTANTS
        return instants[:MAX_INSTANTS]


def _entries(
    rules: Sequence[Rule], identity: Identity, action: Literal["pub", "sub"], at: datetime
) -> list[ResolvedFilter]:
    """The filters that apply to ``identity`` at ``at``, in rule order."""
    entries = []
    for rule in rules:
        if rule.acts_on(action) and not rule.expired(at) and admits(rule.who, identity):
            for topic in rule.topics:
                levels = resolve(compile_pattern(topic), identity, rule.effect)
                if levels is not None:
                    entries.append(ResolvedFilter(levels, rule.effect, rule.qos, rule.retain))
    return entries

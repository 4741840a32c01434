"""Two policies compared by what they mean: what the second allows that the first does not, and the reverse.

Two policies can only differ where a rule speaks that is not in both, in the same order. For each such rule the
identities that can make a difference (``acl.policy.population``) and the topics that can (one text per level for every
literal in play, and one that no filter names) are walked through, and the answers held against each other. Every
difference comes with a request that really flips.

What is compared is publishing (by QoS and retain flag) and receiving (by granted QoS) of single topics, at ``now`` and
after every later ``expires``. How a wildcard subscription is granted follows from that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Literal

from acl.policy.globs import admits
from acl.policy.model import Identity, Policy, Request, Rule, as_utc
from acl.policy.population import population
from acl.policy.printer import identity_text, who_text
from acl.policy.running import Judge, decide
from acl.policy.templates import Pattern, Template, compile_pattern, resolve
from acl.policy.topics import ANY, HASH, PLUS, Levels, intersect
from acl.policy.walk import Difference, Entry, Walk

MAX_PAIRS = 2_000_000
MAX_INSTANTS = 8
MAX_REGIONS_EACH = 8
"""Filters reported per changed rule, action and direction."""


class Relation(StrEnum):
    """How the second policy stands to the first."""

    EQUIVALENT = "equivalent"
    NARROWER = "narrower"
    WIDER = "wider"
    INCOMPARABLE = "incomparable"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of what identities do on which two policies differ, as a rule of thumb, with a witness that is exact.

    ``rule`` is the changed rule that brought it to light; ``at`` is the time at which ``witness`` flips.
    """

    who: str
    action: Literal["pub", "sub"]
    filter: str
    rule: str
    witness: Request
    at: datetime
    limit: str = ""
    """Which part of the action: ``qos 2``, ``retained``; empty for all of it."""

    def __str__(self) -> str:
        verb = "publish to" if self.action == "pub" else "receive"
        return f"{self.who}: {verb} {self.filter}" + (f" ({self.limit})" if self.limit else "")


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """What changes from one policy to another. ``complete`` is false when the search had to be cut short."""

    relation: Relation
    widened: tuple[Region, ...]
    narrowed: tuple[Region, ...]
    complete: bool = True


def diff(old: Policy, new: Policy, *, now: datetime) -> PolicyDiff:
    """Compare ``new`` with ``old`` by meaning, at ``now`` and later."""
    search = _Search(old, new, as_utc(now))
    widened, narrowed = search.regions()
    if widened and narrowed:
        relation = Relation.INCOMPARABLE
    elif widened or narrowed:
        relation = Relation.WIDER if widened else Relation.NARROWER
    else:
        relation = Relation.EQUIVALENT
    return PolicyDiff(relation, tuple(widened), tuple(narrowed), search.complete)


def is_wider(old: Policy, new: Policy, *, now: datetime) -> bool:
    """Whether ``new`` allows anything that ``old`` does not; true as well when that could not be ruled out."""
    found = diff(old, new, now=now)
    return bool(found.widened) or not found.complete


def permits(judge: Judge, request: Request, *, now: datetime) -> bool:
    """Whether ``judge`` grants ``request`` in full: allowed, and for a subscription at the QoS that it names."""
    decision = decide(judge, request, now=now)
    return decision.allowed and (request.action == "pub" or decision.qos >= request.qos)


class _Search:
    """One comparison."""

    def __init__(self, old: Policy, new: Policy, now: datetime) -> None:
        self.now = now
        self.complete = True
        self._rules = (old.rules, new.rules)
        self._changed = changed_rules(old.rules, new.rules)
        self._budget = MAX_PAIRS

    def regions(self) -> tuple[list[Region], list[Region]]:
        """The widened and the narrowed regions, each once, in the order of the changed rules."""
        found: tuple[dict[tuple[str, ...], Region], dict[tuple[str, ...], Region]] = ({}, {})
        for rule in self._changed:
            for topic in rule.topics:
                for wider, region in self._differences(rule, compile_pattern(topic), topic):
                    key = (region.who, region.action, region.filter, region.limit)
                    found[0 if wider else 1].setdefault(key, region)
        return list(found[0].values()), list(found[1].values())

    def _differences(self, changed: Rule, pattern: Pattern, topic: str) -> Iterable[tuple[bool, Region]]:
        """The regions within one filter of one changed rule; true ones are wider."""
        near = [self._near(rules, pattern) for rules in self._rules]
        identities, complete = population(replace(changed, topics=(topic,)), [*near[0], *near[1]])
        self.complete = self.complete and complete
        instants = self._instants(changed, *near)
        walks: dict[object, Walk] = {}
        actions: tuple[Literal["pub"], Literal["sub"]] = ("pub", "sub")
        for action in actions:
            if not changed.acts_on(action):
                continue
            tallies = (_Tally(changed, action, topic), _Tally(changed, action, topic))
            for identity in identities:
                levels = resolve(pattern, identity, changed.effect)
                if levels is None or not admits(changed.who, identity):
                    continue
                for at in instants:
                    old, new = (tuple(_entries(rules, identity, action, at)) for rules in near)
                    walk = self._walk(walks, Walk(levels, old, new, action))
                    tallies[0].add(identity, at, walk.widened, whole=walk.same == 0)
                    tallies[1].add(identity, at, walk.narrowed, whole=walk.same == 0)
            for wider, tally in zip((True, False), tallies, strict=True):
                yield from ((wider, region) for region in tally.regions())

    def _walk(self, done: dict[object, Walk], walk: Walk) -> Walk:
        """``walk``, walked; or the one of ``done`` that is the same, for many identities meet the same filters."""
        key = (walk.region, walk.old, walk.new, walk.action)
        if key not in done:
            self.complete = walk.run() and self.complete
            done[key] = walk
        return done[key]

    def _near(self, rules: Sequence[Rule], pattern: Pattern) -> list[Rule]:
        """The rules that can have a say about topics of ``pattern``, with only the filters that can."""
        region = _widest(pattern)
        near = []
        for rule in rules:
            if self._budget <= 0:
                self.complete = False
                break
            self._budget -= len(rule.topics)
            topics = tuple(
                topic for topic in rule.topics if intersect(region, _widest(compile_pattern(topic))) is not None
            )
            if topics:
                near.append(rule if len(topics) == len(rule.topics) else replace(rule, topics=topics))
        return near

    def _instants(self, changed: Rule, *near: Sequence[Rule]) -> list[datetime]:
        """Now, and every later time at which one of the rules ends."""
        later = {rule.expires for rules in near for rule in rules if rule.expires and rule.expires > self.now}
        if changed.expires and changed.expires > self.now:
            later.add(changed.expires)
        instants = [self.now, *sorted(later)]
        self.complete = self.complete and len(instants) <= MAX_INSTANTS
        return instants[:MAX_INSTANTS]


def changed_rules(old: Sequence[Rule], new: Sequence[Rule]) -> list[Rule]:
    """The rules of either list that are not in both in the same order; ids and notes do not count."""
    mine, yours = [meaning(rule) for rule in old], [meaning(rule) for rule in new]
    start = 0
    while start < min(len(mine), len(yours)) and mine[start] == yours[start]:
        start += 1
    end = 0
    while end < min(len(mine), len(yours)) - start and mine[-1 - end] == yours[-1 - end]:
        end += 1
    matcher = SequenceMatcher(None, mine[start : len(mine) - end], yours[start : len(yours) - end], autojunk=False)
    changed: list[Rule] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            changed += [*old[start + i : start + j], *new[start + k : start + m]]
    return changed


def meaning(rule: Rule) -> Rule:
    """``rule`` without its id and note: equal meanings decide alike."""
    return replace(rule, id="", note="")


def _widest(pattern: Pattern) -> Levels:
    """A filter that takes every topic that ``pattern`` can match for anybody."""
    return tuple((PLUS if at else ANY) if isinstance(level, Template) else level for at, level in enumerate(pattern))


def _entries(rules: Sequence[Rule], identity: Identity, action: Literal["pub", "sub"], at: datetime) -> list[Entry]:
    """The filters that apply to ``identity`` at a time, in order, as ``acl.policy.evaluate`` takes them."""
    entries = []
    for rule in rules:
        if rule.acts_on(action) and not rule.expired(at) and admits(rule.who, identity):
            for topic in rule.topics:
                levels = resolve(compile_pattern(topic), identity, rule.effect)
                if levels is not None:
                    entries.append(Entry(levels, rule.effect, rule.qos, rule.retain))
    return entries


class _Tally:
    """The differences of one direction within one filter of one rule, over all identities that it speaks of."""

    def __init__(self, rule: Rule, action: Literal["pub", "sub"], topic: str) -> None:
        self._rule, self._action, self._topic = rule, action, topic
        self._asked: set[Identity] = set()
        self._differing: set[Identity] = set()
        self._whole = True
        self._found: dict[tuple[str, str], tuple[Request, datetime]] = {}
        self._first: Identity | None = None

    def add(self, identity: Identity, at: datetime, differences: Sequence[Difference], *, whole: bool) -> None:
        """Count what one identity showed at one time; ``whole`` says that every topic of the filter differed."""
        self._asked.add(identity)
        if differences:
            self._differing.add(identity)
        self._whole = self._whole and (whole or not differences)
        for difference in differences:
            self._first = self._first or identity
            shown = self._named(difference.filter, identity)
            request = Request(identity, self._action, difference.topic, difference.qos, difference.retain)
            self._found.setdefault((shown, difference.limit), (request, at))

    def regions(self) -> Iterable[Region]:
        """What was found, as few regions as tell it."""
        if self._first is None:
            return
        who = who_text(self._rule.who)
        if len(self._differing) < len(self._asked):
            who = f"{who}, such as {identity_text(self._first)}"
        for limit in dict.fromkeys(limit for _, limit in self._found):
            found = {shown: witness for (shown, each), witness in self._found.items() if each == limit}
            merged = {self._topic: next(iter(found.values()))} if self._whole else _merged(found)
            for shown, (request, at) in list(merged.items())[:MAX_REGIONS_EACH]:
                yield Region(who, self._action, shown, self._rule.id, request, at, limit)

    def _named(self, shown: str, identity: Identity) -> str:
        """``shown`` with the variables that the rule names, or the username, in place of what they are for one."""
        pattern = compile_pattern(self._topic)
        levels = shown.split("/")
        for at, level in enumerate(levels):
            wanted = pattern[at] if at < len(pattern) else HASH
            if isinstance(wanted, Template):
                levels[at] = str(wanted) if level == wanted.resolve(identity) else level
            elif wanted in (PLUS, HASH) and level and level == identity.username:
                levels[at] = "{username}"
        return "/".join(levels)


def _merged(found: dict[str, tuple[Request, datetime]]) -> dict[str, tuple[Request, datetime]]:
    """The filters of ``found`` with ``a`` and ``a/+/#`` told as ``a/#``."""
    merged = dict(found)
    while joint := next((shown for shown in merged if shown.endswith("/+/#") and shown[:-4] in merged), None):
        witness = merged.pop(joint[:-4])
        del merged[joint]
        merged[joint[:-4] + "/#"] = witness
    return merged

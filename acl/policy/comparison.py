"""Two policies compared by what they mean: what the second allows that the first does not, and the reverse.

Two policies can only differ where a rule speaks that is not in both, in the same order. For each such rule the
identities that can make a difference (``acl.policy.population``) and the topics that can (one text per level for every
literal in play, and one that no filter names) are walked through, and the answers held against each other. Every
difference comes with a request that really flips.

What is compared is publishing (by QoS and retain flag) and receiving (by granted QoS) of single topics, at ``now`` and
after every later ``expires``. How a wildcard subscription is granted follows from that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import product
from typing import Literal

from acl.policy.budget import Budget
from acl.policy.globs import admits
from acl.policy.levels import mask
from acl.policy.model import Identity, Policy, Request, Rule, as_utc
from acl.policy.population import population
from acl.policy.printer import identity_text, who_text
from acl.policy.running import Judge, decide
from acl.policy.templates import Pattern, Template, compile_pattern, resolve
from acl.policy.topics import ANY, HASH, PLUS, Levels, intersect
from acl.policy.walk import Difference, Entry, Walk

EFFORT = 4_000_000
"""Steps that one comparison may take: two seconds of one core, whatever the policies are."""
FIXED = 256
"""Steps that looking at one filter costs at least."""
MAX_INSTANTS = 64
MAX_REGIONS_EACH = 8
"""Filters reported per changed rule, action and direction."""
MAX_REGIONS = 500
"""Regions of one direction after which the search ends: nobody reads more."""


_Chain = tuple[int, int, "_Chain | None"]


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
    """Whether ``new`` allows anything that ``old`` does not; true as well when that could not be ruled out."""
    found = diff(old, new, now=now)
    return bool(found.widened) or not found.complete


def permits(judge: Judge, request: Request, *, now: datetime) -> bool:
    """Whether ``judge`` grants ``request`` in full: allowed, and for a subscription at the QoS that it names."""
    decision = decide(judge, request, now=now)
    return decision.allowed and (request.action == "pub" or decision.qos >= request.qos)


class _Search:
    """One comparison."""

    def __init__(self, old: Policy, new: Policy, now: datetime, budget: Budget) -> None:
        self.now, self._budget = now, budget
        self.complete = True
        self._changed = list({meaning(rule): rule for rule in reversed(changed_rules(old.rules, new.rules))}.values())[
            ::-1
        ]
        self._rules = (Neighbours(old.rules, now), Neighbours(new.rules, now))

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
        """The regions within one filter of one changed rule; true ones are wider."""
        actions: tuple[Literal["pub"], Literal["sub"]] = ("pub", "sub")
        for action in actions:
            if not changed.acts_on(action):
                continue
            tallies = (_Tally(changed, action, topic), _Tally(changed, action, topic))
            self._tell(replace(changed, topics=(topic,)), action, tallies)
            for wider, tally in zip((True, False), tallies, strict=True):
                yield from ((wider, region) for region in tally.regions())

    def _tell(self, changed: Rule, action: Literal["pub", "sub"], tallies: tuple[_Tally, _Tally]) -> None:
        """Tell ``tallies`` what differs within ``changed``, which has one filter, for everybody who matters."""
        pattern = compile_pattern(changed.topics[0])
        near = [neighbours.near(pattern, action, self._budget) for neighbours in self._rules]
        if not self._budget.left > 0:
            self.complete = False
            return
        share = Budget(self._budget.left // 2)  # the other half is for what they do
        left = share.left
        identities, complete = population(changed, [*near[0], *near[1]], share)
        self._budget.take(left - share.left)
        instants = self._instants(changed, *near)
        self.complete = self.complete and complete
        walks: dict[object, Walk] = {}
        for identity, at in product(identities, instants):
            levels = resolve(pattern, identity, changed.effect)
            if levels is None or not admits(changed.who, identity):
                continue
            if not self._budget.take(12 * (len(near[0]) + len(near[1])) + 8):
                self.complete = False
                return
            old, new = (tuple(_entries(rules, identity, action, at)) for rules in near)
            walk = self._walk(walks, Walk(levels, old, new, action))
            tallies[0].add(identity, at, walk.widened, whole=walk.same == 0)
            tallies[1].add(identity, at, walk.narrowed, whole=walk.same == 0)

    def _walk(self, done: dict[object, Walk], walk: Walk) -> Walk:
        """``walk``, walked; or the one of ``done`` that is the same, for many identities meet the same filters."""
        key = (walk.region, walk.old, walk.new, walk.action)
        if key not in done:
            self.complete = walk.run(self._budget) and self.complete
            done[key] = walk
        return done[key]

    def _instants(self, changed: Rule, *near: Sequence[Rule]) -> list[datetime]:
        """Now, and every later time at which one of the rules ends."""
        later = {rule.expires for rules in near for rule in rules if rule.expires}
        if changed.expires:
            later.add(changed.expires)
        instants = [self.now, *sorted(later)]
        self.complete = self.complete and len(instants) <= MAX_INSTANTS
        return instants[:MAX_INSTANTS]


class Neighbours:
    """The rules of one policy that can have a say about a filter: one bit per filter, one set of masks per level."""

    def __init__(self, rules: Sequence[Rule], now: datetime) -> None:
        self._rules = rules
        self._filters: list[tuple[int, str, Levels]] = []
        for number, rule in enumerate(rules):
            for topic in () if rule.expired(now) else rule.topics:
                self._filters.append((number, topic, _widest(compile_pattern(topic))))
        self._columns = _columns([widest for _, _, widest in self._filters])

    def near(self, pattern: Pattern, action: Literal["pub", "sub"], budget: Budget) -> list[Rule]:
        """The rules in order, each with only those of its filters that share topics with ``pattern``."""
        region = _widest(pattern)
        found: dict[int, list[str]] = defaultdict(list)
        budget.take(FIXED + len(region) * (1 + len(self._filters) // 4096))
        for at in self._candidates(region):
            number, topic, widest = self._filters[at]
            if not budget.take(8):
                break
            if self._rules[number].acts_on(action) and intersect(region, widest) is not None:
                found[number].append(topic)
        return [_only(self._rules[number], found[number]) for number in sorted(found)]

    def _candidates(self, region: Levels) -> Iterator[int]:
        """The filters that agree with ``region`` wherever both are literal."""
        left = (1 << len(self._filters)) - 1
        for level, column in zip(region, self._columns, strict=False):
            if level not in (PLUS, HASH, ANY):
                left &= column.taking(level)
        digits = bin(left)[:1:-1]
        at = digits.find("1")
        while at >= 0:
            yield at
            at = digits.find("1", at + 1)


class _Column:
    """One level of many filters: which have which literal there. All others may take any text."""

    def __init__(self, literals: Mapping[str, Sequence[int]], size: int) -> None:
        self._literals = literals
        self._wild = ((1 << size) - 1) & ~mask(at for places in literals.values() for at in places)
        often = max(64, size // 64)  # a mask is as long as there are filters, so only few literals keep one
        self._masks = {text: mask(places) for text, places in literals.items() if len(places) >= often}

    def taking(self, text: str) -> int:
        """The filters that may take ``text`` here."""
        kept = self._masks.get(text)
        return self._wild | (mask(self._literals.get(text, ())) if kept is None else kept)


def _columns(filters: Sequence[Levels]) -> list[_Column]:
    literals: list[dict[str, list[int]]] = []
    for at, each in enumerate(filters):
        for level, text in enumerate(each):
            if level == len(literals):
                literals.append(defaultdict(list))
            if text not in (PLUS, HASH, ANY):
                literals[level][text].append(at)
    return [_Column(some, len(filters)) for some in literals]


def _only(rule: Rule, topics: list[str]) -> Rule:
    if len(topics) == len(rule.topics):
        return rule
    return replace(rule, topics=tuple(topic for topic in rule.topics if topic in topics))


def changed_rules(old: Sequence[Rule], new: Sequence[Rule]) -> list[Rule]:
    """The rules of either list that are not in both in the same order; ids and notes do not count.

    Of rules that say the same, the first of one list is held against the first of the other, and so on; what is kept
    is the longest rising sequence of their places, so time is nearly linear.
    """
    places = {key: at for at, key in enumerate(_counted(new))}
    ends: list[int] = []
    chains: list[_Chain] = []
    for at, key in enumerate(_counted(old)):
        place = places.get(key)
        if place is not None:
            length = bisect_left(ends, place)
            ends[length : length + 1] = [place]
            chains[length : length + 1] = [(at, place, chains[length - 1] if length else None)]
    kept_old, kept_new = set(), set()
    chain = chains[-1] if chains else None
    while chain:
        kept_old.add(chain[0])
        kept_new.add(chain[1])
        chain = chain[2]
    gone = [rule for at, rule in enumerate(old) if at not in kept_old]
    return gone + [rule for at, rule in enumerate(new) if at not in kept_new]


def _counted(rules: Sequence[Rule]) -> list[tuple[Rule, int]]:
    """The meaning of each rule, and how many before it mean the same."""
    counts: Counter[Rule] = Counter()
    counted = []
    for rule in map(meaning, rules):
        counted.append((rule, counts[rule]))
        counts[rule] += 1
    return counted


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

"""Select the rules that matter to a comparison: those that changed, and those that share topics with a filter."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from acl.policy.analysis.budget import Budget
from acl.policy.engine.levels import mask
from acl.policy.engine.model import Rule
from acl.policy.engine.templates import Pattern, Template, compile_pattern
from acl.policy.engine.topics import ANY, HASH, PLUS, Levels, intersect

FIXED = 256
"""Steps that looking at one filter costs at least."""
_Chain = tuple[int, int, "_Chain | None"]


class Neighbors:
    """An index that finds the rules of one policy that overlap a filter: one bit per filter, masks per topic level."""

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
    """One topic level of many filters: which filters have which literal. All others match any text."""

    def __init__(self, literals: Mapping[str, Sequence[int]], size: int) -> None:
        self._literals = literals
        self._wild = ((1 << size) - 1) & ~mask(at for places in literals.values() for at in places)
        often = max(64, size // 64)  # a mask is as long as there are filters, so only few literals keep one
        self._masks = {text: mask(places) for text, places in literals.items() if len(places) >= often}

    def taking(self, text: str) -> int:
        """The filters that can match ``text`` at this level."""
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

    Nor do rules that mean the same as an earlier one: they decide nothing. The longest increasing sequence of positions
    counts as unchanged, so the time is nearly linear.
    """
    before, after = _first_of_each(old), _first_of_each(new)
    places = {key: at for at, key in enumerate(after)}
    ends: list[int] = []
    chains: list[_Chain] = []
    for at, key in enumerate(before):
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
    gone = [rule for at, rule in enumerate(before.values()) if at not in kept_old]
    return gone + [rule for at, rule in enumerate(after.values()) if at not in kept_new]


def _first_of_each(rules: Sequence[Rule]) -> dict[Rule, Rule]:
    """The first rule of each meaning, in their order."""
    found: dict[Rule, Rule] = {}
    for rule in rules:
        found.setdefault(meaning(rule), rule)
    return found


def meaning(rule: Rule) -> Rule:
    """``rule`` without its id and note: equal meanings decide alike."""
    return replace(rule, id="", note="")


def _widest(pattern: Pattern) -> Levels:
    """A filter that matches every topic that ``pattern`` can match for any identity."""
    return tuple((PLUS if at else ANY) if isinstance(level, Template) else level for at, level in enumerate(pattern))

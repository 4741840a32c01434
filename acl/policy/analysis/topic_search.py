"""Search the topics of one filter, for one identity, for those on which two lists of rules differ.

The search goes level by level. At each level only the literals of filters that can still match make a difference, and
one text that no filter names. A state is the set of filters on either side that can still match; none is entered twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from acl.policy.analysis.budget import Budget
from acl.policy.engine.model import Effect
from acl.policy.engine.topics import ANY, HASH, MAX_LEVELS, PLUS, Levels, is_hidden, shortest

MAX_STATES = 20_000
ALL_LIMITS = 6
_FRESH_TEXTS = ("any", "other", "some", "more")


@dataclass(frozen=True, slots=True)
class ResolvedFilter:
    """One filter of a rule, resolved for an identity, with the rule's effect and limits."""

    levels: Levels
    effect: Effect
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Topics on which the two sides differ: a filter, and one example with the QoS and retain flag that differ."""

    filter: str
    topic: str
    qos: int
    retain: bool
    limit: str


@dataclass(slots=True)
class TopicSearch:
    """Compares ``old`` and ``new`` on the topics of ``region``. After ``run``: ``widened``, ``narrowed``, ``same``."""

    region: Levels
    old: tuple[ResolvedFilter, ...]
    new: tuple[ResolvedFilter, ...]
    action: Literal["pub", "sub"]
    widened: list[Difference] = field(default_factory=list)
    narrowed: list[Difference] = field(default_factory=list)
    same: int = 0
    """The number of states in which the two sides agree."""
    _fresh: str = ""

    def run(self, budget: Budget) -> bool:
        """Run the search; false when it exceeded ``MAX_STATES`` or the budget."""
        named = {level for entry in (*self.old, *self.new) for level in entry.levels} | set(self.region)
        self._fresh = next((text for text in _FRESH_TEXTS if not {text, "$" + text} & named), "") or _unnamed(named)
        queue: list[tuple[tuple[str, ...], tuple[ResolvedFilter, ...], tuple[ResolvedFilter, ...]]] = [
            ((), self.old, self.new)
        ]
        seen: set[tuple[int, tuple[ResolvedFilter, ...], tuple[ResolvedFilter, ...]]] = set()
        while queue:
            path, old, new = queue.pop()
            if old == new:
                self.same += 1
                continue
            if shortest(path) == len(path) and self._ends(len(path)):
                self._compare(path, old, new)
            texts = self._texts(path, old, new)
            if not budget.take((len(texts) + 1) * (len(old) + len(new) + 8)):
                return False
            for text in texts:
                longer = (*path, text)
                after = _after(old, longer), _after(new, longer)
                state = (len(longer), *after)
                if state not in seen and len(longer) <= min(self._depth(old, new), MAX_LEVELS):
                    seen.add(state)
                    queue.append((longer, *after))
            if len(seen) > MAX_STATES:
                return False
        return True

    def _depth(self, old: Sequence[ResolvedFilter], new: Sequence[ResolvedFilter]) -> int:
        """The greatest topic length to try: one level more than the deepest filter that can still match."""
        return max(len(self.region), *(len(entry.levels) for entry in (*old, *new)), 0) + 1

    def _ends(self, length: int) -> bool:
        """Whether a topic of the region can have this length."""
        if self.region[-1] == HASH:
            return length >= len(self.region) - 1
        return length == len(self.region)

    def _texts(self, path: tuple[str, ...], old: Sequence[ResolvedFilter], new: Sequence[ResolvedFilter]) -> list[str]:
        """The texts that can make a difference at the next level; ``_fresh`` stands for those that no filter names."""
        at = len(path)
        if at >= len(self.region) and self.region[-1] != HASH:
            return []
        wanted = self.region[at] if at < len(self.region) else HASH
        if wanted not in (PLUS, HASH, ANY):
            return [wanted]
        texts = {entry.levels[at] for entry in (*old, *new) if len(entry.levels) > at} - {PLUS, HASH, ANY}
        if at == 0 and wanted != ANY:
            texts = {text for text in texts if not is_hidden(text)}
        hidden = ["$" + self._fresh] if at == 0 and wanted == ANY else []
        return [*sorted(texts, reverse=True), *hidden, self._fresh]

    def _compare(self, path: tuple[str, ...], old: Sequence[ResolvedFilter], new: Sequence[ResolvedFilter]) -> None:
        before, after = (self._granted(_ending(side, len(path))) for side in (old, new))
        self.same += before == after
        for more, less, found in ((after, before, self.widened), (before, after, self.narrowed)):
            gained = sorted(more - less)
            if gained:
                qos, retain = gained[0]
                limit = "" if not less else _limit(gained)
                found.append(Difference(self._filter(path, old, new), "/".join(path), qos, retain, limit))

    def _granted(self, matching: Sequence[ResolvedFilter]) -> set[tuple[int, bool]]:
        """The QoS and retain flags with which the first matching rule that decides allows the topic."""
        if self.action == "pub":
            return {(qos, retain) for retain in (False, True) for qos in range(3) if _published(matching, qos, retain)}
        if not matching or matching[0].effect is Effect.DENY:
            return set()
        best = min(entry.qos for entry in matching if entry.effect is Effect.ALLOW)
        return {(qos, False) for qos in range(best + 1)}

    def _filter(self, path: tuple[str, ...], old: Sequence[ResolvedFilter], new: Sequence[ResolvedFilter]) -> str:
        """A filter of the topics that all filters treat like ``path``."""
        levels = [PLUS if text in (self._fresh, "$" + self._fresh) else text for text in path]
        deepest = max((len(entry.levels) for entry in (*old, *new)), default=0)
        if self.region[-1] == HASH and levels[-1] == PLUS and len(path) >= max(deepest, len(self.region)):
            return "/".join([*levels, HASH])
        return "/".join(levels)


def _published(matching: Sequence[ResolvedFilter], qos: int, retain: bool) -> bool:
    for entry in matching:
        if entry.effect is Effect.DENY:
            return False
        if qos <= entry.qos and (entry.retain or not retain):
            return True
    return False


def _after(entries: Sequence[ResolvedFilter], path: tuple[str, ...]) -> tuple[ResolvedFilter, ...]:
    """The entries that can still match a topic that begins with ``path``; earlier levels are already matched."""
    at, text = len(path) - 1, path[-1]
    still = []
    for entry in entries:
        levels = entry.levels
        if at == 0 and is_hidden(text) and levels[0] in (PLUS, HASH):
            continue
        past_hash = levels[-1] == HASH and at >= len(levels) - 1
        if past_hash or (at < len(levels) and levels[at] in (PLUS, ANY, text)):
            still.append(entry)
    return tuple(still)


def _ending(entries: Sequence[ResolvedFilter], length: int) -> list[ResolvedFilter]:
    """The entries that match a topic of exactly this length, whose levels have all been matched."""
    return [
        entry
        for entry in entries
        if (length >= len(entry.levels) - 1 if entry.levels[-1] == HASH else length == len(entry.levels))
    ]


def _limit(gained: Sequence[tuple[int, bool]]) -> str:
    """The text that limits a difference to what was gained: ``retained``, or ``qos N`` for the lowest QoS."""
    if all(retain for _, retain in gained):
        return "retained"
    return f"qos {min(qos for qos, _ in gained)}"


def _unnamed(named: set[str]) -> str:
    number = 1
    while {f"any-{number}", f"$any-{number}"} & named:
        number += 1
    return f"any-{number}"

"""A walk through the topics of one filter, for one identity, on which two lists of rules may differ.

Topics are walked level by level. At each level only the literals that a filter still in play names can matter, and
one text that none names; a state is the set of filters still in play on either side, and none is entered twice.
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
class Entry:
    """One filter as it reads for an identity, and what its rule says."""

    levels: Levels
    effect: Effect
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Topics on which the two sides differ: as a filter, and one of them with the QoS and retain flag that flip."""

    filter: str
    topic: str
    qos: int
    retain: bool
    limit: str


@dataclass(slots=True)
class Walk:
    """Compares ``old`` and ``new`` on the topics of ``region``. After ``run``: ``widened``, ``narrowed``, ``same``."""

    region: Levels
    old: tuple[Entry, ...]
    new: tuple[Entry, ...]
    action: Literal["pub", "sub"]
    widened: list[Difference] = field(default_factory=list)
    narrowed: list[Difference] = field(default_factory=list)
    same: int = 0
    """How many kinds of topics did not differ."""
    _fresh: str = ""

    def run(self, budget: Budget) -> bool:
        """Walk; false when there were more states than ``MAX_STATES``, or the budget did not do."""
        named = {level for entry in (*self.old, *self.new) for level in entry.levels} | set(self.region)
        self._fresh = next((text for text in _FRESH_TEXTS if not {text, "$" + text} & named), "") or _unnamed(named)
        queue: list[tuple[tuple[str, ...], tuple[Entry, ...], tuple[Entry, ...]]] = [((), self.old, self.new)]
        seen: set[tuple[int, tuple[Entry, ...], tuple[Entry, ...]]] = set()
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

    def _depth(self, old: Sequence[Entry], new: Sequence[Entry]) -> int:
        """How long topics have to be tried: one level more than any filter still in play one level above."""
        return max(len(self.region), *(len(entry.levels) for entry in (*old, *new)), 0) + 1

    def _ends(self, length: int) -> bool:
        """Whether a topic of the region can have this length."""
        if self.region[-1] == HASH:
            return length >= len(self.region) - 1
        return length == len(self.region)

    def _texts(self, path: tuple[str, ...], old: Sequence[Entry], new: Sequence[Entry]) -> list[str]:
        """The texts that can make a difference at the next level; ``_fresh`` is the one that no filter names."""
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

    def _compare(self, path: tuple[str, ...], old: Sequence[Entry], new: Sequence[Entry]) -> None:
        before, after = (self._granted(_ending(side, len(path))) for side in (old, new))
        self.same += before == after
        for more, less, found in ((after, before, self.widened), (before, after, self.narrowed)):
            gained = sorted(more - less)
            if gained:
                qos, retain = gained[0]
                limit = "" if not less else _limit(gained)
                found.append(Difference(self._filter(path, old, new), "/".join(path), qos, retain, limit))

    def _granted(self, matching: Sequence[Entry]) -> set[tuple[int, bool]]:
        """The QoS and retain flags with which the first matching rule that decides allows the topic."""
        if self.action == "pub":
            return {(qos, retain) for retain in (False, True) for qos in range(3) if _published(matching, qos, retain)}
        if not matching or matching[0].effect is Effect.DENY:
            return set()
        best = min(entry.qos for entry in matching if entry.effect is Effect.ALLOW)
        return {(qos, False) for qos in range(best + 1)}

    def _filter(self, path: tuple[str, ...], old: Sequence[Entry], new: Sequence[Entry]) -> str:
        """The topics that are like ``path`` for all filters, as a filter."""
        levels = [PLUS if text in (self._fresh, "$" + self._fresh) else text for text in path]
        deepest = max((len(entry.levels) for entry in (*old, *new)), default=0)
        if self.region[-1] == HASH and levels[-1] == PLUS and len(path) >= max(deepest, len(self.region)):
            return "/".join([*levels, HASH])
        return "/".join(levels)


def _published(matching: Sequence[Entry], qos: int, retain: bool) -> bool:
    for entry in matching:
        if entry.effect is Effect.DENY:
            return False
        if qos <= entry.qos and (entry.retain or not retain):
            return True
    return False


def _after(entries: Sequence[Entry], path: tuple[str, ...]) -> tuple[Entry, ...]:
    """The entries that can still match a topic that begins with ``path``; earlier levels have been seen to."""
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


def _ending(entries: Sequence[Entry], length: int) -> list[Entry]:
    """The entries that match a topic of just this length, having matched all its levels."""
    return [
        entry
        for entry in entries
        if (length >= len(entry.levels) - 1 if entry.levels[-1] == HASH else length == len(entry.levels))
    ]


def _limit(gained: Sequence[tuple[int, bool]]) -> str:
    """The part of an action that is gained where another part was there before."""
    if all(retain for _, retain in gained):
        return "retained"
    return f"qos {min(qos for qos, _ in gained)}"


def _unnamed(named: set[str]) -> str:
    number = 1
    while {f"any-{number}", f"$any-{number}"} & named:
        number += 1
    return f"any-{number}"

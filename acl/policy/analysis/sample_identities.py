"""Build a finite set of sample identities in which every difference between rules becomes visible.

Whether a rule applies to an identity, and the values of its variables, depend on a finite number of conditions:
which globs its username, client ID and claims match, which literals of the filters its variables equal, whether they
can stand in a topic, and which of them are equal. Every possible combination of outcomes has an identity here.

Attributes are combined one after the other. Of combinations that no remaining filter distinguishes, one is kept, so the
number of identities grows with the differences they make, not with all combinations of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from acl.policy.analysis.budget import Budget
from acl.policy.analysis.equations import Attribute, readings
from acl.policy.analysis.glob_automata import Framed, telling
from acl.policy.engine.globs import matches_any
from acl.policy.engine.model import ClaimValue, Effect, Identity, Rule, Who, claim_texts
from acl.policy.engine.templates import Pattern, Template, compile_pattern, unusable

MAX_IDENTITIES = 8192
_FEW = 32
"""Texts that are tried when there are too many to try all."""
_UNASKED = {"username": "someone", "client_id": "", "org": "org_aaaaaaaaaaaa"}
"""The value of an attribute that no rule looks at."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of an attribute, and the filters that can still match it, as bits."""

    value: ClaimValue | None
    bits: int
    text: str | None
    """The value of a variable; ``None`` for one that cannot stand in a topic."""


@dataclass(frozen=True, slots=True)
class _Filter:
    """The conditions that one filter of a rule puts on identities."""

    who: Who
    effect: Effect
    pattern: Pattern
    variables: frozenset[str]


_Combinations = dict[object, tuple[int, dict[str, _Value]]]
"""The combinations so far: the remaining filters and the chosen values, by the values that filters distinguish."""


def sample_identities(changed: Rule, near: Sequence[Rule], budget: Budget) -> tuple[list[Identity], bool]:
    """The sample identities of ``changed``, a rule of one filter: one for every case that ``near`` distinguishes.

    The second value is false when the budget did not allow all of them.
    """
    filters = list(dict.fromkeys(_filter(rule, topic) for rule in (changed, *near) for topic in rule.topics))
    attributes = _attributes(filters)
    complete = readings(list(dict.fromkeys(each.pattern for each in filters)), attributes, budget)
    using = {name: sum(1 << at for at, each in enumerate(filters) if name in each.variables) for name in attributes}
    people: _Combinations = {(): ((1 << len(filters)) - 1, {})}
    for name in sorted(attributes, key=lambda name: using[name] != 0):
        if not budget.take(len(filters)):
            complete = False
            break
        values, whole = _Question(name, filters, budget).values(attributes[name])
        people, fits = _combined(people, name, values, using, budget)
        complete = complete and whole and fits
    return [_identity(chosen) for _, chosen in people.values()], complete


def _filter(rule: Rule, topic: str) -> _Filter:
    pattern = compile_pattern(topic)
    named = (name for level in pattern if isinstance(level, Template) for name in level.variables)
    return _Filter(rule.who, rule.effect, pattern, frozenset(named))


def _attributes(filters: Iterable[_Filter]) -> dict[str, Attribute]:
    attributes = {name: Attribute() for name in _UNASKED}
    for each in filters:
        asked = [("username", each.who.username), ("client_id", each.who.client_id)]
        asked += [(f"claims.{name}", globs) for name, globs in each.who.claims]
        for name, globs in asked:
            attributes.setdefault(name, Attribute()).globs.update(dict.fromkeys(globs))
        for name in each.variables:
            attributes.setdefault(name, Attribute()).globs.update({"": None, "*/*": None})
        first = each.pattern[0]
        if isinstance(first, Template) and not first.parts[0]:
            attributes[first.parts[1]].globs["$*"] = None
    return attributes


class _Question:
    """The conditions on one attribute: globs of which one must match, and whether its value can stand in a topic."""

    def __init__(self, name: str, filters: Sequence[_Filter], budget: Budget) -> None:
        self.name, self._budget = name, budget
        self._claim = name.removeprefix("claims.") if name.startswith("claims.") else None
        self._by_text: tuple[dict[str, int], dict[str, int]] = (defaultdict(int), defaultdict(int))
        """What asks for just this text, and what asks for it and has to stand in a topic as well."""
        self._by_globs: dict[tuple[tuple[str, ...] | None, bool], int] = defaultdict(int)
        for at, each in enumerate(filters):
            needed = each.effect is Effect.ALLOW and name in each.variables
            globs = self._globs(each.who)
            for glob in globs or ():
                if "*" not in glob:
                    self._by_text[needed][glob] |= 1 << at
            patterns = None if globs is None else tuple(glob for glob in globs if "*" in glob)
            if patterns != ():
                self._by_globs[patterns, needed] |= 1 << at
        self._any_list = sum(bits for (globs, _), bits in self._by_globs.items() if globs is None)

    def _globs(self, who: Who) -> tuple[str, ...] | None:
        if self._claim is not None:
            return dict(who.claims).get(self._claim)
        return {"username": who.username, "client_id": who.client_id}.get(self.name)

    def values(self, attribute: Attribute) -> tuple[list[_Value], bool]:
        """The values of the attribute that can make a difference; true when those are all."""
        if not attribute.globs.keys() - {"*"} and self._claim is None:
            return [self.value(_UNASKED[self.name])], True
        texts, complete = telling(map(Framed, attribute.globs), self._budget, each=attribute.each)
        texts = list(dict.fromkeys([*texts, *attribute.readings]))
        complete = complete and self._budget.take(6 * len(texts) * len(self._by_globs))
        if not complete:
            texts = texts[:_FEW]
        values = [self.value(text) for text in texts]
        if self._claim is not None:
            lists, whole = self._lists(texts)
            return [lists[0], *values, *lists[1:]], complete and whole
        return values, complete

    def _lists(self, texts: Iterable[str]) -> tuple[list[_Value], bool]:
        """Values of a claim as a list: no claim, and one list for every set of filters that a list can match."""
        found: dict[int, list[str]] = {self.value([]).bits: []}
        for text in texts:
            met = self.value([text]).bits
            for bits, some in list(found.items()):
                joined = (bits | met) & ~self._any_list | (bits & met)  # one element of it that matches is enough
                found.setdefault(joined, [*some, text])
            if len(found) > MAX_IDENTITIES or not self._budget.take(len(found) + len(self._by_globs)):
                return [_Value(some or None, bits, None) for bits, some in found.items()], False
        return [_Value(some or None, bits, None) for bits, some in found.items()], True

    def value(self, value: ClaimValue) -> _Value:
        """``value`` with the filters that can match it."""
        texts = claim_texts(value)
        text = value if isinstance(value, str) and not unusable(value) else None
        bits = 0
        for by_text in self._by_text if text is not None else self._by_text[:1]:
            for each in texts:
                bits |= by_text.get(each, 0)
        for (globs, needed), asking in self._by_globs.items():
            if (text is not None or not needed) and (globs is None or any(matches_any(globs, each) for each in texts)):
                bits |= asking
        return _Value(value, bits, text)


def _combined(
    people: _Combinations, name: str, values: Sequence[_Value], using: Mapping[str, int], budget: Budget
) -> tuple[_Combinations, bool]:
    """Extend every combination by every value of one attribute, keeping one of those that no filter distinguishes."""
    variables = [each for each, bits in using.items() if bits]
    combined: _Combinations = {}
    for (bits, chosen), value in product(people.values(), values):
        left = bits & value.bits
        if not left & 1:
            continue  # the changed rule does not speak of it
        now = {**chosen, name: value}
        key = (left, *(now[each].text for each in variables if each in now and using[each] & left))
        combined.setdefault(key, (left, now))
        if len(combined) >= MAX_IDENTITIES or not budget.take(4):
            return combined, False
    return combined, True


def _identity(chosen: Mapping[str, _Value]) -> Identity:
    claims = {
        name.removeprefix("claims."): each.value
        for name, each in chosen.items()
        if name.startswith("claims.") and each.value is not None
    }
    org, username, client_id = (
        str(chosen[name].value) if name in chosen else _UNASKED[name] for name in ("org", "username", "client_id")
    )
    return Identity(org, username, client_id, claims)

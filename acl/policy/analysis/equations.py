"""Find values at which a topic variable equals a literal, or two variables equal each other.

Whether two filters match at a level with variables depends on the identity's values. A literal fixes the value of a
variable. Two levels with variables, such as ``x{username}`` and ``{client_id}``, are an equation: one value is the
other with fixed text around it, and the search looks for a text that satisfies the conditions on both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

from acl.policy.analysis.budget import Budget
from acl.policy.analysis.glob_automata import Framed, literal, telling
from acl.policy.engine.templates import Pattern, Template
from acl.policy.engine.topics import HASH, PLUS

MAX_CHAINS = 256
"""Chains of equations from one variable to others that are followed."""


@dataclass(slots=True)
class Attribute:
    """The conditions on one attribute: ``username``, ``client_id``, ``org`` or ``claims.NAME``."""

    globs: dict[str, None] = field(default_factory=dict)
    """Globs of ``who``, and those that tell whether it can stand in a topic, and as what."""
    readings: dict[str, None] = field(default_factory=dict)
    """Texts at which several variables read alike."""
    each: int = 1
    """How many texts of a kind are needed so that it can differ from all others that could read alike."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A variable with fixed text before and after it."""

    name: str
    head: str
    tail: str


_Equation = tuple[_Side, _Side]
"""Two sides that read alike. What their heads and their tails share is taken away, so one of either is empty."""


def readings(patterns: Sequence[Pattern], attributes: Mapping[str, Attribute], budget: Budget) -> bool:
    """Add to ``attributes`` the values at which variables equal something else; true when those are all."""
    complete = True
    equations: dict[_Equation, None] = {}
    for templates, literals in _levels(patterns):
        if not budget.take(len(templates) * (len(templates) + len(literals))):
            return False
        complete = _against_literals(templates, literals, attributes) and complete
        for one, other in combinations(templates, 2):
            if not _compatible(one, other):
                continue
            if len(one.parts) != 3 or len(other.parts) != 3 or one.parts[1] == other.parts[1]:
                complete = False
            else:
                equations[_equation(one, other)] = None
    counts = Counter(side.name for equation in equations for side in equation)
    for name, count in counts.items():
        attributes[name].each = count + 1
    for base in counts:
        complete = _found(base, equations, attributes, budget) and complete
    return complete and _one_sided(equations)


def _levels(patterns: Sequence[Pattern]) -> list[tuple[list[Template], list[str]]]:
    """The templates and the literals of each topic level that has templates."""
    depth = max(map(len, patterns), default=0)
    found = []
    for at in range(depth):
        here = list(dict.fromkeys(pattern[at] for pattern in patterns if len(pattern) > at))
        templates = [level for level in here if isinstance(level, Template)]
        literals = [level for level in here if isinstance(level, str) and level not in (PLUS, HASH)]
        if templates:
            found.append((templates, literals))
    return found


def _against_literals(
    templates: Sequence[Template], literals: Sequence[str], attributes: Mapping[str, Attribute]
) -> bool:
    """Solve every template against every literal; templates with more than two variables are not solved."""
    complete = True
    for template in templates:
        for text in literals:
            if len(template.parts) > 5:
                complete = complete and not _frames(template, text)
                continue
            for name, value in _solutions(template, text):
                attributes[name].globs[literal(value)] = None
    return complete


def _frames(template: Template, text: str) -> bool:
    head, tail = template.parts[0], template.parts[-1]
    return text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)


def _solutions(template: Template, text: str) -> Iterator[tuple[str, str]]:
    """The values of the variables for which ``template``, with one or two variables, equals ``text``."""
    if not _frames(template, text):
        return
    head, tail = template.parts[0], template.parts[-1]
    middle = text[len(head) : len(text) - len(tail)]
    if len(template.parts) == 3:
        yield template.parts[1], middle
        return
    _, one, joint, other, _ = template.parts
    for at in range(1, len(middle)):
        if middle.startswith(joint, at) and at + len(joint) < len(middle):
            yield one, middle[:at]
            yield other, middle[at + len(joint) :]


def _compatible(one: Template, other: Template) -> bool:
    """Whether two templates can be equal: their fixed heads and tails do not contradict each other."""
    heads, tails = (one.parts[0], other.parts[0]), (one.parts[-1], other.parts[-1])
    if not (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])):
        return False
    if not (tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])):
        return False
    same = len(one.parts) == len(other.parts) == 3 and one.parts[1] == other.parts[1]
    return not same or len(heads[0] + tails[0]) == len(heads[1] + tails[1])


def _equation(one: Template, other: Template) -> _Equation:
    first, second = sorted((one, other), key=lambda template: template.parts[1])
    head = min(len(first.parts[0]), len(second.parts[0]))
    tail = min(len(first.parts[2]), len(second.parts[2]))
    one_side, other_side = (
        _Side(name, before[head:], after[: len(after) - tail]) for before, name, after in (first.parts, second.parts)
    )
    return one_side, other_side


def _one_sided(equations: Collection[_Equation]) -> bool:
    """Whether all fixed text stands on one side of the variables: then the shortest value is part of all others."""
    sides = [side for equation in equations for side in equation]
    return not any(side.head for side in sides) or not any(side.tail for side in sides)


def _found(base: str, equations: Collection[_Equation], attributes: Mapping[str, Attribute], budget: Budget) -> bool:
    """Values for ``base``, the shortest of the equal variables, and the values of the others that follow."""
    chains = []
    for chain in islice(_forms(_Side(base, "", ""), equations, frozenset((base,))), MAX_CHAINS):
        if not budget.take(3 * len(equations)):
            return False
        chains.append(chain)
    complete = len(chains) < MAX_CHAINS
    forms = list(dict.fromkeys(chains))
    framed = [
        Framed(glob, literal(form.head), literal(form.tail)) for form in forms for glob in attributes[form.name].globs
    ]
    words, whole = telling(framed, budget)
    for form in forms:
        attributes[form.name].readings.update(dict.fromkeys(form.head + word + form.tail for word in words))
    return complete and whole


def _forms(form: _Side, equations: Collection[_Equation], met: frozenset[str]) -> Iterator[_Side]:
    """The values of all variables that follow, along every chain of equations, from ``form`` for one of them."""
    yield form
    for one, other in (*equations, *((other, one) for one, other in equations)):
        if one.name != form.name or other.name in met:
            continue
        head, tail = one.head + form.head, form.tail + one.tail
        if head.startswith(other.head) and tail.endswith(other.tail):
            further = _Side(other.name, head[len(other.head) :], tail[: len(tail) - len(other.tail)])
            yield from _forms(further, equations, met | {other.name})

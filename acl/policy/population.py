"""Identities that tell policies apart: a finite set in which every difference between rules shows.

Who a rule speaks of and what its variables become depend on an identity only through a finite number of questions:
which globs its username, client id and claims match, which literals of the filters they equal, whether they can stand
in a topic, and whether two of them are the same text. For every possible set of answers there is an identity here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product

from acl.policy.globs import matches_any
from acl.policy.model import ClaimValue, Effect, Identity, Rule
from acl.policy.templates import Pattern, Template, compile_pattern, unusable, variable_value, variables
from acl.policy.topics import HASH, PLUS
from acl.policy.words import telling

MAX_IDENTITIES = 4096
MAX_LISTED = 6
"""Texts of one claim up to which every list of them is tried; beyond, single ones, pairs and all together."""
_UNASKED = {"username": "someone", "client_id": "", "org": "org_aaaaaaaaaaaa"}
"""What stands for an attribute that no rule looks at."""


@dataclass(slots=True)
class _Attribute:
    """What the rules ask of one attribute: ``username``, ``client_id``, ``org`` or ``claims.NAME``."""

    globs: dict[str, None] = field(default_factory=dict)
    extra: dict[str, None] = field(default_factory=dict)
    """Texts to try that cannot be written as a glob: they contain a ``*`` of their own."""
    in_who: bool = False
    in_topics: bool = False
    rivals: int = 1
    """How many attributes can be the same text at some level, this one included: so many texts tell them apart."""


def population(changed: Rule, near: Sequence[Rule]) -> tuple[list[Identity], bool]:
    """Whom ``changed`` speaks of: identities for every way in which it and the rules ``near`` can tell them apart.

    The second value is whether that is all of them.
    """
    rules = [changed, *near]
    patterns = [compile_pattern(topic) for rule in rules for topic in rule.topics]
    attributes = _attributes(rules, patterns)
    complete = _relate(attributes, patterns)
    values: dict[str, list[ClaimValue | None]] = {}
    for name, attribute in attributes.items():
        texts, whole = telling(tuple(attribute.globs), each=attribute.rivals)
        texts += [text for text in attribute.extra if text not in texts]
        complete = complete and whole
        if name.startswith("claims."):
            values[name] = _claim_values(texts, attribute)
        else:
            asked = attribute.in_who or attribute.in_topics
            values[name] = list(texts) if asked else [_UNASKED[name]]
    _add_solutions(values, patterns)
    for name, some in values.items():
        values[name] = [value for value in some if _met(changed, name, value)]
    size = 1
    for some in values.values():
        size *= len(some)
    chosen = islice(product(*values.values()), MAX_IDENTITIES)
    return [_identity(dict(zip(values, each, strict=True))) for each in chosen], complete and size <= MAX_IDENTITIES


def _attributes(rules: Sequence[Rule], patterns: Sequence[Pattern]) -> dict[str, _Attribute]:
    attributes = {"username": _Attribute(), "client_id": _Attribute(), "org": _Attribute()}
    for rule in rules:
        asked = [("username", rule.who.username), ("client_id", rule.who.client_id)]
        asked += [(f"claims.{name}", globs) for name, globs in rule.who.claims]
        for name, globs in asked:
            attribute = attributes.setdefault(name, _Attribute())
            attribute.globs.update(dict.fromkeys(globs))
            attribute.in_who = attribute.in_who or globs != ("*",) or name.startswith("claims.")
    for template in _templates(patterns):
        for name in template.variables:
            attribute = attributes.setdefault(name, _Attribute())
            attribute.in_topics = True
            attribute.globs.update({"": None, "*/*": None})
    return attributes


def _templates(patterns: Iterable[Pattern]) -> list[Template]:
    return list(dict.fromkeys(level for pattern in patterns for level in pattern if isinstance(level, Template)))


def _relate(attributes: dict[str, _Attribute], patterns: Sequence[Pattern]) -> bool:
    """Add the texts at which a variable equals a literal, and let variables that can be equal share their globs."""
    complete = True
    sharing: set[tuple[str, str]] = set()
    for templates, literals in _levels(patterns):
        for template in templates:
            if len(template.variables) > 2:
                complete = False
            for literal in literals:
                for solution in _solutions(template, literal):
                    for name, text in solution.items():
                        (attributes[name].extra if "*" in text else attributes[name].globs)[text] = None
        for one, other in combinations(templates, 2):
            if len(one.parts) == len(other.parts) == 3:
                sharing.add((one.variables[0], other.variables[0]))
    rivals = {name for pair in sharing if pair[0] != pair[1] for name in pair}
    for name in rivals:
        attributes[name].rivals = len(rivals)
    for _ in rivals:
        for one_name, other_name in sharing:
            shared = attributes[one_name].globs | attributes[other_name].globs
            attributes[one_name].globs = attributes[other_name].globs = dict(shared)
    return complete


def _levels(patterns: Sequence[Pattern]) -> list[tuple[list[Template], list[str]]]:
    """The templates and the literals that stand at the same level, level by level, where there are templates."""
    depth = max(map(len, patterns), default=0)
    found = []
    for at in range(depth):
        here = list(dict.fromkeys(pattern[at] for pattern in patterns if len(pattern) > at))
        templates = [level for level in here if isinstance(level, Template)]
        literals = [level for level in here if isinstance(level, str) and level not in (PLUS, HASH)]
        if templates:
            found.append((templates, literals))
    return found


def _solutions(template: Template, literal: str) -> list[dict[str, str]]:
    """The values of the variables at which ``template`` reads ``literal`` (of one or two variables)."""
    head, tail = template.parts[0], template.parts[-1]
    if not (literal.startswith(head) and literal.endswith(tail) and len(literal) > len(head) + len(tail)):
        return []
    middle = literal[len(head) : len(literal) - len(tail)]
    if len(template.parts) == 3:
        return [{template.parts[1]: middle}]
    joint = template.parts[2]
    splits = [at for at in range(1, len(middle)) if middle.startswith(joint, at)]
    return [{template.parts[1]: middle[:at], template.parts[3]: middle[at + len(joint) :]} for at in splits]


def _claim_values(texts: list[str], attribute: _Attribute) -> list[ClaimValue | None]:
    """A claim can be missing, one of ``texts``, or a list of some of them."""
    values: list[ClaimValue | None] = [None, *texts]
    if attribute.in_who:
        sizes = range(2, len(texts) + 1) if len(texts) <= MAX_LISTED else (2, len(texts))
        values += [list(some) for size in sizes for some in combinations(texts, size)]
    return values


def _add_solutions(values: dict[str, list[ClaimValue | None]], patterns: Sequence[Pattern]) -> None:
    """For templates of different shape at one level, add the values at which one reads what the other does."""
    for templates, _ in _levels(patterns):
        simple = [template for template in templates if len(template.parts) == 3]
        for one, other in product(simple, simple):
            if one.parts[::2] == other.parts[::2]:
                continue
            name = other.parts[1]
            for value in [value for value in values[one.parts[1]] if isinstance(value, str)]:
                read = one.parts[0] + value + one.parts[2]
                for solution in _solutions(other, read):
                    if solution[name] not in values[name]:
                        values[name].append(solution[name])


def _met(rule: Rule, name: str, value: ClaimValue | None) -> bool:
    """Whether ``rule`` can speak of an identity with this value, whatever the other attributes are."""
    identity = _identity({**_UNASKED, name: value})
    globs: Sequence[str] | None
    if name.startswith("claims."):
        globs = dict(rule.who.claims).get(name.removeprefix("claims."))
        texts = identity.claim(name.removeprefix("claims."))
    else:
        globs = {"username": rule.who.username, "client_id": rule.who.client_id}.get(name)
        texts = (str(value),)
    if globs is not None and not any(matches_any(globs, text) for text in texts):
        return False
    if rule.effect is Effect.DENY or name not in variables(rule):
        return True
    text = variable_value(name, identity)
    return text is not None and not unusable(text)


def _identity(values: Mapping[str, ClaimValue | None]) -> Identity:
    claims = {
        name.removeprefix("claims."): value
        for name, value in values.items()
        if name.startswith("claims.") and value is not None
    }
    return Identity(str(values["org"]), str(values["username"]), str(values["client_id"]), claims)

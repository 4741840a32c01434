"""Variables in topics: ``{username}``, ``{client_id}``, ``{org}``, ``{claims.NAME}`` and their short forms.

A filter is compiled once into levels; a level with variables is a ``Template`` that an identity resolves. A value that
is missing, empty, or contains ``/``, ``+``, ``#`` or U+0000 cannot stand in a topic: it does not resolve.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from acl.policy.engine import topics
from acl.policy.engine.model import Effect, Identity, Rule
from acl.policy.engine.topics import ANY, PLUS, SHARE, Levels

SHORT_FORMS = ("email", "user_id", "agent_id", "session_id")
CLAIM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
VARIABLE = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile("[/+#\0]")


@dataclass(frozen=True, slots=True)
class Template:
    """A level with variables: ``("dev-", "username", "")`` is ``dev-{username}``. Odd places name variables."""

    parts: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The full names of the variables: ``username``, ``client_id``, ``org`` or ``claims.NAME``."""
        return self.parts[1::2]

    def resolve(self, identity: Identity) -> str | None:
        """The level's text for ``identity``, or ``None`` when a value cannot stand in a topic."""
        texts = list(self.parts)
        for at in range(1, len(texts), 2):
            value = variable_value(texts[at], identity)
            if value is None or unusable(value):
                return None
            texts[at] = value
        return "".join(texts)

    def __str__(self) -> str:
        return "".join(f"{{{part}}}" if at % 2 else part for at, part in enumerate(self.parts))


Pattern = tuple[str | Template, ...]


def full_name(variable: str) -> str | None:
    """``variable`` in its long form, or ``None`` when there is no such variable."""
    if variable in ("username", "client_id", "org"):
        return variable
    if variable in SHORT_FORMS:
        return f"claims.{variable}"
    if variable.startswith("claims.") and CLAIM_NAME.fullmatch(variable[7:]):
        return variable
    return None


def variable_value(variable: str, identity: Identity) -> str | None:
    """The value of ``variable`` (long form) for ``identity``; ``None`` for a missing claim or a list."""
    if variable == "username":
        return identity.username
    if variable == "client_id":
        return identity.client_id
    if variable == "org":
        return identity.org
    return identity.scalar_claim(variable.removeprefix("claims."))


def unusable(value: str) -> bool:
    """Whether ``value`` cannot stand in a topic level."""
    return not value or _UNSAFE.search(value) is not None


def pattern_problem(text: str) -> tuple[str, str] | None:
    """Why ``text`` cannot be the ``topic`` of a rule, as code and message, or ``None``."""
    for variable in VARIABLE.findall(text):
        if variable == "$self":
            return "self-without-binding", "{$self} needs a binding; name the variable instead, as in {username}"
        if full_name(variable) is None:
            known = ", ".join(f"{{{name}}}" for name in ("username", "client_id", "org", "claims.NAME", *SHORT_FORMS))
            return "unknown-variable", f"unknown variable {{{variable}}}; write one of {known}"
    bare = VARIABLE.sub("x", text)
    if "{" in bare or "}" in bare:
        return "bad-filter", "braces stand around variables only, and inside one level"
    if text.split("/", 1)[0] == SHARE:
        return "bad-filter", "rules name the filter itself: leave out $share/GROUP"
    problem = topics.text_problem(text, "topic filter") or topics.shape_problem(bare)
    return ("bad-filter", problem) if problem else None


@lru_cache(maxsize=65_536)
def compile_pattern(text: str) -> Pattern:
    """The levels of a rule's ``topic``, with templates where there are variables."""
    return tuple(_compile_level(level) for level in text.split("/"))


def _compile_level(level: str) -> str | Template:
    parts = VARIABLE.split(level)
    if len(parts) == 1:
        return level
    for at in range(1, len(parts), 2):
        parts[at] = full_name(parts[at]) or parts[at]
    return Template(tuple(parts))


def variables(rule: Rule) -> tuple[str, ...]:
    """The full names of the variables in a rule's topics, each once."""
    named = (
        variable
        for topic in rule.topics
        for level in compile_pattern(topic)
        if isinstance(level, Template)
        for variable in level.variables
    )
    return tuple(dict.fromkeys(named))


def resolve(pattern: Pattern, identity: Identity, effect: Effect) -> Levels | None:
    """Resolve ``pattern`` for ``identity``: the filter with the variables replaced.

    A variable that does not resolve makes an allow rule match nothing (``None``), and stands for any level in a deny
    rule, ``$`` topics included: an unresolvable deny never widens access.
    """
    levels: list[str] = []
    for level in pattern:
        text = level.resolve(identity) if isinstance(level, Template) else level
        if text is None:
            if effect is Effect.ALLOW:
                return None
            text = PLUS if levels else ANY
        levels.append(text)
    return tuple(levels)

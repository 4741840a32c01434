"""Small worlds and random policies for the laws: few texts, so that rules meet."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from acl.policy import Effect, Identity, Policy, Rule, Who

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)

TEXTS = ("a", "b", "", "$s")
LEVELS = (*TEXTS, "+", "+", "{username}", "x{username}", "{claims.k}", "{client_id}")
USERNAMES = ("a", "b", "ab", "xa", "", "a/b", "$s")
CLIENTS = ("", "c1", "a")
CLAIMS: tuple[dict[str, object], ...] = ({}, {"k": "a"}, {"k": ["a", "b"]}, {"k": "x/y"}, {"k": 7}, {"k": "bq"})
IDENTITIES = tuple(
    Identity("org_abcdefghijkl", username, client, claims)  # type: ignore[arg-type]
    for username, client, claims in itertools.product(USERNAMES, CLIENTS, CLAIMS)
)


def rule_filters() -> st.SearchStrategy[str]:
    """Filters of rules, with variables."""
    levels = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4)
    return st.tuples(levels, st.booleans()).map(lambda made: _joined(made[0], made[1])).filter(bool)


def filters() -> st.SearchStrategy[str]:
    """Filters that clients ask for."""
    levels = st.lists(st.sampled_from((*TEXTS, "+", "+", "xa", "other")), min_size=1, max_size=4)
    return st.tuples(levels, st.booleans()).map(lambda made: _joined(made[0], made[1])).filter(bool)


def topics() -> st.SearchStrategy[str]:
    """Topic names."""
    levels = st.lists(st.sampled_from((*TEXTS, "xa", "other")), min_size=1, max_size=5)
    return levels.map("/".join).filter(bool)


def _joined(levels: list[str], open_ended: bool) -> str:
    return "/".join([*levels, "#"] if open_ended else levels)


NOTES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@st.composite
def rules(draw: st.DrawFn, number: int = 0) -> Rule:
    """One rule, valid by construction."""
    effect = draw(st.sampled_from((Effect.ALLOW, Effect.ALLOW, Effect.DENY)))
    allow = effect is Effect.ALLOW
    globs = st.sampled_from((("*",), ("*",), ("a",), ("a*", "z"), ("*b",), ("*a*",), ("a", "b*b")))
    claims = st.sampled_from(((), (), (("k", ("a", "b*")),)))
    return Rule(
        id=f"r{number}",
        topics=tuple(dict.fromkeys(draw(st.lists(rule_filters(), min_size=1, max_size=3)))),
        action=draw(st.sampled_from(("pub", "sub", "pub+sub"))),
        effect=effect,
        who=Who(draw(globs), draw(st.sampled_from((("*",), ("*",), ("c*",)))), draw(claims)),
        qos=draw(st.integers(0, 2)) if allow else 2,
        retain=draw(st.booleans()) if allow else True,
        expires=draw(st.sampled_from((None, None, None, NOW - timedelta(days=1), NOW, LATER))),
        note=draw(st.sampled_from(("", "", "free: text # here", "- \u00e9 'quoted' \"twice\"")) | NOTES),
    )


@st.composite
def policies(draw: st.DrawFn, max_rules: int = 6) -> Policy:
    """A policy of a few rules."""
    count = draw(st.integers(0, max_rules))
    return Policy(tuple(draw(rules(number=number)) for number in range(count)))


def identities() -> st.SearchStrategy[Identity]:
    """Identities of the small world."""
    return st.sampled_from(IDENTITIES)


def random_policy(rng: random.Random, *, size: int, levels: tuple[str, ...] = LEVELS, depth: int = 3) -> Policy:
    """A policy from a seeded generator: for long runs, where drawing examples would cost more than the check."""
    return Policy(tuple(random_rule(rng, number, levels=levels, depth=depth) for number in range(size)))


def random_rule(
    rng: random.Random, number: int, *, levels: tuple[str, ...] = LEVELS, depth: int = 3, id_prefix: str = "r"
) -> Rule:
    """One rule from a seeded generator."""
    allow = rng.random() < 0.65
    made = []
    for _ in range(rng.choice((1, 1, 2))):
        chosen = [rng.choice(levels) for _ in range(rng.randint(1, depth))]
        made.append(_joined(chosen, rng.random() < 0.4) or "a")
    return Rule(
        id=f"{id_prefix}{number}",
        topics=tuple(dict.fromkeys(made)),
        action=rng.choice(("pub", "sub", "pub+sub")),
        effect=Effect.ALLOW if allow else Effect.DENY,
        who=Who(
            rng.choice((("*",), ("*",), ("a",), ("a*", "b"), ("*b",))),
            rng.choice((("*",), ("*",), ("*",), ("a*",))),
            rng.choice(((), (), (), (("k", ("a", "b*")),))),
        ),
        qos=rng.choice((0, 1, 2, 2)) if allow else 2,
        retain=rng.random() < 0.8 if allow else True,
        expires=rng.choice((None,) * 6 + (LATER,)),
    )

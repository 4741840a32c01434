"""Policy documents made to cost as much as their size allows: for the bounds of the core and for ``bench-neighbors``.

Each is a text that ``parse`` accepts (but for ``UNREADABLE``); ``size`` is the number of rules or entries in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable


def _document(rules: list[dict[str, object]], **more: object) -> str:
    return json.dumps({"version": "3", "rules": rules, **more})


def equal_rules(size: int = 10_000) -> str:
    """The same rule over and over without an id: each needs an id of its own."""
    return _document([{"topic": "a"}] * size)


def similar_ids(size: int = 10_000) -> str:
    """Equal rules without ids, and others that have the ids that would be made for them."""
    made = ["allow-pub-sub-a-" + "0" * 6 + f"-{number}" for number in range(size // 2)]
    return _document([{"topic": "a", "id": name} for name in made] + [{"topic": "a"}] * (size // 2))


def one_who_each(size: int = 1_500, *, salt: str = "") -> str:
    """Every rule speaks of another glob and of the same topics: identities multiply."""
    return _document(
        [
            {
                "who": f"*{salt}{number:x}*",
                "topic": [f"+/{{username}}/{number % 7}", "a/{client_id}/#"],
                "action": "pub",
            }
            for number in range(size)
        ]
    )


def claims_that_multiply(size: int = 400, *, salt: str = "") -> str:
    """Globs over many claims whose combinations all differ."""
    return _document(
        [
            {
                "who": {"claims": {f"c{number % 12}": [f"{salt}{number}*", f"*{number}"]}},
                "topic": f"+/{{claims.c{(number + 1) % 12}}}/x{{claims.c{(number + 5) % 12}}}",
                "effect": "deny" if number % 3 == 0 else "allow",
            }
            for number in range(size)
        ]
    )


def plus_and_literals(size: int = 600, *, salt: str = "") -> str:
    """Filters of which every subset can be in play at once, a level at a time."""
    rules: list[dict[str, object]] = []
    for number in range(size):
        levels = ["+" if number >> bit & 1 else f"{salt}l{bit}" for bit in range(9)]
        rules.append({"topic": "/".join([*levels, "#"]), "effect": "deny" if number % 2 else "allow"})
    return _document(rules)


def many_filters_of_one_rule(size: int = 5_000, *, salt: str = "") -> str:
    """One rule with as many filters as there is room for, all near to each other."""
    return _document(
        [{"topic": [f"+/{salt}{number:x}/+/#" for number in range(size)]}, {"topic": "#", "effect": "deny"}]
    )


def denies_before_an_allow(size: int = 9_999) -> str:
    """A wide grant out of which every other rule takes a part."""
    denies: list[dict[str, object]] = [{"topic": f"+/{number}/#", "effect": "deny"} for number in range(size)]
    return _document([*denies, {"topic": "#"}])


def long_lengths(size: int = 127, *, filters: int = 9_000) -> str:
    """Filters of every length, and many more: each length of a wide subscription is a question of its own."""
    rules: list[dict[str, object]] = [
        {"topic": "/".join("+" * length), "effect": effect} for effect in ("deny", "allow") for length in range(1, size)
    ]
    rules += [{"topic": f"+/{number:x}/#"} for number in range(filters)]
    return _document([*rules, {"topic": "#"}])


def a_test_a_line(size: int = 6_000) -> str:
    """A test per line, each a wide subscription to a policy with holes."""
    rules: list[dict[str, object]] = [{"topic": f"+/{n}/+/#", "effect": "deny"} for n in range(6)]
    tests = [{"as": f"u{n}", "do": "sub", "topic": "#", "expect": "allow"} for n in range(size)]
    return _document([*rules, *({"topic": f"+/x{n}/#"} for n in range(2_000)), {"topic": "#"}], tests=tests)


def old_form(size: int = 10_000) -> str:
    """A document of version 2.1 with everything equal, in YAML."""
    rule = '  - {topic: "a/{$self}", action: pub, binding: agent_id}\n'
    return 'version: "2.1"\nrules:\n' + rule * size


def misspelt(size: int = 10_000) -> str:
    """Every rule has an error that is worth a suggestion."""
    return _document([{"topik": "a/{usrname}", "acton": "pubb"}] * size)


UNREADABLE: dict[str, str] = {
    "aliases that multiply": "a: &a [1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\n",
    "deep lists": "[" * 500_000,
    "deep maps": '{"a":' * 150_000,
    "deep blocks": "".join(" " * depth + "a:\n" for depth in range(1_400)),
    "one line of colons": "? " * 500_000,
    "flow of flows": "{" + "[{" * 300_000,
    "a long folded text": "a: >\n" + " x\n" * 300_000,
    "many documents": "---\n" * 250_000,
    "many tags": "- !!str a\n" * 100_000,
}
"""Documents that are none, as large as they may be."""

DOCUMENTS: dict[str, Callable[[], str]] = {
    "equal rules without ids": equal_rules,
    "equal rules and their ids": similar_ids,
    "a glob each": one_who_each,
    "claims that multiply": claims_that_multiply,
    "plus and literals": plus_and_literals,
    "many filters of one rule": many_filters_of_one_rule,
    "denies before an allow": denies_before_an_allow,
    "a length each": long_lengths,
    "a test a line": a_test_a_line,
    "an old document": old_form,
    "misspelt": misspelt,
}
"""By name: a document at the limits."""

PAIRS: dict[str, Callable[[float], tuple[str, str]]] = {
    "a glob each": lambda part: (one_who_each(int(1_500 * part)), one_who_each(int(1_500 * part), salt="x")),
    "claims that multiply": lambda part: (
        claims_that_multiply(int(400 * part)),
        claims_that_multiply(int(400 * part), salt="x"),
    ),
    "plus and literals": lambda part: (
        plus_and_literals(int(600 * part)),
        plus_and_literals(int(600 * part), salt="x"),
    ),
    "many filters of one rule": lambda part: (
        many_filters_of_one_rule(int(5_000 * part)),
        many_filters_of_one_rule(int(5_000 * part), salt="x"),
    ),
    "all rules changed": lambda part: (
        denies_before_an_allow(int(9_999 * part)),
        denies_before_an_allow(int(9_000 * part)).replace("+/", "+/x"),
    ),
    "equal rules and none": lambda part: (equal_rules(int(10_000 * part)), _document([])),
    "a length each": lambda part: (
        long_lengths(filters=int(9_000 * part)),
        long_lengths(126, filters=int(8_000 * part)),
    ),
}
"""By name: two documents whose comparison is as hard as we know; ``part`` of the full size, which is 1."""

ASKED: dict[str, tuple[Callable[[], str], str]] = {
    "a wide grant with many holes": (denies_before_an_allow, "#"),
    "a length each": (long_lengths, "#"),
    "plus and literals": (plus_and_literals, "#"),
    "many filters of one rule": (many_filters_of_one_rule, "#"),
    "a glob each": (one_who_each, "+/+/#"),
    "equal rules": (equal_rules, "#"),
}
"""By name: a document and a subscription that is dear to explain."""

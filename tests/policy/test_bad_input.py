"""Whatever is put in: a located error or a decision, never an exception, and no waiting."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from acl.policy import (
    Effect,
    Identity,
    Policy,
    Request,
    Rule,
    Who,
    canonical,
    compile_policy,
    diff,
    explain,
    from_canonical,
    is_wider,
    lint,
    parse,
    permits,
    run_tests,
    suggest,
    to_json,
    to_yaml,
)
from acl.policy.analysis import comparison
from acl.policy.analysis.budget import Budget
from acl.policy.analysis.comparison import Relation
from acl.policy.language.presets import PRESETS
from tests.support.policy_strategies import LATER, NOW

OLD = """version: "2.1"
global: [{topic: news/#, permission: subscribe}]
rules: [{binding: agent_id, topic: "agents/{$self}/#"}]
agents: [{id: relay, publish: [a, b], subscribe: in/#, rules: [x]}]
publishers: [{publisher: b, topic: n/+}]
"""
SHORT = '- {user: "\u00e9", topic: a/#, permission: both, note: "\U0001f600\u2028"}\n'
SEEDS = [each.text.encode() for each in PRESETS]
SEEDS += [to_json(parse(each.text).policy or Policy()).encode() for each in PRESETS]
SEEDS += [OLD.encode(), SHORT.encode()]
TOKENS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b"-", b"\n", b"  ", b'"', b"'", b"#", b"&a", b"*a", b"!!x", b"|", b">", b"%"),
    *(b"\0", b"\xff", b"\xe2\x80\xa8", b"\xc2\x85", b"\xf0\x9f\x98\x80", b"\t", b"---\n", b"...\n", b"? ", b"null"),
    *(b"1e999", b"0x1", b"\\ud800", b"\x07", b"\r", b"<<: ", b"user: a", b"permission: both", b"topic:", b"rules:"),
)


def broken(rng: random.Random) -> bytes:
    """A document with a few bytes put in, taken out, changed or said again."""
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 1:
            del data[at : at + rng.randint(1, 9)]
        elif kind == 2:
            data[at] = rng.randrange(256)
        else:
            start = rng.randrange(len(data))
            data[at:at] = data[start : start + rng.randint(1, 40)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_broken_document_is_a_policy_or_has_located_errors(seed: int) -> None:
    rng = random.Random(seed)
    read = 0
    for _ in range(150):
        parsed = parse(broken(rng))
        assert (parsed.policy is None) == bool(parsed.errors)
        lines = parsed.source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for finding in parsed.findings:
            assert str(finding).startswith(f"{finding.level}: {finding.path} - ")
            assert finding.message
            assert finding.path
            if parsed.source:
                assert 1 <= finding.line <= finding.end_line <= len(lines)
                assert 1 <= finding.column <= len(lines[finding.line - 1]) + 2
        if parsed.policy is not None:
            read += 1
            assert parse(to_yaml(parsed.policy)).policy == parsed.policy
            assert parse(to_json(parsed.policy)).policy == parsed.policy
            assert from_canonical(canonical(parsed.policy)) == parsed.policy
            assert len(run_tests(parsed.policy, org="o", now=NOW)) == len(parsed.policy.tests)
            lint(parsed, now=NOW)
    assert read


TEXTS = (
    "",
    "/",
    "#",
    "+",
    "$share/g/#",
    "\ud800",
    "a\0",
    "*" * 50,
    "x" * 70_000,
    "/" * 200,
    "\u202e",
    "\uffff",
    "{username}",
)


@pytest.mark.parametrize("topic", TEXTS, ids=lambda text: ascii(text[:12]))
def test_any_text_is_explained_and_answered_with_suggestions_that_work(topic: str) -> None:
    policy = Policy(
        (
            Rule("own", ("u/{username}/{claims.k}",), who=Who(("a*",), ("c*",), (("k", ("x*",)),))),
            Rule("no", ("{client_id}/#",), effect=Effect.DENY, who=Who(("*b*",))),
            Rule("low", ("a/+",), qos=0, retain=False, expires=LATER),
        )
    )
    for text in TEXTS:
        identity = Identity(text, text, text, {"k": text, text: [text, text], "n": 10**5_000, "f": float("nan")})
        for action in ("pub", "sub", "receive"):
            request = Request(identity, action, topic, 2, True)  # type: ignore[arg-type]
            assert explain(policy, request, now=NOW).decision.reason
            for suggestion in suggest(policy, request, now=NOW, limit=1):
                assert explain(suggestion.policy, request, now=NOW).decision.allowed


N = 2_000
HOSTILE: dict[str, tuple[list[Rule], list[Rule]]] = {
    "globs of every kind": (
        (some := [Rule(f"r{at}", ("a",), who=Who((f"*{at}*a*{at * 7}*",))) for at in range(N)]),
        [Rule("n", ("#",)), *some],
    ),
    "as many claims as rules": (
        (some := [Rule(f"r{at}", ("a/b",), who=Who(claims=((f"c{at}", ("*x*", "y")),))) for at in range(N)]),
        [Rule("n", ("#",)), *some],
    ),
    "as many variables as rules": (
        (some := [Rule(f"r{at}", (f"a/{{claims.c{at}}}",)) for at in range(N)]),
        [Rule("n", ("a/#",)), *some],
    ),
    "variables that all read alike": (
        (some := [Rule(f"r{at}", (f"a/{{claims.c{at}}}",)) for at in range(30)]),
        [Rule("n", ("a/#",)), *some],
    ),
    "every subset of +": (
        (some := [Rule(f"r{at}", ("/".join("+a"[at >> bit & 1] for bit in range(11)),)) for at in range(2048)]),
        [Rule("n", ("#",), effect=Effect.DENY), *some],
    ),
    "the same rule over and over": (
        [*(Rule(f"r{at}", ("a",)) for at in range(N)), Rule("x", ("b",))],
        [Rule("y", ("c",)), *(Rule(f"r{at}", ("a",)) for at in range(N))],
    ),
    "a rule for each of many people": (
        (some := [Rule(f"r{at}", (f"d/{at}/s",), who=Who((f"dev-{at}",))) for at in range(N)]),
        [Rule("n", ("d/#",)), *some],
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(600)
def test_the_comparison_of_hostile_policies_ends_and_never_says_less_than_it_knows(name: str) -> None:
    old, new = (Policy(tuple(rules)) for rules in HOSTILE[name])
    found = diff(old, new, now=NOW, effort=1_000_000)
    for wider, regions in ((True, found.widened), (False, found.narrowed)):
        for region in regions[:3]:
            before, after = (permits(compile_policy(each), region.witness, now=region.at) for each in (old, new))
            assert (before, after) == (not wider, wider)
    if not found.complete:
        assert found.relation is not Relation.EQUIVALENT


def test_no_effort_says_that_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Policy(), Policy((Rule("a", ("a",)),))
    assert not diff(old, new, now=NOW, effort=0).complete
    monkeypatch.setattr(comparison, "EFFORT", 0)
    assert is_wider(old, old, now=NOW) is False, "nothing changed, so there is nothing to look for"
    assert is_wider(new, old, now=NOW), "it could not be ruled out"


def test_the_work_of_a_comparison_does_not_grow_with_the_square_of_the_rules() -> None:
    """Counted in what is left of the effort, which is what the work is measured in."""
    spent = []
    for size in (500, 1_000, 2_000):
        rules = tuple(Rule(f"r{at}", (f"devices/d{at}/state",)) for at in range(size))
        budget = Budget(10**9)
        search = comparison._Search(Policy(rules), Policy((*rules, Rule("n", ("devices/+/cmd",)))), NOW, budget)
        search.regions()
        spent.append(10**9 - budget.left)
    for less, more in pairwise(spent):
        assert more < 3 * less

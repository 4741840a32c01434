"""What helps people: lint, explain, diff, suggest, and the tests inside a policy."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from types import FrameType

import pytest

from acl.policy import (
    EMPTY_POLICY,
    Effect,
    Identity,
    Policy,
    Relation,
    Request,
    Rule,
    Who,
    compile_policy,
    diff,
    explain,
    is_wider,
    lint,
    parse,
    permits,
    run_tests,
    suggest,
    to_json,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ADA = Identity("org_abcdefghijkl", "ada", "c1", {"team": "ops"})


def policy_of(rules: str) -> Policy:
    parsed = parse(f'version: "3"\nrules:\n{rules}')
    assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
    return parsed.policy


LINT = {
    "shadowed": (
        "  - {id: a, topic: x/#, who: u}\n  - {id: b, topic: x/y, who: u}\n",
        "never reached: rule a decides first",
    ),
    "duplicate": ("  - {id: a, topic: x}\n  - {id: b, topic: x}\n", "duplicate: it says what rule a says already"),
    "contradiction": (
        "  - {id: a, topic: x}\n  - {id: b, topic: x, effect: deny}\n",
        "contradiction: rule a says the opposite of the same, and comes first",
    ),
    "unreachable": (
        "  - {id: a, topic: x}\n  - {id: b, topic: x/+/#}\n  - {id: c, topic: x/#, who: u}\n",
        "never reached: rules a, b together decide first",
    ),
    "partly-reached": (
        "  - {id: a, topic: x/y}\n  - {id: b, topic: [x/y, z]}\n",
        "useless in part: pub+sub x/y is decided by rule a first",
    ),
    "permit-all": ("  - {id: a, topic: '#'}\n", "permits everybody everything, and never expires"),
    "wildcard-publish": ("  - {id: a, topic: x/#, action: pub}\n", "everybody may publish to everything under x/#"),
    "impossible-name": (
        "  - {id: a, topic: x, who: Ada}\n",
        "username Ada never matches: usernames are of a-z, 0-9, - and _",
    ),
    "odd-topic": (
        "  - {id: a, topic: devices/+/*, who: u}\n",
        "* in devices/+/* is an ordinary character; + is one level, and # at the end all below",
    ),
    "redundant-topic": (
        "  - {id: a, topic: ['x/#', 'x/{username}'], who: u}\n",
        "x/{username} says nothing beside x/# of the same rule",
    ),
    "unknown-claim": (
        "  - {id: a, topic: 'x/{claims.dept}'}\n",
        "claim dept is not one that identities are known to carry, and no test gives it a value",
    ),
    "expired": (
        "  - {id: a, topic: x, expires: 2026-01-01T00:00:00Z}\n",
        "expired at 2026-01-01T00:00:00Z; it no longer applies; remove it",
    ),
}


@pytest.mark.parametrize("code", LINT)
def test_lint_says_what_is_worth_a_word(code: str) -> None:
    rules, message = LINT[code]
    found = [(finding.code, finding.message) for finding in lint(policy_of(rules), now=NOW)]
    assert (code, message) in found
    assert all(finding.level == "warning" for finding in lint(policy_of(rules), now=NOW))


QUIET = [
    "  - {id: a, topic: x/y}\n  - {id: b, topic: x/#, who: u}\n",
    "  - {id: a, topic: x, who: u}\n  - {id: b, topic: x}\n",
    "  - {id: a, topic: x, qos: 0, action: pub}\n  - {id: b, topic: x, action: pub}\n",
    "  - {id: a, topic: x, retain: false, action: pub}\n  - {id: b, topic: x, action: pub}\n",
    "  - {id: a, topic: x, expires: 2027-01-01T00:00:00Z}\n  - {id: b, topic: x}\n",
    "  - {id: a, topic: x, action: pub}\n  - {id: b, topic: x, action: sub}\n",
    "  - {id: a, topic: 'x/{username}'}\n  - {id: b, topic: 'x/{username}', effect: deny, who: u}\n",
    "  - {id: a, topic: 'x/{username}'}\n  - {id: b, topic: x/bob}\n",
    "  - {id: a, topic: x/mine}\n  - {id: b, topic: x/+, effect: deny}\n",
    "  - {id: a, topic: x/+, action: sub, qos: 2}\n  - {id: b, topic: x/y, action: sub, qos: 0}\n",
    "  - {id: a, topic: '#', action: sub}\n",
    "  - {id: a, topic: 'x/{username}', action: sub}\n  - {id: b, topic: x/+, action: sub, effect: deny}\n"
    "  - {id: c, topic: x/+, action: sub}\n",
]


def test_everything_behind_a_deny_rule_is_not_called_permit_all() -> None:
    rules = "  - {id: a, topic: admin/#, effect: deny}\n  - {id: b, topic: '#'}\n"
    assert [finding.code for finding in lint(policy_of(rules), now=NOW)] == ["wildcard-publish"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{topic: x, who: 'ada@org_abcdefghijkl'}", "matched without the @"),
        ("{topic: x, who: 'a b'}", "usernames are of a-z"),
        ("{topic: x, who: _a}", "begins with a letter or digit"),
        ("{topic: 'dev/%u/x'}", "write {username}"),
        ("{topic: 'dev/%c/x'}", "write {client_id}"),
        ("{topic: 'dev/${username}/x'}", "${username} in dev/${username}/x is no variable here"),
        ("{topic: 'org_abcdefghijkl/x'}", "without their mountpoint"),
        ("{topic: '{org}/x'}", "without their mountpoint"),
        ("{topic: /x}", "begins with an empty level, so it does not match x"),
        ("{topic: x/}", "ends with an empty level, so it does not match x"),
    ],
)
def test_lint_says_what_can_never_match_here(rule: str, words: str) -> None:
    found = [str(finding) for finding in lint(policy_of(f"  - {rule}\n"), now=NOW)]
    assert any(words in each for each in found), found


def test_a_suggestion_leaves_a_variable_to_everybody_else_and_opens_no_more_than_was_asked() -> None:
    policy = policy_of("  - {id: own, topic: 'x/{username}'}\n")
    for suggestion in suggest(policy, Request(ADA, "pub", "x/adan", 0), now=NOW):
        assert not suggestion.narrowed, suggestion.title
    (added,) = [each for each in suggest(Policy(), Request(ADA, "pub", "x", 1), now=NOW) if each.kind == "new-rule"]
    assert (added.policy.rules[0].qos, added.policy.rules[0].retain) == (1, False)
    (taken,) = [
        each
        for each in suggest(policy_of("  - {id: a, topic: y/stat}\n"), Request(ADA, "pub", "y/state"), now=NOW)
        if each.kind == "topic" and each.narrowed
    ]
    assert "instead of y/stat" in taken.title


def test_nothing_is_suggested_for_a_wildcard_typed_as_a_username() -> None:
    assert suggest(Policy(), Request(Identity("org_abcdefghijkl", "agent-*"), "pub", "x"), now=NOW) == ()


@pytest.mark.parametrize("rules", QUIET)
def test_lint_is_quiet_about_what_has_a_use(rules: str) -> None:
    assert [str(finding) for finding in lint(policy_of(rules), now=NOW)] == []


@pytest.mark.parametrize("form", ["block", "flow", "json"])
def test_the_fix_of_a_useless_rule_takes_just_that_rule_away(form: str) -> None:
    text = 'version: "3"\nrules:\n  # first\n  - id: a\n    topic: x\n  - id: b\n    topic: x\n'
    text += "  # last\n  - id: c\n    topic: y\n"
    if form == "flow":
        text = 'version: "3"\nrules: [{id: a, topic: x}, {id: b, topic: x}, {id: c, topic: y}]\n'
    if form == "json":
        text = to_json(parse(text).policy or EMPTY_POLICY)
    parsed = parse(text)
    (finding,) = lint(parsed, now=NOW)
    assert finding.path == "rules[1]"
    assert finding.line == {"block": 6, "flow": 2, "json": 8}[form]
    assert finding.fix is not None
    fixed = finding.fix.apply(text)
    assert [rule.id for rule in (parse(fixed).policy or EMPTY_POLICY).rules] == ["a", "c"]
    assert ("# first" in fixed) == (form == "block")


def test_explain_says_why_of_every_rule() -> None:
    policy = policy_of(
        "  - {id: topic, topic: agents/+/card}\n"
        "  - {id: user, who: agent-*, topic: '#'}\n"
        "  - {id: action, action: sub, topic: '#'}\n"
        "  - {id: claim, who: {claims: {agent_id: '*'}}, topic: '#'}\n"
        "  - {id: value, who: {claims: {team: dev}}, topic: '#'}\n"
        "  - {id: variable, topic: 'agents/{agent_id}/state'}\n"
        "  - {id: old, topic: '#', expires: 2026-01-01T00:00:00Z}\n"
        "  - {id: low, topic: agents/#, qos: 1}\n"
        "  - {id: client, who: {client_id: x*}, topic: '#'}\n"
        "  - {id: short, topic: agents}\n"
        "  - {id: long, topic: agents/7/state/x}\n"
        "  - {id: yes, topic: agents/#}\n"
        "  - {id: late, topic: agents/#, effect: deny}\n"
    )
    explained = explain(policy, Request(ADA, "pub", "agents/7/state", 2), now=NOW)
    assert explained.decision.rule == "yes"
    assert {each.rule: (each.outcome.value, each.why) for each in explained.rules} == {
        "topic": ("no match", 'topic differs at level 3: "state" is not "card"'),
        "user": ("no match", 'username glob "agent-*" does not match "ada"'),
        "action": ("no match", "action is sub only"),
        "claim": ("no match", "claim agent_id missing"),
        "value": ("no match", 'claim team is "ops", not "dev"'),
        "variable": ("no match", "claim agent_id missing"),
        "old": ("no match", "expired at 2026-01-01T00:00:00Z"),
        "low": ("near miss", "qos 2 above 1"),
        "client": ("no match", 'client ID glob "x*" does not match "c1"'),
        "short": ("no match", "topic has more levels than the rule's 1"),
        "long": ("no match", 'topic ends before level 4: "x"'),
        "yes": ("decides", "allows it"),
        "late": ("too late", "rule yes decides first"),
    }


def test_explain_a_subscription() -> None:
    policy = policy_of(
        "  - {id: part, effect: deny, topic: a/x}\n  - {id: all, topic: a/#}\n  - {id: sys, topic: $SYS/#}\n"
    )
    explained = explain(policy, Request(ADA, "sub", "$share/g/a/+"), now=NOW)
    assert [(each.outcome.value, each.why) for each in explained.rules] == [
        ("takes part", "denies a part of the filter"),
        ("decides", "allows it"),
        ("no match", 'topic differs at level 1: "a" is not "$SYS"'),
    ]
    hidden = explain(policy, Request(ADA, "sub", "#"), now=NOW)
    assert hidden.rules[2].why == "a leading wildcard does not reach topics that start with $"


def test_exceptions_of_a_grant_are_not_told_larger_than_they_are() -> None:
    policy = policy_of(
        "  - {id: mine, topic: a/u1/b, action: sub}\n  - {id: no, topic: a/+/b, effect: deny}\n"
        "  - {id: never, topic: a/x, effect: deny}\n  - {id: all, topic: a/#, action: sub}\n"
    )
    decision = compile_policy(policy).subscribe(ADA, "a/#", now=NOW)
    assert decision.reason == "allowed by rule all, except parts of a/+/b, a/x"
    assert (decision.holes, decision.partial) == (("a/+/b", "a/x"), ("a/+/b",))
    assert compile_policy(policy).receive(ADA, "a/u1/b", now=NOW).allowed


DIFFS = {
    "a rule more": ("", "  - {id: a, topic: x/#}\n", "wider", ["*: publish to x/#", "*: receive x/#"], []),
    "a rule less": ("  - {id: a, topic: x, action: pub}\n", "", "narrower", [], ["*: publish to x"]),
    "a deny in front": (
        "  - {id: a, topic: x/+, action: sub}\n",
        "  - {id: d, topic: x/y, effect: deny}\n  - {id: a, topic: x/+, action: sub}\n",
        "narrower",
        [],
        ["*: receive x/y"],
    ),
    "a topic moved": (
        "  - {id: a, topic: x, action: pub}\n",
        "  - {id: a, topic: y, action: pub}\n",
        "incomparable",
        ["*: publish to y"],
        ["*: publish to x"],
    ),
    "topics longer than every filter that ends": (
        "  - {id: a, topic: +/+, action: sub}\n  - {id: b, topic: +, action: sub}\n",
        "  - {id: a, topic: +/+, action: sub}\n  - {id: c, topic: '#', action: sub}\n"
        "  - {id: b, topic: +, action: sub}\n",
        "wider",
        None,
        [],
    ),
    "QoS raised": (
        "  - {id: a, topic: x, action: pub, qos: 1}\n",
        "  - {id: a, topic: x, action: pub}\n",
        "wider",
        ["*: publish to x (qos 2)"],
        [],
    ),
    "retain taken": (
        "  - {id: a, topic: x, action: pub}\n",
        "  - {id: a, topic: x, action: pub, retain: false}\n",
        "narrower",
        [],
        ["*: publish to x (retained)"],
    ),
    "a glob widened": (
        "  - {id: a, who: ab*, topic: x, action: pub}\n",
        "  - {id: a, who: a*, topic: x, action: pub}\n",
        "wider",
        ["a*, such as a: publish to x"],
        [],
    ),
    "a variable for a wildcard": (
        "  - {id: a, topic: 'u/{username}', action: pub}\n",
        "  - {id: a, topic: u/+, action: pub}\n",
        "wider",
        None,
        [],
    ),
    "split and joined": (
        "  - {id: a, topic: x/#}\n",
        "  - {id: a, topic: x}\n  - {id: b, topic: x/+/#}\n",
        "equivalent",
        [],
        [],
    ),
    "a dead rule gone": (
        "  - {id: a, topic: x/#}\n  - {id: b, topic: x/y, effect: deny}\n",
        "  - {id: a, topic: x/#}\n",
        "equivalent",
        [],
        [],
    ),
    "a variable whose value begins with a dollar sign": (
        "  - {id: a, topic: +, action: pub}\n  - {id: b, topic: '{username}', action: pub}\n",
        "  - {id: a, topic: +, action: pub}\n",
        "narrower",
        [],
        ["*, such as $: publish to {username}"],
    ),
    "two claims that read alike": (
        "  - {id: a, topic: 'x/{claims.b}', action: pub}\n",
        "  - {id: d, topic: 'x/{claims.c}', action: pub, effect: deny, who: {claims: {c: '*'}}}\n"
        "  - {id: a, topic: 'x/{claims.b}', action: pub}\n",
        "narrower",
        [],
        None,
    ),
    "three variables at two levels that read alike": (
        "  - {id: d, topic: '{username}/{client_id}', effect: deny, action: pub}\n"
        "  - {id: e, topic: '+/{username}', effect: deny, action: pub}\n"
        "  - {id: a, topic: '{claims.k}/x{claims.k}', action: pub}\n",
        "  - {id: d, topic: '{username}/{client_id}', effect: deny, action: pub}\n"
        "  - {id: a, topic: '{claims.k}/x{claims.k}', action: pub}\n",
        "wider",
        None,
        [],
    ),
    "a star of its own": (
        "  - {id: a, topic: '{username}', action: pub}\n",
        "  - {id: d, topic: '*', action: pub, effect: deny}\n  - {id: a, topic: '{username}', action: pub}\n",
        "narrower",
        [],
        ["*, such as *: publish to *"],
    ),
    "a list of three elements": (
        "  - {id: a, who: {claims: {r: a}}, topic: x, action: pub, qos: 0}\n"
        "  - {id: b, who: {claims: {r: b}}, topic: x, action: pub, qos: 1, retain: false}\n"
        "  - {id: c, who: {claims: {r: c}}, topic: x, action: pub}\n",
        "  - {id: a, who: {claims: {r: a}}, topic: x, action: pub, qos: 0}\n"
        "  - {id: c, who: {claims: {r: c}}, topic: x, action: pub}\n"
        "  - {id: b, who: {claims: {r: b}}, topic: x, action: pub, qos: 1, retain: false}\n",
        "equivalent",
        [],
        [],
    ),
    "claims as lists": (
        "  - {id: a, who: {claims: {r: [a, b]}}, topic: x}\n",
        "  - {id: a, who: {claims: {r: a}}, topic: x}\n  - {id: b, who: {claims: {r: b}}, topic: x}\n",
        "equivalent",
        [],
        [],
    ),
    "an expiry put off": (
        "  - {id: a, topic: x, action: pub, expires: 2026-07-01T00:00:00Z}\n",
        "  - {id: a, topic: x, action: pub, expires: 2026-08-01T00:00:00Z}\n",
        "wider",
        ["*: publish to x"],
        [],
    ),
}


@pytest.mark.parametrize("name", DIFFS)
def test_diff_tells_what_changes(name: str) -> None:
    before, after, relation, widened, narrowed = DIFFS[name]
    old, new = (policy_of(rules) if rules else EMPTY_POLICY for rules in (before, after))
    found = diff(old, new, now=NOW)
    assert found.relation is Relation(relation)
    assert found.complete
    assert is_wider(old, new, now=NOW) == bool(found.widened)
    if widened is not None:
        assert [str(region) for region in found.widened] == widened
    if narrowed is not None:
        assert [str(region) for region in found.narrowed] == narrowed
    for region, gained in [*((each, True) for each in found.widened), *((each, False) for each in found.narrowed)]:
        assert permits(compile_policy(new), region.witness, now=region.at) is gained
        assert permits(compile_policy(old), region.witness, now=region.at) is not gained


def test_diff_tells_of_a_subscription_that_is_cut_though_no_topic_is() -> None:
    """The allow rule behind the deny rule delivers nothing new, and yet it is what grants the wider filter."""
    kept = "  - {id: mine, topic: s/a, action: sub}\n  - {id: no, topic: s/+/#, effect: deny, action: sub}\n"
    old, new = policy_of(kept + "  - {id: all, topic: s/#, who: a*, action: sub}\n"), policy_of(kept)
    found = diff(old, new, now=NOW)
    assert found.relation is Relation.NARROWER
    told = {str(region): region for region in found.narrowed}
    region = told["a*: receive s"]
    assert (region.old_rule, region.new_rule) == ("all", None)
    dead = policy_of(kept + "  - {id: dead, topic: s/+/#, who: a*, action: sub}\n")
    (region,) = diff(dead, new, now=NOW).narrowed
    assert str(region) == "a*: subscribe to s/+/#"
    assert (region.old_rule, region.new_rule, region.witness.topic) == ("mine", "no", "s/+/#")


def test_diff_knows_that_a_rule_equal_to_an_earlier_one_decides_nothing() -> None:
    low, high = "  - {{id: {}, topic: a, action: sub, qos: 0}}\n", "  - {id: c, topic: a, action: sub, qos: 1}\n"
    deny = "  - {id: d, topic: a, action: sub, effect: deny}\n"
    found = diff(
        policy_of(low.format("a") + low.format("b") + high + deny), policy_of(low.format("a") + high + deny), now=NOW
    )
    assert (found.relation, found.complete) == (Relation.EQUIVALENT, True)


def test_diff_names_the_rules_that_decide_and_whom_they_speak_of() -> None:
    new = "  - {id: red, topic: x/#, who: {claims: {team: red}}, action: pub}\n"
    old = policy_of("  - {id: stop, topic: x/+, effect: deny, action: pub}\n" + new)
    (region,) = diff(old, policy_of(new), now=NOW).widened
    assert str(region) == "* with claim team red: publish to x/+"
    assert (region.rule, region.old_rule, region.new_rule) == ("stop", "stop", "red")


def test_diff_asks_only_identities_of_whom_the_changed_rule_speaks() -> None:
    """Together, these globs tell more identities apart than are looked at; who ``ada`` is, few of them."""
    many = tuple(f"*{letter}*" for letter in "bcefghijkl")
    crowd = Rule("crowd", ("x/#",), who=Who(many[:5], many[5:8], (("k", many[8:]),)), qos=0)
    mine = Rule("mine", ("x/{claims.k}",), who=Who(("ada",), ("b", "c")))
    found = diff(Policy((crowd,)), Policy((mine, crowd)), now=NOW)
    assert (found.relation, found.complete) == (Relation.WIDER, True)
    assert all(region.witness.identity.username == "ada" for region in found.widened)


def test_diff_of_a_large_policy_looks_at_what_changed() -> None:
    rules = tuple(Rule(f"r{at}", (f"devices/d{at}/state",)) for at in range(10_000))
    changed = (*rules[:5_000], Rule("new", ("devices/+/cmd",)), *rules[5_001:])
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        found = diff(Policy(rules), Policy(changed), now=NOW)
    finally:
        sys.setprofile(None)
    assert calls < 100 * len(rules), "the work is linear in the rules"
    assert found.relation is Relation.INCOMPARABLE
    assert {region.filter for region in found.widened} == {"devices/+/cmd"}
    assert {region.filter for region in found.narrowed} == {"devices/d5000/state"}


SUGGESTIONS = {
    "a typo": ("  - {id: a, topic: agents/+/state}\n", Request(ADA, "pub", "agents/7/stat"), "topic"),
    "a missing hash": ("  - {id: a, topic: agents/7}\n", Request(ADA, "sub", "agents/7/#"), "topic"),
    "the wrong action": ("  - {id: a, topic: x, action: sub}\n", Request(ADA, "pub", "x"), "action"),
    "the wrong claim": ("  - {id: a, who: {claims: {team: dev}}, topic: x}\n", Request(ADA, "pub", "x"), "claim"),
    "a missing claim": ("  - {id: a, who: {claims: {role: dev}}, topic: x}\n", Request(ADA, "pub", "x"), "claim"),
    "the wrong name": ("  - {id: a, who: bob, topic: x}\n", Request(ADA, "pub", "x"), "who"),
    "the wrong client": ("  - {id: a, who: {client_id: z}, topic: x}\n", Request(ADA, "pub", "x"), "who"),
    "too high a QoS": ("  - {id: a, topic: x, qos: 0}\n", Request(ADA, "pub", "x", 2), "limit"),
    "retained": ("  - {id: a, topic: x, retain: false}\n", Request(ADA, "pub", "x", 0, True), "limit"),
    "expired": ("  - {id: a, topic: x, expires: 2026-01-01T00:00:00Z}\n", Request(ADA, "pub", "x"), "expiry"),
    "nothing near": ("  - {id: a, topic: x, who: bob}\n", Request(ADA, "pub", "ada/y"), "new-rule"),
    "denied": ("  - {id: d, topic: x, effect: deny}\n", Request(ADA, "pub", "x"), "new-rule"),
}


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_suggest_the_smallest_change(name: str) -> None:
    rules, request, kind = SUGGESTIONS[name]
    policy = policy_of(rules)
    suggestions = suggest(policy, request, now=NOW)
    assert suggestions[0].kind == kind
    for suggestion in suggestions:
        assert permits(compile_policy(suggestion.policy), request, now=NOW)
        assert suggestion.widened, "allowing what was denied is wider"
        assert suggestion.title


def test_nothing_is_suggested_for_what_is_allowed_or_malformed() -> None:
    policy = policy_of("  - {id: a, topic: x}\n")
    assert suggest(policy, Request(ADA, "pub", "x"), now=NOW) == ()
    assert suggest(policy, Request(ADA, "pub", ""), now=NOW) == ()
    assert suggest(policy, Request(ADA, "sub", "a#"), now=NOW) == ()


def test_a_failing_test_says_what_was_wanted() -> None:
    parsed = parse(
        'version: "3"\nrules: [{id: a, topic: x}]\ntests:\n'
        "  - {name: one, as: ada, do: pub, topic: x, expect: allow, rule: a}\n"
        "  - {name: two, as: {username: ada}, do: pub, topic: y, expect: allow}\n"
        "  - {name: three, as: ada, do: sub, topic: x, expect: allow, rule: b}\n"
        "  - {name: four, as: ada, do: pub, topic: y, expect: deny, rule: none}\n"
    )
    assert parsed.policy is not None
    outcomes = run_tests(compile_policy(parsed.policy), org="org_abcdefghijkl", now=NOW)
    assert [(outcome.name, outcome.passed) for outcome in outcomes] == [
        ("one", True),
        ("two", False),
        ("three", False),
        ("four", True),
    ]
    assert outcomes[1].message == "expected allow, got deny: no rule allows it"
    assert outcomes[2].message == "expected allow by b, got allow by a: allowed by rule a"
    assert outcomes[0].expected is Effect.ALLOW


OWN = "import acl.policy"
BASELINE = "import dataclasses, datetime, enum, functools, hashlib, json, re, typing"
"""What the core needs of the standard library, and nearly all that importing it costs."""


def test_the_core_imports_light_parts_of_the_standard_library_only() -> None:
    script = "import sys; before = set(sys.modules); import acl.policy; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert roots <= sys.stdlib_module_names | {"acl"}
    loaded = done.stdout.split()
    assert sum(name.startswith("acl") for name in loaded) <= 20
    assert not {
        "yaml",
        "difflib",
        "acl.policy.analysis.comparison",
        "acl.policy.analysis.linter",
        "acl.policy.analysis.suggestion",
    } & set(loaded)
    assert not roots & {"asyncio", "email", "http", "logging", "multiprocessing", "socket", "ssl", "unittest"}


def test_importing_the_core_costs_little_more_than_what_it_imports() -> None:
    def cost(imports: str) -> float:
        script = f"import time; start = time.process_time(); {imports}; print(time.process_time() - start)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        return float(done.stdout)

    ratios = [cost(OWN) / cost(BASELINE) for _ in range(7)]
    assert sorted(ratios)[3] < 8, ratios  # about 2


HUGE: dict[str, str | bytes] = {
    "a megabyte and a byte": b"x" * (1024 * 1024 + 1),
    "brackets": b"[" * 1_000_000,
    "dashes": b"- " * 500_000,
    "aliases": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
    "tabs in JSON": b'{\t"version":\t"3"\n}',
    "quotes": b'"' * 1_000_000,
    "colons": b": " * 500_000,
    "nulls": b"\0" * 1000,
    "surrogates": '{"version": "3", "rules": [{"id": "a", "topic": "\\ud800"}]}',
    "large numbers": b'{"version": ' + b"9" * 500_000 + b"}",
    "many keys": b"".join(b"k%d: 1\n" % at for at in range(60_000)),
    "too many rules": b'version: "3"\nrules:\n' + b"- {topic: a}\n" * 10_001,
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.timeout(600)
def test_no_document_hangs_or_raises(name: str) -> None:
    parsed = parse(HUGE[name])
    assert all(finding.line >= 1 and finding.column >= 1 for finding in parsed.findings)
    assert (parsed.policy is None) == (name != "tabs in JSON")

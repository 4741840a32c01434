"""Laws that hold for every policy, whoever asks for whatever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acl.policy import (
    Effect,
    Identity,
    Policy,
    Relation,
    Request,
    Rule,
    canonical,
    compile_policy,
    diff,
    digest,
    explain,
    from_canonical,
    lint,
    parse,
    permits,
    suggest,
    to_json,
    to_yaml,
)
from acl.policy.analysis.explanation import Outcome
from acl.policy.engine import evaluate
from acl.policy.engine import levels as levels_module
from tests.support import policy_strategies as world
from tests.support.policy_strategies import NOW

QOS = st.integers(0, 2)
ACTIONS = st.sampled_from(("pub", "sub", "receive"))


@given(world.policies())
def test_printing_and_parsing_are_inverse(policy: Policy) -> None:
    for text in (to_yaml(policy), to_json(policy), canonical(policy)):
        parsed = parse(text)
        assert parsed.findings == ()
        assert parsed.policy == policy
        assert digest(policy) == digest(parsed.policy or Policy())
    assert from_canonical(canonical(policy)) == policy


@pytest.mark.parametrize("buckets_from", [1, 10_000])
@settings(max_examples=150)
@given(world.policies(8), world.identities(), world.topics(), world.filters(), QOS, st.booleans())
def test_index_and_evaluator_answer_alike(  # noqa: PLR0917
    buckets_from: int, policy: Policy, identity: Identity, topic: str, asked: str, qos: int, retain: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels_module, "BUCKETS_FROM", buckets_from)
        compiled = compile_policy(policy)
    published = evaluate.publish(policy, identity, topic, qos=qos, retain=retain, now=NOW)
    assert compiled.publish(identity, topic, qos=qos, retain=retain, now=NOW) == published
    assert compiled.receive(identity, topic, now=NOW) == evaluate.receive(policy, identity, topic, now=NOW)
    assert compiled.subscribe(identity, asked, now=NOW) == evaluate.subscribe(policy, identity, asked, now=NOW)


@given(world.policies(), world.rules(number=99), st.integers(0, 6), world.identities(), world.topics(), world.filters())
def test_adding_a_deny_never_allows_more(  # noqa: PLR0917
    policy: Policy, rule: Rule, place: int, identity: Identity, topic: str, asked: str
) -> None:
    deny = replace(rule, effect=Effect.DENY, qos=2, retain=True)
    stricter = compile_policy(Policy((*policy.rules[:place], deny, *policy.rules[place:])))
    before = compile_policy(policy)
    if stricter.publish(identity, topic, qos=1, retain=False, now=NOW).allowed:
        assert before.publish(identity, topic, qos=1, retain=False, now=NOW).allowed
    if stricter.receive(identity, topic, now=NOW).allowed:
        assert before.receive(identity, topic, now=NOW).allowed
    if stricter.subscribe(identity, asked, now=NOW).allowed:
        assert before.subscribe(identity, asked, now=NOW).allowed


@given(world.policies(), world.identities(), world.topics(), st.randoms(use_true_random=False))
def test_reordering_rules_of_one_effect_changes_no_effect(
    policy: Policy, identity: Identity, topic: str, rng: object
) -> None:
    allows = [rule for rule in policy.rules if rule.effect is Effect.ALLOW]
    shuffled = list(allows)
    getattr(rng, "shuffle")(shuffled)  # noqa: B009
    one, other = compile_policy(Policy(tuple(allows))), compile_policy(Policy(tuple(shuffled)))
    asked = {"qos": 2, "retain": True, "now": NOW}
    assert (
        one.publish(identity, topic, **asked).effect  # type: ignore[arg-type]
        is other.publish(identity, topic, **asked).effect  # type: ignore[arg-type]
    )
    assert one.subscribe(identity, topic, now=NOW).qos == other.subscribe(identity, topic, now=NOW).qos


@given(world.policies(), world.identities(), world.filters(), world.topics())
def test_a_grant_lets_exactly_the_topics_outside_its_holes_be_received_as_told(
    policy: Policy, identity: Identity, asked: str, topic: str
) -> None:
    compiled = compile_policy(policy)
    grant = compiled.subscribe(identity, asked, now=NOW)
    inside = evaluate.matches(evaluate.split(asked), evaluate.split(topic))
    if not (grant.allowed and inside):
        return
    in_a_hole = any(evaluate.matches(evaluate.split(hole), evaluate.split(topic)) for hole in grant.holes)
    if not compiled.receive(identity, topic, now=NOW).allowed:
        assert in_a_hole


@given(world.policies(), world.identities(), world.topics(), world.filters())
def test_a_decision_holds_until_it_says(policy: Policy, identity: Identity, topic: str, asked: str) -> None:
    compiled = compile_policy(policy)
    later = world.LATER
    pairs = (
        (compiled.receive(identity, topic, now=NOW), compiled.receive(identity, topic, now=later)),
        (compiled.subscribe(identity, asked, now=NOW), compiled.subscribe(identity, asked, now=later)),
    )
    for before, after in pairs:
        assert before.valid_until is None or before.valid_until > NOW
        if before.effect is not after.effect:
            assert before.valid_until == later


@given(world.policies(), world.identities(), ACTIONS, world.filters(), QOS, st.booleans())
def test_an_explanation_tells_the_decision(  # noqa: PLR0917
    policy: Policy, identity: Identity, action: str, topic: str, qos: int, retain: bool
) -> None:
    request = Request(identity, action, topic, qos, retain)  # type: ignore[arg-type]
    explained = explain(policy, request, now=NOW)
    assert len(explained.rules) == len(policy.rules)
    assert all(each.why for each in explained.rules)
    deciding = [each.rule for each in explained.rules if each.outcome is Outcome.DECIDES]
    assert deciding == ([explained.decision.rule] if explained.decision.rule else [])
    near = [each.rule for each in explained.rules if each.outcome is Outcome.NEAR_MISS]
    assert {miss.rule for miss in explained.decision.near_misses} <= set(near)


@settings(max_examples=30, deadline=None)
@given(world.policies(4), world.identities(), ACTIONS, world.filters())
def test_every_suggestion_allows_the_request(policy: Policy, identity: Identity, action: str, topic: str) -> None:
    request = Request(identity, action, topic)  # type: ignore[arg-type]
    for suggestion in suggest(policy, request, now=NOW, limit=3):
        explained = explain(suggestion.policy, request, now=NOW)
        assert explained.decision.allowed
        assert explain(policy, request, now=NOW).decision.effect is Effect.DENY
        assert parse(to_yaml(suggestion.policy)).policy is not None


@settings(deadline=None)
@given(world.policies(6), world.identities(), world.topics(), QOS)
def test_a_rule_that_is_called_unreached_can_go(policy: Policy, identity: Identity, topic: str, qos: int) -> None:
    useless = {"shadowed", "duplicate", "contradiction", "unreachable"}
    for finding in lint(policy, now=NOW):
        if finding.code not in useless:
            continue
        at = int(finding.path.removeprefix("rules[").removesuffix("]"))
        without = Policy(policy.rules[:at] + policy.rules[at + 1 :])
        for now in (NOW, world.LATER):
            asked = {"qos": qos, "retain": qos == 1, "now": now}
            kept = evaluate.publish(policy, identity, topic, **asked)  # type: ignore[arg-type]
            gone = evaluate.publish(without, identity, topic, **asked)  # type: ignore[arg-type]
            assert (kept.effect, kept.rule) == (gone.effect, gone.rule)
            received = evaluate.receive(policy, identity, topic, now=now)
            assert received.rule == evaluate.receive(without, identity, topic, now=now).rule


@settings(deadline=None)
@given(world.policies(6), st.sampled_from((to_yaml, to_json, canonical)), world.identities(), world.topics(), QOS)
def test_every_fix_takes_its_finding_away_and_changes_no_meaning(
    policy: Policy, printed: Callable[[Policy], str | bytes], identity: Identity, topic: str, qos: int
) -> None:
    text = printed(policy)
    source = text.decode() if isinstance(text, bytes) else text
    findings = lint(parse(source), now=NOW)
    for finding in findings:
        if not finding.fix:
            continue
        at = int(finding.path.removeprefix("rules[").removesuffix("]"))
        fixed = parse(finding.fix.apply(source))
        assert fixed.policy is not None, fixed.findings
        others = [rule for number, rule in enumerate(policy.rules) if number != at]
        if finding.code in {"partly-reached", "redundant-topic"}:
            kept = fixed.policy.rules[at]
            assert set(kept.topics) < set(policy.rules[at].topics) or kept.action in ("pub", "sub")
            assert [rule for number, rule in enumerate(fixed.policy.rules) if number != at] == others
        else:
            assert list(fixed.policy.rules) == others
        left = [
            (each.code, each.message, policy.rules[at].id) for each in lint(fixed, now=NOW) if each.path == finding.path
        ]
        assert (
            len(fixed.policy.rules) < len(policy.rules)
            or (finding.code, finding.message, policy.rules[at].id) not in left
        )
        # Where allow rules differ in QoS, the comparison may say that it has not ruled everything out.
        assert diff(policy, fixed.policy, now=NOW).relation is Relation.EQUIVALENT, finding
        for now in (NOW, world.LATER):
            asked = {"qos": qos, "retain": qos == 1, "now": now}
            before = evaluate.publish(policy, identity, topic, **asked)  # type: ignore[arg-type]
            after = evaluate.publish(fixed.policy, identity, topic, **asked)  # type: ignore[arg-type]
            assert (before.effect, before.rule) == (after.effect, after.rule)
            for filters in (topic, "#"):
                was = evaluate.subscribe(policy, identity, filters, now=now)
                then = evaluate.subscribe(fixed.policy, identity, filters, now=now)
                assert (was.effect, was.qos) == (then.effect, then.qos)


@settings(deadline=None, max_examples=50)
@given(world.policies(6), st.sampled_from((to_yaml, to_json)))
def test_fixing_comes_to_an_end_at_the_same_meaning(policy: Policy, printed: Callable[[Policy], str]) -> None:
    source = printed(policy)
    for _ in range(100):
        fix = next((each.fix for each in lint(parse(source), now=NOW) if each.fix), None)
        if fix is None:
            break
        source = fix.apply(source)
    assert fix is None
    fixed = parse(source).policy
    assert fixed is not None
    assert diff(policy, fixed, now=NOW).relation is Relation.EQUIVALENT


@settings(max_examples=30, deadline=None)
@given(world.policies(4), world.identities(), ACTIONS, world.filters(), world.topics(), world.identities())
def test_what_a_suggestion_opens_is_what_the_comparison_finds(  # noqa: PLR0917
    policy: Policy, identity: Identity, action: str, topic: str, other: str, somebody: Identity
) -> None:
    request = Request(identity, action, topic)  # type: ignore[arg-type]
    for suggestion in suggest(policy, request, now=NOW, limit=3):
        found = diff(policy, suggestion.policy, now=NOW)
        assert suggestion.widened == found.widened
        assert found.widened
        before, after = compile_policy(policy), compile_policy(suggestion.policy)
        for region in suggestion.widened:
            assert permits(after, region.witness, now=region.at)
            assert not permits(before, region.witness, now=region.at)
        asked = {"qos": 0, "retain": False, "now": NOW}
        if after.publish(somebody, other, **asked).allowed and not before.publish(somebody, other, **asked).allowed:  # type: ignore[arg-type]
            assert any(region.action == "pub" for region in suggestion.widened)


ODD_TEXTS = ("", "a/b", "#", "+", "$share/g/#", "\ud800", "a\0")
TEXT = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(ODD_TEXTS)


@settings(max_examples=150)
@example(Policy((Rule("all", ("#",)),)), "", "", "0", {})  # with a QoS that does not exist, where no rule limits any
@given(world.policies(), TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT | st.integers() | st.floats() | st.lists(TEXT)))
def test_evaluation_never_raises(
    policy: Policy, username: str, client: str, topic: str, claims: dict[str, object]
) -> None:
    identity = Identity(username, username, client, claims)  # type: ignore[arg-type]
    compiled = compile_policy(policy)
    naive = NOW.replace(tzinfo=None)
    for qos in (-1, 0, 3):
        published = compiled.publish(identity, topic, qos=qos, retain=True, now=naive)
        assert published == evaluate.publish(policy, identity, topic, qos=qos, retain=True, now=naive)
    assert compiled.subscribe(identity, topic, now=naive) == evaluate.subscribe(policy, identity, topic, now=naive)
    assert compiled.receive(identity, topic, now=naive) == evaluate.receive(policy, identity, topic, now=naive)
    assert explain(policy, Request(identity, "sub", topic), now=NOW).decision.reason


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(st.characters(codec=None), max_size=60))
def test_parsing_never_raises(document: str | bytes) -> None:
    parsed = parse(document)
    assert (parsed.policy is None) == bool(parsed.errors)


FIELDS = st.sampled_from(
    (
        *("version", "rules", "tests", "id", "topic", "who", "action", "claims", "as", "expires", "qos"),
        *("binding", "user", "global", "agents", "publishers", "permission", "publish"),
    )
)
WORDS = st.sampled_from(("3", "2", "2.1", "a/{$self}", "pub", "username"))
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | TEXT, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(TREES, st.sampled_from(("3", "2", "2.1")))
def test_documents_of_any_shape_are_read_or_refused(tree: object, version: str) -> None:
    if isinstance(tree, dict):
        tree["version"] = version
    parsed = parse(json.dumps(tree))
    assert (parsed.policy is None) == bool(parsed.errors)
    for finding in parsed.findings:
        assert finding.line >= 1
        assert finding.column >= 1

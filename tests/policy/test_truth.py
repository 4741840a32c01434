"""Truth by enumeration: small alphabets, every policy, every request; and brute force behind the diff."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from acl.policy import Effect, Identity, Policy, Request, Rule, compile_policy, diff, permits
from acl.policy.analysis.comparison import Relation
from acl.policy.engine import evaluate
from acl.policy.engine import index as index_module
from acl.policy.engine import levels as levels_module
from acl.policy.engine.templates import Template, compile_pattern
from tests.support.policy_strategies import LATER, NOW, random_policy, random_rule

SOMEBODY = Identity("org_abcdefghijkl", "u", "c")
LEVELS = ("a", "+", "{username}")
FILTERS = tuple(
    "/".join(levels)
    for levels in (
        *itertools.product(LEVELS),
        *itertools.product(LEVELS, LEVELS),
        ("#",),
        *(((level), "#") for level in LEVELS),
        *((one, other, "#") for one in LEVELS[:2] for other in LEVELS[:2]),
    )
)
TEXTS = ("a", "u", "x")
TOPICS = (
    *("/".join(levels) for length in (1, 2, 3, 4) for levels in itertools.product(TEXTS, repeat=length)),
    *("$s", "$s/a"),
)
ASKED = tuple(filter_text.replace("{username}", "u") for filter_text in FILTERS)
RULES = tuple(
    Rule(f"{effect}-{topic}", (topic,), effect=effect) for effect in (Effect.ALLOW, Effect.DENY) for topic in FILTERS
)


def matching(asked: str, topics: Sequence[str] = TOPICS) -> list[str]:
    return [topic for topic in topics if evaluate.matches(evaluate.split(asked), evaluate.split(topic))]


INSIDE = {asked: matching(asked) for asked in ASKED}


def check(policy: Policy, topics: Sequence[str] = TOPICS, inside: Mapping[str, Sequence[str]] = INSIDE) -> int:
    """Hold evaluator, index and enumeration of topics against each other; returns the number of requests."""
    compiled = compile_policy(policy)
    received = {}
    covered = {}
    resolved = [(rule, rule.topics[0].replace("{username}", "u")) for rule in policy.rules]
    for topic in topics:
        decided = [rule for rule, text in resolved if evaluate.matches(evaluate.split(text), evaluate.split(topic))]
        decision = compiled.receive(SOMEBODY, topic, now=NOW)
        assert decision.rule == (decided[0].id if decided else None)
        received[topic] = decision.allowed
        covered[topic] = any(rule.effect is Effect.ALLOW for rule in decided)
    for asked in inside:
        decision = compiled.subscribe(SOMEBODY, asked, now=NOW)
        assert decision == evaluate.subscribe(policy, SOMEBODY, asked, now=NOW)
        truth = all(covered[topic] for topic in inside[asked]) and any(received[topic] for topic in inside[asked])
        assert decision.allowed == truth, (policy, asked, decision)
        denied = [topic for topic in inside[asked] if not received[topic]]
        if decision.allowed:
            assert bool(decision.holes) == bool(denied), (policy, asked, decision)
            for topic in denied:
                assert any(evaluate.matches(evaluate.split(hole), evaluate.split(topic)) for hole in decision.holes)
    return len(topics) + len(inside)


def small_policies() -> Iterator[Policy]:
    for size in (0, 1, 2, 3):
        for rules in itertools.permutations(RULES, size):
            yield numbered(rules)


def numbered(rules: Iterable[Rule]) -> Policy:
    return Policy(tuple(replace(rule, id=f"r{number}") for number, rule in enumerate(rules)))


def test_every_policy_of_two_rules_and_a_sample_of_three() -> None:
    sample = random.Random(7)
    requests = 0
    for policy in itertools.takewhile(lambda each: len(each.rules) < 3, small_policies()):
        if len(policy.rules) < 2 or sample.random() < 0.3:
            requests += check(policy)
    for _ in range(150):
        rules = sample.sample(RULES, 3)
        requests += check(numbered(rules))
    assert requests > 50_000


def test_every_policy_of_two_rules_with_empty_levels() -> None:
    levels = ("", "+", "x")
    kinds = [each for length in (1, 2, 3) for each in itertools.product(levels, repeat=length)]
    filters = ["/".join(each) for each in kinds if each != ("",) and "x" not in each]
    filters += ["#", *("/".join((*each, "#")) for each in kinds if len(each) < 3 and "x" not in each)]
    topics = ["/".join(each) for length in (1, 2, 3, 4) for each in itertools.product(("", "x"), repeat=length)]
    inside = {asked: matching(asked, topics[1:]) for asked in (*filters, "x", "/x", "x/#")}
    rules = [Rule(effect, (text,), effect=effect) for effect in Effect for text in filters]
    for pair in itertools.product(rules, repeat=2):
        check(numbered(pair), topics[1:], inside)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_policy_of_three_rules() -> None:
    wanted = int(os.environ.get("POLICY_TRUTH_REQUESTS", "0"))
    requests = 0
    for policy in small_policies():
        requests += check(policy)
        if wanted and requests >= wanted:
            break
    assert requests >= min(wanted or 1_000_000, 1_000_000)


USERNAMES = ("a", "b", "ab", "bb", "xa", "", "a/b", "$s", "q", "xq", "$q", "xxa", "aq", "ay", "qy")
WORLD = tuple(
    Identity("org_abcdefghijkl", username, client, {} if claim is None else {"k": claim})  # type: ignore[dict-item]
    for username in USERNAMES
    for client in ("a", "b", "", "ab", "q", "a/a", "xa", "xq", "$q", "aq", "ay")
    for claim in (None, "a", "b", "bq", "q", "xa", "xxa", "$q", ["a", "b"], ["q"], ["a", "q", "bq"])
)
WORLD_TEXTS = ("a", "b", "xa", "q", "$s", "xq", "$q", "ay", "")
WORLD_TOPICS = tuple(
    "/".join(levels)
    for length in (1, 2, 3)
    for levels in itertools.product(("a", "b", "xa", "q", "$s", "xq"), repeat=length)
)


def aimed(rng: random.Random, policy: Policy, identity: Identity) -> str:
    """A topic that a filter of the policy may match for this identity."""
    if not policy.rules:
        return rng.choice(WORLD_TOPICS)
    levels = []
    for level in compile_pattern(rng.choice(rng.choice(policy.rules).topics)):
        if isinstance(level, Template):
            levels.append(level.resolve(identity) or rng.choice(WORLD_TEXTS))
        elif level == "#":
            levels += rng.choices(WORLD_TEXTS, k=rng.randint(0, 2))
        else:
            levels.append(rng.choice(WORLD_TEXTS) if level == "+" else level)
    return "/".join(levels) or "a"


def loosened(rng: random.Random, topic: str) -> str:
    """A filter that matches ``topic``."""
    levels = [rng.choice((level, level, "+")) for level in topic.split("/")]
    if rng.random() < 0.4:
        levels = [*levels[: rng.randint(0, len(levels))], "#"]
    return "/".join(levels) or "#"


def mutated(rng: random.Random, policy: Policy) -> Policy:
    """A policy near ``policy``: a rule more, less, moved or changed."""
    rules = list(policy.rules)
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.random()
        fresh = random_rule(rng, len(rules), id_prefix="n")
        if kind < 0.3 or not rules:
            rules.insert(rng.randint(0, len(rules)), fresh)
        elif kind < 0.5:
            rules.pop(rng.randrange(len(rules)))
        elif kind < 0.8:
            at = rng.randrange(len(rules))
            field = rng.choice(("topics", "who", "action", "expires", "effect"))
            changed = replace(rules[at], **{field: getattr(fresh, field)})
            rules[at] = changed if changed.effect is Effect.ALLOW else replace(changed, qos=2, retain=True)
        else:
            rng.shuffle(rules)
    return Policy(tuple(rules))


def check_diff(rng: random.Random, old: Policy, new: Policy, probes: int) -> Relation | None:
    """The diff of a pair: its witnesses flip, and no request found by chance contradicts it."""
    found = diff(old, new, now=NOW)
    one, other = compile_policy(old), compile_policy(new)
    for wider, regions in ((True, found.widened), (False, found.narrowed)):
        for region in regions:
            flips = permits(one, region.witness, now=region.at), permits(other, region.witness, now=region.at)
            assert flips == (not wider, wider), (region, old, new)
    if not found.complete:
        return None
    for _ in range(probes):
        identity = rng.choice(WORLD)
        topic = aimed(rng, rng.choice((old, new)), identity) if rng.random() < 0.7 else rng.choice(WORLD_TOPICS)
        action = rng.choice(("pub", "sub", "sub"))
        if action == "sub" and rng.random() < 0.6:
            topic = loosened(rng, topic)
        request = Request(identity, action, topic, rng.randint(0, 2), rng.random() < 0.5)
        now = rng.choice((NOW, NOW, LATER))
        before, after = permits(one, request, now=now), permits(other, request, now=now)
        if after != before:
            assert found.widened if after else found.narrowed, (request, old, new)
    return found.relation


def run_diffs(seed: int, pairs: int, probes: int, levels: tuple[str, ...]) -> dict[Relation | None, int]:
    """How many pairs came out how; ``None`` for those whose comparison was cut short."""
    rng = random.Random(seed)
    seen: dict[Relation | None, int] = dict.fromkeys((*Relation, None), 0)
    for _ in range(pairs):
        old = random_policy(rng, size=rng.randint(0, 4), levels=levels)
        other = random_policy(rng, size=rng.randint(0, 3), levels=levels)
        new = mutated(rng, old) if rng.random() < 0.8 else other
        seen[check_diff(rng, old, new, probes)] += 1
    print(seen)
    return seen


DIFF_LEVELS = ("a", "b", "$s", "+", "+", "{username}", "x{username}", "{client_id}")
ALIKE_LEVELS = ("a", "xa", "+", "{username}", "x{username}", "{client_id}", "x{client_id}", "{claims.k}", "x{claims.k}")
"""Levels that read alike in many ways."""


@pytest.mark.parametrize("levels", [DIFF_LEVELS, ALIKE_LEVELS], ids=["usual", "alike"])
def test_diffs_of_random_pairs_agree_with_brute_force(levels: tuple[str, ...]) -> None:
    seen = run_diffs(seed=11, pairs=40, probes=200, levels=levels)
    assert all(seen[relation] for relation in Relation), seen
    assert seen[None] <= (0 if levels == DIFF_LEVELS else 8), seen


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("levels", [DIFF_LEVELS, ALIKE_LEVELS], ids=["usual", "alike"])
def test_diffs_of_ten_thousand_random_pairs_agree_with_brute_force(levels: tuple[str, ...]) -> None:
    pairs, seed = int(os.environ.get("POLICY_DIFF_PAIRS", "10000")), int(os.environ.get("POLICY_DIFF_SEED", "1"))
    seen = run_diffs(seed=seed, pairs=pairs, probes=300, levels=levels)
    assert all(seen[relation] for relation in Relation), seen
    assert seen[None] <= pairs // (1_000 if levels == DIFF_LEVELS else 5), seen


SUB_FILTERS = tuple(filter_text for filter_text in FILTERS if "{" not in filter_text)
SUB_ASKED = tuple(dict.fromkeys((*SUB_FILTERS, *(text.replace("a", "x") for text in SUB_FILTERS), "a/+/+", "+/+/+")))


def check_subscriptions(old: Policy, new: Policy) -> Relation | None:
    """The diff of a pair of policies about subscriptions of somebody, against all filters of a small alphabet."""
    one, other = compile_policy(old), compile_policy(new)
    found = diff(old, new, now=NOW)
    widened = narrowed = False
    for asked in SUB_ASKED if found.complete else ():
        for qos in range(3):
            request = Request(SOMEBODY, "sub", asked, qos)
            before, after = permits(one, request, now=NOW), permits(other, request, now=NOW)
            widened, narrowed = widened or after > before, narrowed or before > after
    assert bool(found.widened) >= widened, (old, new)
    assert bool(found.narrowed) >= narrowed, (old, new)
    for wider, regions in ((True, found.widened), (False, found.narrowed)):
        for region in regions:
            before, after = permits(one, region.witness, now=NOW), permits(other, region.witness, now=NOW)
            assert (before, after) == (not wider, wider), (region, old, new)
            told = [judge.subscribe(SOMEBODY, region.witness.topic, now=NOW).rule for judge in (one, other)]
            if region.witness.identity == SOMEBODY:
                assert told == [region.old_rule, region.new_rule], (region, old, new)
    return found.relation if found.complete else None


def run_subscriptions(seed: int, pairs: int) -> Counter[str | None]:
    """How often which relation came out, and how often only a subscription to a filter differed."""
    rng = random.Random(seed)
    seen: Counter[str | None] = Counter()
    for _ in range(pairs):
        effects = [rng.choice((Effect.DENY, Effect.ALLOW, Effect.ALLOW)) for _ in range(rng.randint(2, 5))]
        rules = [
            Rule(
                f"r{at}",
                (rng.choice(SUB_FILTERS),),
                "sub",
                effect,
                qos=2 if effect is Effect.DENY else rng.choice((2, 2, 0)),
            )
            for at, (effect, limit) in enumerate(zip(effects, rng.choices((2, 2, 0), k=5), strict=False))
        ]
        at = rng.randrange(len(rules))
        old, new = Policy(tuple(rules)), Policy((*rules[:at], *rules[at + 1 :]))
        if rng.random() < 0.5:
            old, new = new, old
        seen[check_subscriptions(old, new)] += 1
        found = diff(old, new, now=NOW)
        seen["only filters"] += any(region.action == "sub" for region in (*found.widened, *found.narrowed))
    return seen


def test_diffs_of_subscriptions_agree_with_every_filter_of_a_small_alphabet() -> None:
    seen = run_subscriptions(seed=2, pairs=400)
    assert seen["only filters"] >= 8, seen
    assert seen[None] <= 12, seen
    assert all(seen[relation] for relation in (Relation.EQUIVALENT, Relation.WIDER, Relation.NARROWER)), seen


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_diffs_of_subscriptions_agree_with_every_filter_of_a_small_alphabet() -> None:
    assert run_subscriptions(seed=3, pairs=10_000)["only filters"] >= 100


def rewritten(rng: random.Random, policy: Policy) -> Policy:
    """A policy that says the same in other words."""
    rules: list[Rule] = []
    for rule in policy.rules:
        kind = rng.random()
        if kind < 0.25 and len(rule.topics) > 1:
            rules += [replace(rule, id=f"{rule.id}-{at}", topics=(topic,)) for at, topic in enumerate(rule.topics)]
        elif kind < 0.5 and rule.action == "pub+sub":
            rules += [replace(rule, id=rule.id + "-p", action="pub"), replace(rule, id=rule.id + "-s", action="sub")]
        elif kind < 0.75 and len(rule.who.username) > 1:
            rules += [
                replace(rule, id=f"{rule.id}-{at}", who=replace(rule.who, username=(glob,)))
                for at, glob in enumerate(rule.who.username)
            ]
        else:
            rules += [rule, replace(rule, id=rule.id + "-again")]
    return Policy(tuple(rules))


def run_rewrites(seed: int, pairs: int) -> None:
    rng = random.Random(seed)
    for _ in range(pairs):
        policy = random_policy(rng, size=rng.randint(1, 3), levels=DIFF_LEVELS)
        found = diff(policy, rewritten(rng, policy), now=NOW)
        assert found.relation is Relation.EQUIVALENT, (policy, found)


def test_rewrites_are_equivalent() -> None:
    run_rewrites(seed=3, pairs=30)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_rewrites_are_equivalent() -> None:
    run_rewrites(seed=4, pairs=1000)


@pytest.mark.parametrize("long", [0, 256])
@pytest.mark.parametrize("buckets_from", [1, 10_000])
def test_large_random_policies_answer_alike(buckets_from: int, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when every topic counts as a long one, with levels too long for every filter or not."""
    monkeypatch.setattr(levels_module, "BUCKETS_FROM", buckets_from)
    monkeypatch.setattr(index_module, "LONG", long)
    rng = random.Random(5)
    for size in (30, 60, 120):
        policy = random_policy(rng, size=size, depth=4)
        compiled = compile_policy(policy)
        for _ in range(150):
            identity, topic = rng.choice(WORLD), rng.choice(WORLD_TOPICS)
            if not long:
                topic = "/".join(level + "x" * rng.choice((0, 0, 0, 300)) for level in topic.split("/"))
            asked = "/".join(rng.choice((level, "+")) for level in topic.split("/")) + rng.choice(("", "/#"))
            ask = {"qos": rng.randint(0, 2), "retain": rng.random() < 0.3, "now": NOW}
            expected = evaluate.publish(policy, identity, topic, **ask)  # type: ignore[arg-type]
            assert compiled.publish(identity, topic, **ask) == expected  # type: ignore[arg-type]
            assert compiled.publish(identity, topic, **ask, checked=True) == expected  # type: ignore[arg-type]
            assert compiled.receive(identity, topic, now=NOW, checked=True) == compiled.receive(
                identity, topic, now=NOW
            )
            assert compiled.receive(identity, topic, now=NOW) == evaluate.receive(policy, identity, topic, now=NOW)
            wide = evaluate.subscribe(policy, identity, asked, now=NOW)
            assert compiled.subscribe(identity, asked, now=NOW) == wide

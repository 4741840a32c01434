"""The index by itself: what it remembers, and the edges that random policies seldom touch."""

from __future__ import annotations

import random
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from acl.policy import Effect, Identity, Policy, Rule, Who, compile_policy
from acl.policy.engine import evaluate
from acl.policy.engine import index as index_module
from acl.policy.engine import levels as levels_module
from acl.policy.engine.expiries import Expiries
from acl.policy.engine.verdicts import MAX_NEAR_MISSES, MAX_REGIONS, regions_examined
from tests.benchmarks import policy as benchmark

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ADA = Identity("org_abcdefghijkl", "ada", "c1", {"team": "ops"})
BOB = Identity("org_abcdefghijkl", "bob")


def policy(*rules: Rule) -> Policy:
    return Policy(rules)


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [-1, 0, 1, 2, 3, 4, 100])
@pytest.mark.parametrize("limit", [0, 1, 2])
@pytest.mark.parametrize("buckets_from", [1, 10_000])
def test_every_qos_against_every_limit(
    limit: int, qos: int, retain: bool, buckets_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels_module, "BUCKETS_FROM", buckets_from)
    rules = policy(
        Rule("exact", ("a/b",), qos=limit),
        Rule("plain", ("a/+",), qos=limit, retain=False),
        Rule("no", ("a/#",), effect=Effect.DENY),
        Rule("late", ("a/b",)),
    )
    for topic in ("a/b", "a/c", "b"):
        expected = evaluate.publish(rules, ADA, topic, qos=qos, retain=retain, now=NOW)
        assert compile_policy(rules).publish(ADA, topic, qos=qos, retain=retain, now=NOW) == expected


def test_topics_at_the_limits_are_decided_alike() -> None:
    rules = policy(Rule("all", ("#",)))
    compiled = compile_policy(rules)
    for topic in ("x", "é" * 32_767, "é" * 32_768, "x" * 65_535, "x" * 65_536, "/" * 127, "/" * 128, "a#", "+"):
        expected = evaluate.publish(rules, ADA, topic, qos=0, retain=False, now=NOW)
        assert compiled.publish(ADA, topic, qos=0, retain=False, now=NOW) == expected
        assert compiled.receive(ADA, topic, now=NOW) == evaluate.receive(rules, ADA, topic, now=NOW)
        assert compiled.subscribe(ADA, topic, now=NOW) == evaluate.subscribe(rules, ADA, topic, now=NOW)


@pytest.mark.parametrize("topic", ["", "/" * 128, "a/" * 128 + "x" * 300, "$share/g", "$share/g/" + "/" * 128])
def test_a_topic_known_to_be_one_is_still_refused_when_it_is_empty_or_too_deep(topic: str) -> None:
    """The mountpoint alone is what is left of ``org/t/``: no client publishes to it, but a broker may deliver it."""
    rules = policy(Rule("all", ("#",)))
    compiled = compile_policy(rules)
    expected = evaluate.receive(rules, ADA, topic, now=NOW)
    assert not expected.allowed
    assert compiled.receive(ADA, topic, now=NOW, checked=True) == expected
    expected = evaluate.publish(rules, ADA, topic, qos=0, retain=False, now=NOW)
    assert compiled.publish(ADA, topic, qos=0, retain=False, now=NOW, checked=True) == expected


def test_a_long_topic_is_neither_looked_through_again_nor_hashed() -> None:
    """Counted by what would fail: 64 KiB took 0.15 ms in each direction, most of it for the same answer again."""

    class Text(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise AssertionError("a long text was hashed")

        def isascii(self) -> bool:
            raise AssertionError("a checked topic was looked through")

        def split(self, *_: object) -> list[str]:  # type: ignore[override]
            raise AssertionError("a long topic was split letter by letter")

    filters = [Rule(f"r{number}", (f"a/{number}/c",)) for number in range(levels_module.BUCKETS_FROM)]
    compiled = compile_policy(policy(*filters, Rule("all", ("a/+/+",)), Rule("own", ("{username}/b",))))
    for topic in (Text("a/" + "x" * 60_000 + "/c"), Text("x" * 60_000)):
        decision = compiled.publish(ADA, topic, qos=0, retain=False, now=NOW, checked=True)
        assert decision == compiled.receive(ADA, topic, now=NOW, checked=True)
        assert decision.rule == ("all" if topic[0] == "a" else None)


def test_an_identity_is_worked_out_once_until_its_claims_change(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_policy(policy(Rule("own", ("{claims.team}/x",))))
    asked: list[Identity] = []
    work_out = compiled._audience.admitting
    monkeypatch.setattr(compiled._audience, "admitting", lambda who: (asked.append(who), work_out(who))[1])
    same = Identity("org_abcdefghijkl", "ada", "c1", {"team": "ops"})
    for identity in (ADA, ADA, same):
        assert compiled.publish(identity, "ops/x", qos=0, retain=False, now=NOW).allowed
        assert compiled.receive(identity, "ops/x", now=NOW).allowed
        assert compiled.subscribe(identity, "ops/x", now=NOW).allowed
    assert asked == [ADA]
    moved = Identity("org_abcdefghijkl", "ada", "c1", {"team": "dev"})
    assert not compiled.publish(moved, "ops/x", qos=0, retain=False, now=NOW).allowed
    assert asked == [ADA, moved]


def test_a_slash_alone_begins_every_topic_below_it() -> None:
    """There is no empty topic: ``/#`` is what begins with ``/``, and ``+`` has nothing of it."""
    rules = policy(Rule("below", ("/+/#",), qos=1), Rule("top", ("+",)), Rule("low", ("/#",), qos=0))
    holed = policy(Rule("no", ("+",), effect=Effect.DENY), *rules.rules)
    for each in (rules, holed):
        below = compile_policy(each).subscribe(ADA, "/#", now=NOW)
        assert (below.rule, below.holes, below.qos) == ("below", (), 0)
        assert below == evaluate.subscribe(each, ADA, "/#", now=NOW)
        top = compile_policy(each).subscribe(ADA, "+", now=NOW)
        assert (top.rule, top.qos) == (("no", 0) if each is holed else ("top", 2))
        assert top == evaluate.subscribe(each, ADA, "+", now=NOW)


def test_views_are_dropped_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_VIEW_BYTES", 3_000)
    compiled = compile_policy(policy(Rule("own", ("{username}/x",))))
    for number in range(50):
        identity = Identity("o", f"u{number}")
        assert compiled.publish(identity, f"u{number}/x", qos=0, retain=False, now=NOW).allowed
        assert not compiled.publish(identity, "u/x", qos=0, retain=False, now=NOW).allowed
        assert 1 <= len(compiled._views) <= 8


@pytest.mark.parametrize(
    ("filters", "topic", "view_bytes"), [(1, "a", 512), (4_000, "a", 1_512), (1, "{username}", 640)]
)
def test_a_view_counts_with_its_filters_and_variables(
    filters: int, topic: str, view_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_VIEW_BYTES", 20 * view_bytes)
    compiled = compile_policy(policy(*(Rule(f"r{at}", (topic,)) for at in range(filters))))
    kept = []
    for number in range(30):
        compiled.receive(Identity("o", f"u{number}"), "a", now=NOW)
        kept.append(len(compiled._views))
    assert kept == [*range(1, 22), *range(1, 10)]


def test_the_same_decision_is_the_same_value() -> None:
    compiled = compile_policy(policy(Rule("a", ("a/#",)), Rule("d", ("d",), effect=Effect.DENY)))
    first = compiled.publish(ADA, "a/b", qos=0, retain=False, now=NOW)
    assert compiled.publish(BOB, "a/c", qos=1, retain=True, now=NOW) is first
    assert compiled.receive(BOB, "a", now=NOW) is first
    assert compiled.publish(ADA, "x", qos=0, retain=False, now=NOW) is compiled.receive(BOB, "y", now=NOW)
    grant = compiled.subscribe(ADA, "a/+", now=NOW)
    assert compiled.subscribe(BOB, "a/#", now=NOW) is grant
    assert compiled.subscribe(ADA, "x/#", now=NOW) is compiled.subscribe(ADA, "y", now=NOW)


def test_near_misses_and_regions_are_bounded_alike() -> None:
    many = MAX_NEAR_MISSES + 3
    low = policy(*(Rule(f"r{at}", ("a/#", "a/b"), qos=0) for at in range(many)))
    decision = compile_policy(low).publish(ADA, "a/b", qos=1, retain=False, now=NOW)
    assert len(decision.near_misses) == MAX_NEAR_MISSES
    assert decision == evaluate.publish(low, ADA, "a/b", qos=1, retain=False, now=NOW)
    for count in (MAX_REGIONS - 1, MAX_REGIONS, MAX_REGIONS + 1):
        denies = tuple(Rule(f"d{at}", (f"a/{at}",), effect=Effect.DENY) for at in range(count))
        holed = policy(*denies, Rule("all", ("a/#",)))
        grant = compile_policy(holed).subscribe(ADA, "a/#", now=NOW)
        assert grant == evaluate.subscribe(holed, ADA, "a/#", now=NOW)
        assert len(grant.holes) == (count if count <= MAX_REGIONS else 1)
        dead = tuple(Rule(f"x{at}", (f"a/z/{at}",)) for at in range(count))
        taken = policy(Rule("z", ("a/z/+",), effect=Effect.DENY), *dead, Rule("all", ("a/#",)))
        for asked in ("a/#", "a/z/+", "a/+/+"):
            expected = evaluate.subscribe(taken, ADA, asked, now=NOW)
            assert compile_policy(taken).subscribe(ADA, asked, now=NOW) == expected


@pytest.mark.parametrize("count", [MAX_REGIONS - 1, MAX_REGIONS, MAX_REGIONS + 1])
def test_allows_without_effect_are_examined_up_to_the_bound(count: int) -> None:
    dead = tuple(Rule(f"x{at}", (f"a/{at}/#",)) for at in range(count))
    below = Rule("below", ("a/+/#",), effect=Effect.DENY)
    rules = policy(below, *dead, Rule("top", ("a",), effect=Effect.DENY), Rule("all", ("a/#",)))
    decision = compile_policy(rules).subscribe(ADA, "a/#", now=NOW)
    assert decision == evaluate.subscribe(rules, ADA, "a/#", now=NOW)
    assert (decision.rule, decision.holes) == (("below", ()) if count <= MAX_REGIONS else (f"x{count - 1}", ("a/#",)))


@pytest.mark.parametrize(
    ("levels", "filters", "examined"),
    [
        (1, 1, 6),
        (10, 1, 6),
        (11, 1, 5),
        (22, 9, 2),
        (64, 1, 1),
        (128, 1, 1),
        (4, 19_999, 6),
        (4, 40_000, 5),
        (4, 1e6, 1),
    ],
)
def test_fewer_parts_are_examined_where_each_costs_more(levels: int, filters: int, examined: int) -> None:
    assert regions_examined(levels, filters) == examined


@pytest.mark.parametrize("levels", [4, 10, 11, 12, 22, 33, 127, 128])
@pytest.mark.parametrize("where", ["rule", "request"])
def test_deep_filters_are_examined_alike(where: str, levels: int) -> None:
    deep = "/".join(["z", *("+" * (levels - 1))])
    for count in range(1, MAX_REGIONS + 2):
        denies = tuple(Rule(f"d{at}", (f"+/{at}/#",), effect=Effect.DENY) for at in range(count))
        dead = tuple(Rule(f"x{at}", (f"a/y/{at}/#",)) for at in range(count))
        below = Rule("below", ("a/y/+/#", "a/y"), effect=Effect.DENY)
        extra = (Rule("deep", (deep,)),) if where == "rule" else ()
        asked = ("a/#", "+/#", "a/y/#") if where == "rule" else (deep.replace("z", "+"), deep.replace("z/+", "a/y"))
        holed = policy(*denies, below, *dead, *extra, Rule("all", ("#",)))
        for each in asked:
            grant = compile_policy(holed).subscribe(ADA, each, now=NOW)
            assert grant == evaluate.subscribe(holed, ADA, each, now=NOW)
        if where == "rule":
            grant = compile_policy(holed).subscribe(ADA, "a/#", now=NOW)
            limit = regions_examined(levels, count * 2 + 4)
            assert len(grant.holes) == (1 if count + 2 > limit else count + 2)


def test_a_decision_of_a_policy_at_the_limits_runs_few_more_lines_than_a_usual_one() -> None:
    """The work bound, counted in lines of Python; ``make bench-policy`` measures it in time."""
    rng = random.Random(1)
    usual = benchmark.mixed_policy(1_000, rng)
    compiled = compile_policy(usual)
    ordinary = statistics.median(
        _lines(partial(compiled.publish, ask.identity, ask.topic, qos=0, retain=False, now=NOW))
        for ask in benchmark.asks(usual, 100, rng)
    )
    for name, (hostile, published, subscribed) in benchmark.hostile_policies(rng).items():
        if sum(len(rule.topics) for rule in hostile.rules) > 20_000:
            continue  # the same levels; more filters make masks longer, not lines more
        compiled = compile_policy(hostile)
        for run in benchmark.every_ask(compiled, published, subscribed):
            assert _lines(run) <= 50 * ordinary, (name, run)


def _lines(run: Callable[[], object]) -> int:
    """How many lines of Python ``run`` executes, the second time it is asked."""
    run()
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def test_a_first_rule_that_counts_is_found_among_many() -> None:
    allows = tuple(Rule(f"a{at}", (f"a/{at}",)) for at in range(MAX_REGIONS + 2))
    rules = policy(*allows, Rule("no", ("a/x",), effect=Effect.DENY), Rule("all", ("a/#",)))
    decision = compile_policy(rules).subscribe(ADA, "a/#", now=NOW)
    assert decision == evaluate.subscribe(rules, ADA, "a/#", now=NOW)
    assert (decision.rule, decision.holes) == ("all", ("a/x",))


def test_the_largest_regions_are_told() -> None:
    regions = [("a", "#"), ("a", "b"), ("c",), ("a", "#"), ("d", "e"), ("d", "+")]
    assert evaluate.largest(regions) == ("a/#", "c", "d/+")


def test_expiries_move_with_the_time() -> None:
    times = [NOW + timedelta(days=day) for day in range(100)]
    rules = policy(*(Rule(f"r{day}", ("a/#",), expires=at) for day, at in enumerate(times)), Rule("s", ("b",)))
    compiled = compile_policy(rules)
    for day in (0, 50, 98, 99, 10, 200):
        now = NOW + timedelta(days=day, hours=1)
        assert compiled.receive(ADA, "a", now=now) == evaluate.receive(rules, ADA, "a", now=now)
        assert compiled.subscribe(ADA, "a/#", now=now) == evaluate.subscribe(rules, ADA, "a/#", now=now)
    assert compiled.subscribe(ADA, "b", now=NOW).valid_until is None
    none = Expiries([None, None], lambda ranks: sum(1 << rank for rank in ranks))
    assert (bool(none), none.live(NOW), none.soonest(3)) == (False, 3, None)


def test_covering_meeting_and_ranks_speak_of_filters_in_order() -> None:
    rules = policy(
        Rule("a", ("a/#", "b"), "pub"), Rule("b", ("a/+",), "sub", Effect.DENY), Rule("c", ("a/b",), who=Who(("ada",)))
    )
    compiled = compile_policy(rules)

    def met(identity: Identity, action: str, before: int) -> list[int]:
        return list(compiled.ranks(compiled.meeting(identity, "a/+", action, before=before), 9))  # type: ignore[arg-type]

    def covered(identity: Identity, action: str, before: int) -> list[int]:
        (mask,) = compiled.covering(identity, "a/b", action, before=before)  # type: ignore[arg-type]
        return list(compiled.ranks(mask, 9))

    assert met(ADA, "pub", 4) == [0, 3]
    assert met(ADA, "sub", 4) == [2, 3]
    assert met(ADA, "sub", 3) == [2]
    assert met(BOB, "sub", 4) == [2]
    assert covered(ADA, "pub", 4) == [0, 3]
    assert covered(ADA, "sub", 4) == [2, 3]
    assert covered(ADA, "sub", 2) == []
    assert list(compiled.ranks(0b1111, 2)) == [0, 1]


SHAPES: dict[str, Callable[[int], Rule]] = {
    "literals": lambda at: Rule(f"r{at}", (f"devices/d{at}/state",)),
    "globs": lambda at: Rule(f"r{at}", ("a/b",), who=Who((f"*{at}*u*",))),
    "depths": lambda at: Rule(f"r{at}", ("a/" * (1 + at % 60) + f"{at}/#",)),
    "variables": lambda at: Rule(f"r{at}", (f"x/{at}-{{username}}/+",)),
}


def compiled_sizes(kind: str) -> tuple[list[int], list[int]]:
    """Calls made and bytes kept by compiling 2,000, 4,000 and 8,000 rules."""
    calls, memory = [], []
    for size in (2_000, 4_000, 8_000):
        rules = policy(*map(SHAPES[kind], range(size)))
        compile_policy(rules)
        calls.append(_calls(partial(compile_policy, rules)))
        tracemalloc.start()
        kept = compile_policy(rules)
        memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert kept.policy is rules
    return calls, memory


@pytest.mark.parametrize("kind", SHAPES)
def test_compiling_grows_with_the_rules_not_faster(kind: str) -> None:
    calls, memory = compiled_sizes(kind)
    for less, more in pairwise(calls):
        assert more < 2.2 * less, calls
    for size, kept in zip((2_000, 4_000, 8_000), memory, strict=True):
        # A variable of its own, or a literal below 16 levels, takes a bit per filter before it; all else is linear.
        assert kept < size * (1_000 + (size // 12 if kind in ("depths", "variables") else 0)), memory


def test_what_is_kept_of_an_identity_grows_with_the_variables_not_faster() -> None:
    kept = []
    for size in (1_000, 2_000, 4_000):
        compiled = compile_policy(policy(*map(SHAPES["variables"], range(size))))
        tracemalloc.start()
        compiled.receive(ADA, "x/1-ada/y", now=NOW)
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    for less, more in pairwise(kept):
        assert more < 2.7 * less, kept


def _calls(run: Callable[[], object]) -> int:
    """How many calls, those into C included, ``run`` makes."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls

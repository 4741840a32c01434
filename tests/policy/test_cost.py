"""What documents made to be slow cost: counted in calls, so that a busy machine changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType

import pytest

from acl.policy import Identity, Policy, Request, Rule, diff, explain, lint, parse
from acl.policy.analysis.comparison import MAX_REGIONS
from acl.policy.analysis.neighbors import changed_rules
from tests.support import attacks_policy as attacks

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def work(run: Callable[[], object]) -> int:
    """The calls that ``run`` makes, those of built-in functions too."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    "document", [attacks.equal_rules, attacks.similar_ids, attacks.old_form, attacks.misspelt, attacks.one_who_each]
)
def test_reading_a_document_costs_in_proportion_to_its_size(document: Callable[[int], str]) -> None:
    less, more = (document(size) for size in (400, 1_600))
    assert work(lambda: parse(more)) < 5 * work(lambda: parse(less))


def test_equal_rules_get_ids_that_stay_as_they_were() -> None:
    policy = parse(attacks.equal_rules(3)).policy
    assert policy is not None
    first = policy.rules[0].id
    assert [rule.id for rule in policy.rules] == [first, f"{first}-2", f"{first}-3"]
    taken = parse(
        f'{{"version": "3", "rules": [{{"topic": "a"}}, {{"topic": "a"}}, {{"topic": "b", "id": "{first}"}}]}}'
    )
    assert taken.policy is not None
    assert [rule.id for rule in taken.policy.rules] == [f"{first}-2", f"{first}-3", first]


@pytest.mark.parametrize("name", attacks.ASKED)
def test_a_subscription_is_explained_in_proportion_to_the_filters(name: str) -> None:
    document, asked = attacks.ASKED[name]
    policy = parse(document()).policy
    assert policy is not None
    filters = sum(len(rule.topics) for rule in policy.rules)
    request = Request(Identity("org_abcdefghijkl", "u", "c"), "sub", asked)
    assert work(lambda: explain(policy, request, now=NOW)) < 200 * filters + 20_000


@pytest.mark.parametrize("name", attacks.PAIRS)
def test_the_hardest_comparisons_stay_within_their_budget(name: str) -> None:
    old, new = (parse(text).policy for text in attacks.PAIRS[name](0.1))
    assert old
    assert new
    effort = 100_000
    filters = sum(len(rule.topics) for rule in (*old.rules, *new.rules))
    calls = work(lambda: diff(old, new, now=NOW, effort=effort))
    assert calls < 6 * effort + 150 * filters, "what is not charged is proportional to the documents"


def test_every_other_rule_changed_is_found_in_nearly_linear_time() -> None:
    def pair(size: int) -> tuple[list[Rule], list[Rule]]:
        old = [Rule(f"r{at}", (f"a/{at}",)) for at in range(size)]
        return old, [Rule(f"r{at}", (f"a/{at}" if at % 2 else f"b/{at}",)) for at in range(size)]

    few, many = pair(500), pair(2_000)
    assert work(lambda: changed_rules(*many)) < 6 * work(lambda: changed_rules(*few))
    old, new = many
    assert [rule.topics[0][0] for rule in changed_rules(old, new)] == ["a"] * 1_000 + ["b"] * 1_000


def test_regions_are_told_up_to_a_number_and_the_rest_is_not_called_nothing() -> None:
    rules = tuple(Rule(f"r{at}", (f"a/{at}",)) for at in range(MAX_REGIONS + 100))
    found = diff(Policy(), Policy(rules), now=NOW)
    assert len(found.widened) == MAX_REGIONS
    assert not found.complete


@pytest.mark.parametrize("name", attacks.UNREADABLE)
def test_no_unreadable_document_costs_more_than_its_length(name: str) -> None:
    text = attacks.UNREADABLE[name][:200_000]
    assert work(lambda: parse(text)) < 40 * len(text) + 1_000
    assert parse(text).policy is None


def test_warnings_cost_in_proportion_to_the_rules() -> None:
    less, more = (parse(attacks.denies_before_an_allow(size)) for size in (300, 1_200))
    assert work(lambda: lint(more, now=NOW)) < 6 * work(lambda: lint(less, now=NOW))

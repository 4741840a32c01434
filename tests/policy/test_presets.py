"""Every preset is a clean document whose own tests pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from acl.policy import parse, run_tests
from acl.policy.language.presets import PRESETS, Preset, preset

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_there_are_five() -> None:
    assert [each.name for each in PRESETS] == [
        "notifications",
        "agent-pipelines",
        "chat-channels",
        "permit-all",
        "blank",
    ]
    assert preset("blank") is PRESETS[4]
    assert preset("no-such-preset") is None


@pytest.mark.parametrize("each", PRESETS, ids=lambda each: each.name)
def test_a_preset_parses_without_findings_and_passes_its_own_tests(each: Preset) -> None:
    parsed = parse(each.text)
    assert parsed.findings == ()
    assert parsed.policy is not None
    outcomes = run_tests(parsed.policy, org="org_abcdefghijkl", now=NOW)
    assert outcomes, "a preset documents its intent with tests"
    assert [outcome.message for outcome in outcomes if not outcome.passed] == []


def test_permit_all_ends_by_itself() -> None:
    policy = parse(PRESETS[3].text).policy
    assert policy is not None
    assert all(rule.expires for rule in policy.rules)
    later = datetime(2027, 2, 1, tzinfo=UTC)
    assert [outcome.passed for outcome in run_tests(policy, org="o", now=later)] == [False, False, True]


@pytest.mark.parametrize("now", [NOW, datetime(2027, 2, 1, tzinfo=UTC), datetime(2031, 12, 31, 23, 59, tzinfo=UTC)])
@pytest.mark.parametrize("each", PRESETS, ids=lambda each: each.name)
def test_a_preset_begins_to_count_when_it_is_chosen(each: Preset, now: datetime) -> None:
    """Its file names a day, past which its own tests would refuse it."""
    policy = parse(each.starting(now)).policy
    assert policy is not None
    assert all(outcome.passed for outcome in run_tests(policy, org="o", now=now))
    ends = [rule.expires - now for rule in policy.rules if rule.expires]
    assert bool(ends) == (each.name == "permit-all")
    assert all(timedelta(days=28) < left < timedelta(days=63) for left in ends)
    assert each.starting(now.replace(day=2)) == each.starting(now), "the same for a month, so that it is known again"

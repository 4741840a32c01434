"""The case files: what is allowed, pinned. Evaluator and index both answer every one of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from acl.policy import Identity, Policy, Request, compile_policy, decide, parse, to_yaml
from acl.policy.engine import evaluate

FOLDER = Path(__file__).parent / "cases"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@functools.cache
def groups(name: str) -> list[dict[str, Any]]:
    return list(yaml.load((FOLDER / name).read_text("utf-8"), Loader=yaml.BaseLoader))  # noqa: S506  # texts only


@functools.cache
def typed_groups(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load((FOLDER / name).read_text("utf-8")))


@functools.cache
def policy_of(name: str, number: int) -> Policy:
    group = yaml.compose((FOLDER / name).read_text("utf-8")).value[number]
    rules = next(value for key, value in group.value if key.value == "rules")
    text = yaml.serialize(rules)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    parsed = parse(f'version: "3"\nrules:\n{indented}')
    assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
    return parsed.policy


def all_cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.yaml")):
        for number, group in enumerate(groups(path.name)):
            for at, case in enumerate(group["cases"]):
                action = next(name for name in ("pub", "sub", "receive") if name in case)
                who = case.get("as", {}).get("username", "somebody")
                yield pytest.param(
                    path.name, number, at, id=f"{path.stem}: {group['about']}: {who} {action} {case[action]!r}"
                )


@functools.cache
def identity_of(name: str, number: int, at: int) -> Identity:
    """The identity of a case; claims keep the kind (text, number, boolean) that the file gives them."""
    nodes = typed_groups(name)[number]["cases"][at].get("as", {})
    return Identity(
        nodes.get("org", "org_abcdefghijkl"),
        str(nodes.get("username", "somebody")),
        str(nodes.get("client_id", "")),
        nodes.get("claims", {}),
    )


@pytest.mark.parametrize(("name", "number", "at"), list(all_cases()))
@pytest.mark.parametrize("judge", ["evaluator", "index"])
def test_case(judge: str, name: str, number: int, at: int) -> None:
    group = groups(name)[number]
    case = group["cases"][at]
    policy = policy_of(name, number)
    action = next(each for each in ("pub", "sub", "receive") if each in case)
    request = Request(
        identity_of(name, number, at), action, case[action], int(case.get("qos", 0)), case.get("retain") == "true"
    )
    now = datetime.fromisoformat(group["now"]) if "now" in group else NOW
    if judge == "index":
        decision = decide(compile_policy(policy), request, now=now)
    elif action == "pub":
        decision = evaluate.publish(
            policy, request.identity, request.topic, qos=request.qos, retain=request.retain, now=now
        )
    elif action == "sub":
        decision = evaluate.subscribe(policy, request.identity, request.topic, now=now)
    else:
        decision = evaluate.receive(policy, request.identity, request.topic, now=now)

    assert (decision.effect.value, decision.rule or "none") == (case["expect"], case["rule"]), decision
    if "reason" in case:
        assert case["reason"] in decision.reason
    if "holes" in case:
        assert list(decision.holes) == case["holes"]
    if "near" in case:
        assert [miss.rule for miss in decision.near_misses] == case["near"]
    if "qos" in case and action != "pub":
        assert decision.qos == int(case["qos"])
    if "until" in case:
        assert decision.valid_until == datetime.fromisoformat(case["until"])


def test_there_are_at_least_two_hundred_cases() -> None:
    assert sum(1 for _ in all_cases()) >= 200


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_the_policies_of_the_cases_print_and_parse_back(name: str) -> None:
    for number in range(len(groups(name))):
        policy = policy_of(name, number)
        assert parse(to_yaml(policy)).policy == policy

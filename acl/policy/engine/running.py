"""Decide single requests and run the tests that a policy contains."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, assert_never

from acl.policy.engine.index import CompiledPolicy, compile_policy
from acl.policy.engine.model import Decision, Effect, Identity, Policy, PolicyTest, Request


class Evaluator(Protocol):
    """The interface of policy evaluation: a compiled policy, or the reference evaluator."""

    def publish(self, identity: Identity, topic: str, *, qos: int, retain: bool, now: datetime) -> Decision: ...
    def receive(self, identity: Identity, topic: str, *, now: datetime) -> Decision: ...
    def subscribe(self, identity: Identity, topic_filter: str, *, now: datetime) -> Decision: ...


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """The outcome of one policy test. ``message`` says in a sentence what was expected and what happened."""

    __test__ = False

    name: str
    passed: bool
    expected: Effect
    decision: Decision
    message: str


def decide(evaluator: Evaluator, request: Request, *, now: datetime) -> Decision:
    """Decide ``request`` with ``evaluator`` at ``now`` (an aware UTC time)."""
    match request.action:
        case "pub":
            return evaluator.publish(request.identity, request.topic, qos=request.qos, retain=request.retain, now=now)
        case "sub":
            return evaluator.subscribe(request.identity, request.topic, now=now)
        case "receive":
            return evaluator.receive(request.identity, request.topic, now=now)
        case _:
            assert_never(request.action)


def run_tests(policy: Policy | CompiledPolicy, *, org: str, now: datetime) -> tuple[TestOutcome, ...]:
    """Run every test of ``policy`` at ``now``, with identities of ``org``."""
    compiled = policy if isinstance(policy, CompiledPolicy) else compile_policy(policy)
    return tuple(_run(compiled, test, org, now) for test in compiled.policy.tests)


def request_of(test: PolicyTest, org: str) -> Request:
    """The request that ``test`` describes, made by an identity of ``org``."""
    identity = Identity(org, test.username, test.client_id, dict(test.claims))
    return Request(identity, test.do, test.topic, test.qos, test.retain)


def _run(compiled: CompiledPolicy, test: PolicyTest, org: str, now: datetime) -> TestOutcome:
    decision = decide(compiled, request_of(test, org), now=now)
    decider = decision.rule or "none"
    right_rule = test.rule is None or test.rule == decider
    passed = decision.effect is test.expect and right_rule
    wanted = test.expect.value + (f" by {test.rule}" if test.rule else "")
    got = decision.effect.value + (f" by {decider}" if test.rule else "")
    message = f"{got}, as expected" if passed else f"expected {wanted}, got {got}: {decision.reason}"
    return TestOutcome(test.name, passed, test.expect, decision, message)

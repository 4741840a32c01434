"""Compiled policies."""

from __future__ import annotations

from datetime import datetime

from acl.policy import evaluate
from acl.policy.model import Decision, Identity, Policy


class CompiledPolicy:
    """A policy ready to be asked."""

    __slots__ = ("policy",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def publish(self, identity: Identity, topic: str, *, qos: int, retain: bool, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.publish``."""
        return evaluate.publish(self.policy, identity, topic, qos=qos, retain=retain, now=now)

    def receive(self, identity: Identity, topic: str, *, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.receive``."""
        return evaluate.receive(self.policy, identity, topic, now=now)

    def subscribe(self, identity: Identity, topic_filter: str, *, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.subscribe``."""
        return evaluate.subscribe(self.policy, identity, topic_filter, now=now)


def compile_policy(policy: Policy) -> CompiledPolicy:
    """The index of ``policy``."""
    return CompiledPolicy(policy)

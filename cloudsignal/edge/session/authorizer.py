"""Policy decisions for one session: the compiled policy is asked once per topic, and its answers are cached.

A kept answer belongs to one policy and one identity. A new policy or new claims mean a new :class:`Authorizer`;
the oldest ``valid_until`` bounds how long any answer is kept.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from acl.policy import Decision, Effect, Identity
from acl.policy.engine.topics import too_deep
from cloudsignal.edge.session.memo import LONGEST, Memo, Purse
from cloudsignal.edge.session.organization import ActivePolicy

MEMO_MAX = 512
"""Answers kept per direction and session, at most; a session that uses more topics starts over."""


@dataclass(slots=True)
class Tally:
    """Counts of this process: policy decisions, their duration, and messages that were denied or refused."""

    asked: int = 0
    nanoseconds: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Messages by direction (``in``, ``out``) and verdict (``denied``, ``over_quota``, ``split``, ``unread``,
    ``refused_by_broker``)."""


TALLY = Tally()


class Authorizer:
    """Asks the active policy on behalf of one identity. Topics are checked UTF-8 bytes as the client names them.

    The codec has looked them through; the policy does not do it again.
    """

    __slots__ = ("_publish", "_receive", "active", "identity", "levels", "until")

    def __init__(self, active: ActivePolicy, identity: Identity, purse: Purse, levels: int) -> None:
        self.active = active
        self.levels = levels
        """Levels beyond which no rule is asked."""
        self.identity = identity
        self.until = math.inf
        """Seconds since the epoch until which everything learned holds."""
        self._publish: Memo[tuple[bytes, int, bool], Decision] = Memo(purse, MEMO_MAX)
        self._receive: Memo[bytes, Decision] = Memo(purse, MEMO_MAX)

    def forget(self) -> None:
        """Drop every cached decision, because a rule has expired."""
        self.until = math.inf
        self._publish.drop()
        self._receive.drop()

    def publish(self, topic: bytes, qos: int, retain: bool) -> Decision:
        """May the client publish this?"""
        key = (topic, qos, retain)
        short = len(topic) <= LONGEST  # to look up a long one costs as much as to check it
        decision = self._publish.known.get(key) if short else None
        if decision is None:
            deep = self.too_deep("pub", topic)
            if deep is not None:
                return deep
            started = time.perf_counter_ns()
            decision = self._note(
                self.active.policy.publish(
                    self.identity, topic.decode(), qos=qos, retain=retain, now=_now(), checked=True
                ),
                started,
            )
            if short:
                self._publish.keep_newest(key, decision, len(topic) + len(decision.reason))
        return decision

    def receive(self, topic: bytes) -> Decision:
        """May this message be delivered to the client?"""
        short = len(topic) <= LONGEST
        decision = self._receive.known.get(topic) if short else None
        if decision is None:
            started = time.perf_counter_ns()
            decision = self._note(
                self.active.policy.receive(self.identity, topic.decode(), now=_now(), checked=True), started
            )
            if short:
                self._receive.keep_newest(topic, decision, len(topic) + len(decision.reason))
        return decision

    def subscribe(self, topic_filter: bytes) -> Decision:
        """May the client hold this subscription? Never kept: subscriptions are rare and checked anew on each change."""
        deep = self.too_deep("sub", topic_filter)
        if deep is not None:
            return deep
        started = time.perf_counter_ns()
        return self._note(self.active.policy.subscribe(self.identity, topic_filter.decode(), now=_now()), started)

    def too_deep(self, action: str, topic: bytes | None, response: bytes | None = None) -> Decision | None:
        """The denial of a topic or filter of too many levels; ``None`` when it has no more than it may.

        A ``response`` topic is measured too: brokers end sessions for one as well.
        """
        problem = None
        for text in (topic, response):
            if problem is None and text is not None and text.count(b"/") >= self.levels:
                problem = too_deep(action, text.decode(), self.levels)
        return Decision(Effect.DENY, None, problem) if problem else None

    def _note(self, decision: Decision, started: int) -> Decision:
        TALLY.asked += 1
        TALLY.nanoseconds += time.perf_counter_ns() - started
        if decision.valid_until is not None:
            self.until = min(self.until, decision.valid_until.timestamp())
        return decision


def _now() -> datetime:
    return datetime.now(UTC)

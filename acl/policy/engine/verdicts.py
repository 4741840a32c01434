"""Build decisions with their sentences. The evaluator and the index share it, so that whole decisions compare equal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from acl.policy.engine.model import Decision, Effect, NearMiss, Rule

NO_RULE = "no rule allows it"
"""The reason of a denial in which no rule has a part."""
MAX_NEAR_MISSES = 8
"""Near misses reported with one decision, the first ones in rule order."""
MAX_REGIONS = 6
"""Filters of each effect examined one by one of a subscription; past it the whole filter is the exception."""
_EXAMINED_LEVELS = 64
_MANY_FILTERS = 20_000


def regions_examined(levels: int, filters: int) -> int:
    """The limit of filters of each effect that are examined one by one, for a policy of this size and depth.

    Fewer than ``MAX_REGIONS`` past 10 levels or 20,000 filters: examining one costs more the more there is of either,
    and the work of a decision is bounded.
    """
    return max(1, min(MAX_REGIONS, _EXAMINED_LEVELS // (levels * (1 + filters // _MANY_FILTERS))))


def refused(problem: str) -> Decision:
    """A denial because the request is malformed; no rule was evaluated."""
    return Decision(Effect.DENY, None, problem)


def allowed(rule: Rule, near_misses: Sequence[NearMiss] = ()) -> Decision:
    """The decision that ``rule`` allows the publish or the delivery."""
    return Decision(
        Effect.ALLOW,
        rule.id,
        f"allowed by rule {rule.id}",
        tuple(near_misses),
        qos=rule.qos,
        valid_until=rule.expires,
    )


def denied(rule: Rule, near_misses: Sequence[NearMiss] = ()) -> Decision:
    """The decision that ``rule`` denies the publish or the delivery."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}", tuple(near_misses), valid_until=rule.expires)


def undecided(near_misses: Sequence[NearMiss] = ()) -> Decision:
    """The default denial when no rule decides."""
    if not near_misses:
        return Decision(Effect.DENY, None, NO_RULE)
    first = near_misses[0]
    return Decision(Effect.DENY, None, f"{NO_RULE}; rule {first.rule} does not: {first.reason}", tuple(near_misses))


def near_miss(rule: Rule, qos: int, retain: bool) -> NearMiss | None:
    """Why an allow rule that matches a publish does not decide it, or ``None`` when it does."""
    if qos > rule.qos:
        return NearMiss(rule.id, f"qos {qos} above {rule.qos}")
    if retain and not rule.retain:
        return NearMiss(rule.id, "retained messages are not allowed")
    return None


def exceptions(holes: Sequence[str], partial: Sequence[str] = ()) -> str:
    """The exceptions to a granted subscription in words, the first three by name; empty when there are none."""
    told = [f"parts of {hole}" if hole in partial else hole for hole in holes[:3]]
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    return f"except {', '.join(told)}{more}" if holes else ""


def granted(
    rule: Rule, holes: Sequence[str], qos: int, valid_until: datetime | None, partial: Sequence[str] = ()
) -> Decision:
    """The grant of a subscription by ``rule``, except for its ``holes``; those in ``partial`` are denied in part."""
    reason = f"allowed by rule {rule.id}"
    if holes:
        reason += f", {exceptions(holes, partial)}"
    return Decision(
        Effect.ALLOW, rule.id, reason, holes=tuple(holes), qos=qos, valid_until=valid_until, partial=tuple(partial)
    )


def uncovered(part: str) -> Decision:
    """The denial of a filter that allow rules cover only in part: no rule matches ``part``."""
    return Decision(Effect.DENY, None, f"no rule allows {part}")


def not_allowed(rule: Rule) -> Decision:
    """The denial of a filter that allow rules do not cover: ``rule`` denies a part of it."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}")


def nothing_left(rule: Rule, valid_until: datetime | None) -> Decision:
    """The denial of a filter that allow rules cover but earlier deny rules, ``rule`` first, deny completely."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}", valid_until=valid_until)

"""How decisions are worded. The evaluator and the index share it, so that they can be compared as whole values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from acl.policy.engine.model import Decision, Effect, NearMiss, Rule

NO_RULE = "no rule allows it"
"""The reason of a denial in which no rule has a part."""
MAX_NEAR_MISSES = 8
"""Near misses reported with one decision, the first ones in rule order."""
MAX_REGIONS = 6
"""Filters of each effect examined one by one when a subscription is judged; past it the whole filter is the hole."""
_EXAMINED_LEVELS = 64
_MANY_FILTERS = 20_000


def regions_examined(levels: int, filters: int) -> int:
    """How many filters of each effect are examined in a policy of so many filters, of up to so many levels.

    Fewer than ``MAX_REGIONS`` past 10 levels or 20,000 filters: examining one costs more the more there is of either,
    and the work of a decision is bounded.
    """
    return max(1, min(MAX_REGIONS, _EXAMINED_LEVELS // (levels * (1 + filters // _MANY_FILTERS))))


def refused(problem: str) -> Decision:
    """The request itself is malformed; no rule was asked."""
    return Decision(Effect.DENY, None, problem)


def allowed(rule: Rule, near_misses: Sequence[NearMiss] = ()) -> Decision:
    """``rule`` allows the publish or the delivery."""
    return Decision(
        Effect.ALLOW,
        rule.id,
        f"allowed by rule {rule.id}",
        tuple(near_misses),
        qos=rule.qos,
        valid_until=rule.expires,
    )


def denied(rule: Rule, near_misses: Sequence[NearMiss] = ()) -> Decision:
    """``rule`` denies the publish or the delivery."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}", tuple(near_misses), valid_until=rule.expires)


def undecided(near_misses: Sequence[NearMiss] = ()) -> Decision:
    """No rule decides: deny by default."""
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
    """The subscription is granted by ``rule``, but for its ``holes``, and of those in ``partial`` not all."""
    reason = f"allowed by rule {rule.id}"
    if holes:
        reason += f", {exceptions(holes, partial)}"
    return Decision(
        Effect.ALLOW, rule.id, reason, holes=tuple(holes), qos=qos, valid_until=valid_until, partial=tuple(partial)
    )


def uncovered(part: str) -> Decision:
    """The allow rules cover a part of the filter only: no rule speaks of ``part``."""
    return Decision(Effect.DENY, None, f"no rule allows {part}")


def not_allowed(rule: Rule) -> Decision:
    """The allow rules do not cover the filter: ``rule`` denies a part that they leave out."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}")


def nothing_left(rule: Rule, valid_until: datetime | None) -> Decision:
    """The allow rules cover the filter, but earlier deny rules take all of it away, ``rule`` first."""
    return Decision(Effect.DENY, rule.id, f"denied by rule {rule.id}", valid_until=valid_until)

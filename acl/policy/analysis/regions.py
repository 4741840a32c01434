"""Summarize the differences of two policies as regions: identities, action, filter and the deciding rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from acl.policy.analysis.explanation import decision_of
from acl.policy.analysis.topic_search import Difference
from acl.policy.engine import evaluate
from acl.policy.engine.globs import admits
from acl.policy.engine.model import Effect, Identity, Policy, Request, Rule
from acl.policy.engine.templates import Template, compile_pattern
from acl.policy.engine.topics import HASH, PLUS, split
from acl.policy.language.printer import identity_text, who_text

Told = Literal["pub", "sub", "receive"]
MAX_REGIONS_EACH = 8
"""Filters reported per changed rule, action and direction."""
Near = tuple[list[Rule], list[Rule]]
"""The rules of the old and of the new policy that have a say about a filter, each with those of its filters only."""


@dataclass(frozen=True, slots=True)
class Region:
    """A set of requests on which two policies differ: an approximate description and one exact example request.

    ``rule`` is the changed rule through which it was found; ``at`` is the time at which the decision on ``witness``
    differs. A ``receive`` region is of single topics, a ``sub`` region of a filter in which no single topic differs:
    its witness subscribes to that filter.
    """

    who: str
    action: Told
    filter: str
    rule: str
    witness: Request
    at: datetime
    limit: str = ""
    """Which part of the action: ``qos 2``, ``retained``; empty for all of it."""
    old_rule: str | None = None
    """The rule that decides the witness in the old policy, with the new one in ``new_rule``; None for no rule."""
    new_rule: str | None = None

    @property
    def verb(self) -> str:
        """The action as a verb."""
        return {"pub": "publish to", "sub": "subscribe to", "receive": "receive"}[self.action]

    def __str__(self) -> str:
        return f"{self.who}: {self.verb} {self.filter}" + (f" ({self.limit})" if self.limit else "")


class Tally:
    """Collects the differences of one direction within one filter of one rule, over all identities."""

    def __init__(self, rule: Rule, action: Told, topic: str) -> None:
        self._rule, self._action, self._topic = rule, action, topic
        self._asked: set[Identity] = set()
        self._differing: set[Identity] = set()
        self._whole = True
        self._found: dict[tuple[str, str], tuple[Request, datetime]] = {}
        self._near: Near = ([], [])

    def add(
        self, identity: Identity, at: datetime, differences: Sequence[Difference], near: Near, *, whole: bool
    ) -> None:
        """Add the differences of one identity at one time; ``whole``: every topic of the filter differed."""
        self._asked.add(identity)
        self._near = near
        if differences:
            self._differing.add(identity)
        self._whole = self._whole and (whole or not differences)
        for difference in differences:
            shown = self._named(difference.filter, identity)
            action: Literal["pub", "sub"] = "pub" if self._action == "pub" else "sub"
            request = Request(identity, action, difference.topic, difference.qos, difference.retain)
            self._found.setdefault((shown, difference.limit), (request, at))

    def regions(self) -> Iterable[Region]:
        """The collected differences, as few regions as possible."""
        if not self._found:
            return
        for limit in dict.fromkeys(limit for _, limit in self._found):
            found = {shown: witness for (shown, each), witness in self._found.items() if each == limit}
            merged = {self._topic: next(iter(found.values()))} if self._whole else _merged(found)
            if self._action == "sub":
                largest = evaluate.largest([split(shown) for shown in merged])
                merged = {shown: witness for shown, witness in merged.items() if shown in largest}
            for shown, (request, at) in list(merged.items())[:MAX_REGIONS_EACH]:
                old, new = (self._decider(rules, request, at) for rules in self._near)
                names = (old.id if old else None, new.id if new else None)
                who = self._who([rule for rule in (old, new) if rule], request.identity)
                yield Region(who, self._action, shown, self._rule.id, request, at, limit, *names)

    def _decider(self, rules: Sequence[Rule], request: Request, at: datetime) -> Rule | None:
        """The name of the rule of ``rules`` that decides ``request``."""
        name = decision_of(Policy(tuple(rules)), request, now=at).rule
        return next((rule for rule in rules if rule.id == name), None)

    def _who(self, deciders: Sequence[Rule], example: Identity) -> str:
        """The ``who`` of the deciding rules as text, with an example identity where not all of them differ."""
        everybody = dict.fromkeys(rule.who for rule in (self._rule, *deciders) if not rule.who.is_everyone)
        spoken_of = list(everybody) if any(rule.effect is Effect.ALLOW for rule in deciders) else [self._rule.who]
        text = " and ".join(who_text(who) for who in spoken_of) or who_text(self._rule.who)
        meant = {each for each in self._asked if all(admits(who, each) for who in spoken_of)}
        return text if meant <= self._differing else f"{text}, such as {identity_text(example)}"

    def _named(self, shown: str, identity: Identity) -> str:
        """``shown`` with one identity's values replaced by the rule's variables, or by the username variable."""
        pattern = compile_pattern(self._topic)
        levels = shown.split("/")
        for at, level in enumerate(levels):
            wanted = pattern[at] if at < len(pattern) else HASH
            if isinstance(wanted, Template):
                levels[at] = str(wanted) if level == wanted.resolve(identity) else level
            elif wanted in (PLUS, HASH) and level and level == identity.username:
                levels[at] = "{username}"
        return "/".join(levels)


def _merged(found: dict[str, tuple[Request, datetime]]) -> dict[str, tuple[Request, datetime]]:
    """The filters of ``found``, with ``a`` and ``a/+/#`` merged into ``a/#``."""
    merged = dict(found)
    while joint := next((shown for shown in merged if shown.endswith("/+/#") and shown[:-4] in merged), None):
        witness = merged.pop(joint[:-4])
        del merged[joint]
        merged[joint[:-4] + "/#"] = witness
    return merged

"""The policy linter: warns about rules that have no effect and rules that grant more than intended.

A rule is compared with the rules before it, with variables treated as opaque texts, so warnings hold for
every identity. Nothing here keeps a policy from being deployed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from acl.policy.analysis import mistakes
from acl.policy.engine.globs import who_covers
from acl.policy.engine.index import CompiledPolicy
from acl.policy.engine.model import EVERYONE, Effect, Identity, Policy, Rule, as_utc
from acl.policy.engine.templates import SHORT_FORMS, Template, compile_pattern, variables
from acl.policy.engine.topics import HASH, MAX_LEVELS, PLUS, intersect, join, split
from acl.policy.language.document import Parsed
from acl.policy.language.printer import who_text
from acl.policy.language.reader import Finding, Fix, Span, located

QUICK_FILTERS = 2_000
"""Topic filters up to which warnings and suggestions take no longer than somebody who waits for an answer may wait."""
_MAX_CANDIDATES = 64
_MAX_TAKEN = 3
_NOBODY = Identity("", "")
Part = tuple[str, Literal["pub", "sub"]]


def is_quick(policy: Policy) -> bool:
    """Whether ``policy`` is small enough to lint interactively: the time grows with the number of filters."""
    return sum(len(rule.topics) for rule in policy.rules) <= QUICK_FILTERS


def lint(
    checked: Parsed | Policy, *, now: datetime, known_claims: Iterable[str] = (), levels: int = MAX_LEVELS
) -> tuple[Finding, ...]:
    """The warnings about a policy, in rule order, with places and fixes when it comes with its source.

    ``known_claims`` are claims that identities carry, beside the usual four and those that the policy's tests use.
    ``levels`` is the edge's limit on topics: a deeper topic of a rule matches nothing.
    """
    parsed = checked if isinstance(checked, Parsed) else Parsed(checked, ())
    if parsed.policy is None:
        return ()
    return tuple(_Linter(parsed, parsed.policy, as_utc(now), known_claims, levels).findings())


class _Linter:
    def __init__(self, parsed: Parsed, policy: Policy, now: datetime, known_claims: Iterable[str], levels: int) -> None:
        self._parsed, self._policy, self._now, self._levels = parsed, policy, now, levels
        tested = (name for test in policy.tests for name, _ in test.claims)
        self._claims = {*SHORT_FORMS, *known_claims, *tested}
        self._earlier = {effect: _Earlier(policy, effect, now) for effect in Effect}

    def findings(self) -> Iterator[Finding]:
        for at, rule in enumerate(self._policy.rules):
            if rule.expired(self._now):
                message = f"expired at {rule.expires:%Y-%m-%dT%H:%M:%SZ}; it no longer applies; remove it"
                yield self._finding(at, message, "expired", removable=True)
                continue
            yield from self._mistakes(at, rule)
            yield from self._claims_of(at, rule)
            yield from self._breadth(at, rule)
            yield from self._reach(at, rule)

    def _mistakes(self, at: int, rule: Rule) -> Iterator[Finding]:
        """Warn about globs and topics that can never match, and topics that other topics of the rule include."""
        for message in mistakes.in_names(rule):
            yield self._finding(at, message, "impossible-name")
        for topic in rule.topics:
            for message in mistakes.in_topic(topic, self._levels):
                yield self._finding(at, message, "odd-topic")
        for topic, other in mistakes.redundant({topic: _opaque(topic, False) for topic in rule.topics}):
            message = f"{topic} says nothing beside {other} of the same rule"
            yield self._finding(at, message, "redundant-topic", fix=self._without_topic(at, rule, topic))

    def _claims_of(self, at: int, rule: Rule) -> Iterator[Finding]:
        named = [name for name, _ in rule.who.claims]
        named += [name.removeprefix("claims.") for name in variables(rule) if name.startswith("claims.")]
        for name in dict.fromkeys(named):
            if name not in self._claims:
                message = f"claim {name} is not one that identities are known to carry, and no test gives it a value"
                yield self._finding(at, message, "unknown-claim")

    def _breadth(self, at: int, rule: Rule) -> Iterator[Finding]:
        if rule.effect is Effect.DENY:
            return
        everything = {"#", "+/#"} & set(rule.topics)
        if rule.who.is_everyone and everything and rule.action == "pub+sub" and not self._denied_before(at):
            until = "until it expires" if rule.expires else "and never expires"
            yield self._finding(at, f"permits everybody everything, {until}", "permit-all")
            return
        for topic in rule.topics:
            pattern = compile_pattern(topic)
            open_ended = pattern[-1] == HASH and not any(isinstance(level, Template) for level in pattern)
            if rule.acts_on("pub") and (pattern[0] in (PLUS, HASH) or (open_ended and rule.who.is_everyone)):
                message = f"{who_text(rule.who)} may publish to everything under {topic}"
                yield self._finding(at, message.replace("* may", "everybody may"), "wildcard-publish")

    def _denied_before(self, at: int) -> bool:
        """Whether an earlier rule denies something to everyone, so that a wide allow rule after it is intended."""
        return any(
            rule.effect is Effect.DENY and rule.who.is_everyone and not rule.expired(self._now)
            for rule in self._policy.rules[:at]
        )

    def _reach(self, at: int, rule: Rule) -> Iterator[Finding]:
        """Warn when earlier rules always decide first, for all of the rule or for a part of it."""
        earlier = self._earlier[rule.effect]
        parts = _parts(rule)
        covers = {part: [] if self._grants_wider(at, rule, part) else earlier.covering(at, part) for part in parts}
        deciders = list(dict.fromkeys(number for found in covers.values() for number in found))
        if all(covers.values()):
            if len(deciders) == 1:
                yield self._unreached(at, rule, self._policy.rules[deciders[0]])
            else:
                names = ", ".join(self._policy.rules[number].id for number in deciders)
                message = f"never reached: rules {names} together decide first"
                yield self._finding(at, message, "unreachable", removable=self._same_effect(rule, deciders))
            return
        useless: dict[tuple[str, int], list[str]] = {}
        for (topic, action), found in covers.items():
            if found:
                useless.setdefault((topic, found[0]), []).append(action)
        for (topic, first), actions in useless.items():
            name = self._policy.rules[first].id
            message = f"useless in part: {'+'.join(actions)} {topic} is decided by rule {name} first"
            fix = None
            if all(
                self._same_effect(rule, covers[part] or [at]) and covers[part] for part in parts if part[0] == topic
            ):
                fix = self._without_topic(at, rule, topic)
            yield self._finding(at, message, "partly-reached", fix=fix or self._one_action(at, rule, covers))
        if rule.effect is Effect.DENY:
            for topic, action in (part for part, found in covers.items() if not found):
                for name, region in earlier.taking(at, (topic, action)):
                    message = f"useless in part: rule {name} allows {action} {region} before this can deny it"
                    yield self._finding(at, message, "partly-reached")

    def _grants_wider(self, at: int, rule: Rule, part: Part) -> bool:
        """Warn when an allow rule grants subscriptions of which earlier rules deny the delivery."""
        return rule.effect is Effect.ALLOW and part[1] == "sub" and self._earlier[rule.effect].granting(at, part)

    def _unreached(self, at: int, rule: Rule, decider: Rule) -> Finding:
        same_region = (rule.who, set(rule.topics), rule.action) == (decider.who, set(decider.topics), decider.action)
        if same_region and rule.effect is decider.effect:
            message = f"duplicate: it says what rule {decider.id} says already"
            return self._finding(at, message, "duplicate", removable=True)
        if same_region:
            message = f"contradiction: rule {decider.id} says the opposite of the same, and comes first"
            return self._finding(at, message, "contradiction")
        message = f"never reached: rule {decider.id} decides first"
        return self._finding(at, message, "shadowed", removable=rule.effect is decider.effect)

    def _same_effect(self, rule: Rule, deciders: Sequence[int]) -> bool:
        return all(self._policy.rules[number].effect is rule.effect for number in deciders)

    def _without_topic(self, at: int, rule: Rule, topic: str) -> Fix | None:
        """The fix that removes one of several topics."""
        place = self._parsed.spans.get(f"rules[{at}].topic[{rule.topics.index(topic)}]")
        written = sum(f"rules[{at}].topic[{number}]" in self._parsed.spans for number in range(len(rule.topics) + 1))
        if place is None or written != len(rule.topics):
            return None
        fix = self._removal(place)
        return replace(fix, title=f"Remove {topic}") if fix else None

    def _one_action(self, at: int, rule: Rule, covers: Mapping[Part, Sequence[int]]) -> Fix | None:
        """The fix that narrows the rule to the one action for which it has an effect."""
        for action, other in (("pub", "sub"), ("sub", "pub")):
            place = self._parsed.spans.get(f"rules[{at}].action")
            mine = [found for part, found in covers.items() if part[1] == action]
            if place and rule.action == "pub+sub" and all(found and self._same_effect(rule, found) for found in mine):
                return None if self._parsed.converted else Fix(f"Write {other}", place.start, place.end, f'"{other}"')
        return None

    def _finding(self, at: int, message: str, code: str, *, removable: bool = False, fix: Fix | None = None) -> Finding:
        span = self._parsed.spans.get(f"rules[{at}]", Span())
        fix = self._removal(span) if removable else fix
        return located("warning", f"rules[{at}]", message, code=code, span=span, fix=fix)

    def _removal(self, span: Span) -> Fix | None:
        """The fix that removes a rule; ``None`` for a converted document."""
        if not self._parsed.source or self._parsed.converted:
            return None
        return Fix("Remove the rule", *_entry(self._parsed.source, span), "")


def _entry(source: str, span: Span) -> tuple[int, int]:
    """The range of ``source`` to delete to remove the list entry at ``span``: its lines, or the entry and one comma."""
    line = source.rfind("\n", 0, span.start) + 1
    if source[line : span.start].strip() == "-":
        ends_line = source[span.end - 1] == "\n"  # a block scalar ends with its line
        end = span.end if ends_line else source.find("\n", span.end) + 1
        return line, end or len(source)
    after = re.compile(r"\s*,[ \t]*\n?").match(source, span.end)
    if after:
        own_lines = not source[line : span.start].strip() and after.group().endswith("\n")
        return (line if own_lines else span.start), after.end()
    before = len(source[: span.start].rstrip())
    return (before - 1 if source[before - 1] == "," else span.start), span.end


def _parts(rule: Rule) -> list[Part]:
    actions: list[Literal["pub", "sub"]] = [action for action in ("pub", "sub") if rule.acts_on(action)]
    return [(topic, action) for topic in rule.topics for action in actions]


@dataclass(frozen=True, slots=True)
class _Entry:
    rule: Rule
    number: int
    text: str


class _Earlier:
    """An index of a policy's filters, with variables as opaque texts, that finds earlier rules that overlap a rule.

    A deny rule's variable that does not resolve takes any level, an allow rule's none; so an allow rule covers a deny
    rule only where it does not hang on a variable.
    """

    def __init__(self, policy: Policy, asking: Effect, now: datetime) -> None:
        self._rules = policy.rules
        self._entries: list[_Entry] = []
        self._start: list[int] = []
        for number, rule in enumerate(policy.rules):
            self._start.append(len(self._entries))
            if not rule.expired(now):
                apart = asking is Effect.DENY and rule.effect is Effect.ALLOW
                self._entries += [_Entry(rule, number, _opaque(topic, apart)) for topic in rule.topics]
        stand_ins = tuple(
            Rule(str(at), (entry.text,), entry.rule.action, Effect.ALLOW, EVERYONE)
            for at, entry in enumerate(self._entries)
        )
        self._index = CompiledPolicy(Policy(stand_ins))

    def covering(self, number: int, part: Part) -> list[int]:
        """The numbers of the rules before ``number`` that always decide ``part`` first; one when one is enough."""
        masks = self._index.covering(_NOBODY, _opaque(part[0], False), part[1], before=self._start[number])
        if not all(masks):
            return []
        together = masks[0]
        for mask in masks[1:]:
            together &= mask
        alone = self._first(together, number, part)
        if alone is not None:
            return [alone]
        found = [self._first(mask, number, part) for mask in masks]
        return [each for each in dict.fromkeys(found) if each is not None] if None not in found else []

    def granting(self, number: int, part: Part) -> bool:
        """Whether a deny rule before ``number`` decides on ``part``, and an earlier allow rule grants some of it."""
        mask = self._index.meeting(_NOBODY, _opaque(part[0], False), part[1], before=self._start[number])
        effects = [self._entries[rank].rule.effect for rank in self._index.ranks(mask, _MAX_CANDIDATES)]
        return Effect.DENY in effects and Effect.ALLOW in effects[: effects.index(Effect.DENY)]

    def _first(self, mask: int, number: int, part: Part) -> int | None:
        for rank in self._index.ranks(mask, _MAX_CANDIDATES):
            entry = self._entries[rank]
            if _decides_before(entry.rule, self._rules[number], part[1]):
                return entry.number
        return None

    def taking(self, number: int, part: Part) -> Iterator[tuple[str, str]]:
        """The allow rules before the deny rule ``number`` that decide a part of it first, and which part.

        An allow filter that lies within the deny filter is an intended exception, so it is not one of them.
        """
        topic = _opaque(part[0], False)
        mask = self._index.meeting(_NOBODY, topic, part[1], before=self._start[number])
        count = 0
        for rank in self._index.ranks(mask, _MAX_CANDIDATES):
            entry = self._entries[rank]
            if entry.rule.effect is Effect.ALLOW and _decides_before(entry.rule, self._rules[number], part[1]):
                region = intersect(split(topic), split(entry.text))
                if region is not None and join(region) != entry.text and count < _MAX_TAKEN:
                    count += 1
                    yield entry.rule.id, _readable(join(region))


def _decides_before(first: Rule, later: Rule, action: Literal["pub", "sub"]) -> bool:
    """Whether ``first`` decides every request that ``later`` would (who, time, QoS, retain flag), topics aside."""
    if not who_covers(first.who, later.who):
        return False
    if first.expires is not None and (later.expires is None or first.expires < later.expires):
        return False
    if first.effect is Effect.DENY:
        return True
    if later.effect is Effect.DENY:
        return action == "sub" or (first.qos == 2 and first.retain)
    if action == "sub":
        return first.qos <= later.qos  # the lowest QoS of all allow rules counts, so a lower one later has its use
    return first.qos >= later.qos and (first.retain or not later.retain)


def _opaque(topic: str, apart: bool) -> str:
    """``topic`` with each level that has variables replaced by a text that equals only the same level."""
    levels = []
    for at, level in enumerate(compile_pattern(topic)):
        if isinstance(level, Template):
            text = str(level).replace("{", "\x01").replace("}", "\x02") + ("\x03" if apart else "")
            levels.append(text if at else "$\x04" + text)  # its value may begin with $: no leading wildcard covers it
        else:
            levels.append(level)
    return "/".join(levels)


def _readable(text: str) -> str:
    return text.replace("$\x04", "").replace("\x01", "{").replace("\x02", "}").replace("\x03", "")

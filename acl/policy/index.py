"""The compiled policy: what the edge, the simulator and replay run. It answers exactly as ``acl.policy.evaluate``.

Every filter of every rule is one bit, in rule order, so "the first rule that decides" is the lowest bit of a mask.
What depends on the identity (who, variables) is worked out once per identity, in a ``View``; a decision is then a few
ANDs of masks (``acl.policy.levels``). The work of one decision is bounded by topic levels x filters / 64 words, and
for a subscription with deny rules in it by ``2 * MAX_REGIONS`` times that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from acl.policy import verdicts
from acl.policy.audience import Audience
from acl.policy.evaluate import largest
from acl.policy.expiries import Expiries
from acl.policy.levels import Columns, Hits, lowest, mask
from acl.policy.model import Decision, Effect, Identity, NearMiss, Policy, Rule
from acl.policy.templates import Template, compile_pattern, resolve
from acl.policy.topics import (
    HASH,
    PLUS,
    Levels,
    filter_problem,
    intersect,
    is_hidden,
    join,
    split,
    topic_problem,
    unshared,
)
from acl.policy.verdicts import MAX_NEAR_MISSES, MAX_REGIONS

_VIEW_BYTES = 32 * 1024 * 1024
"""Memory for the views of one policy, roughly. They are dropped all at once when it is used up."""

Table = tuple[Hits, int, dict[str, int] | None, int]
"""One level for one identity: literals, their default, the values of its variables, unresolvable deny variables."""


@dataclass(frozen=True, slots=True)
class View:
    """A policy as one identity meets it: the filters that speak of it, and what their variables are."""

    identity: Identity
    pub: int
    sub: int
    tables: Sequence[Table]
    hidden: int
    """Filters whose first level begins with ``$``."""


class CompiledPolicy:
    """A policy ready to be asked. Immutable, but for what it remembers of the identities that asked."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        entries = [(rule, topic) for rule in policy.rules for topic in rule.topics]
        self._rules = [rule for rule, _ in entries]
        self._patterns = [compile_pattern(topic) for _, topic in entries]
        self._columns = Columns(self._patterns)
        self._audience = Audience([rule.who for rule in self._rules])
        self._expiries = Expiries([rule.expires for rule in self._rules])
        self._pub = self._where(lambda rule: rule.acts_on("pub"))
        self._sub = self._where(lambda rule: rule.acts_on("sub"))
        self._allow = self._where(lambda rule: rule.effect is Effect.ALLOW)
        self._no_retain = self._allow & self._where(lambda rule: not rule.retain)
        self._below_qos = [
            self._allow & mask(bit for bit, rule in enumerate(self._rules) if rule.qos < qos) for qos in range(4)
        ]
        self._last_bit = {rule.id: bit for bit, rule in enumerate(self._rules)}
        self._tables: list[Table] = [(column.hits, column.default, None, 0) for column in self._columns.columns]
        self._has_templates = any(column.templates for column in self._columns.columns)
        places = sum(len(column.templates) for column in self._columns.columns)
        self._max_views = _VIEW_BYTES // (512 + len(entries) // 4 + 128 * places) + 1
        self._views: dict[tuple[object, ...], View] = {}
        self._decided: list[Decision | None] = [None] * len(entries)
        self._undecided = verdicts.undecided()

    def publish(self, identity: Identity, topic: str, *, qos: int, retain: bool, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.publish``."""
        problem = topic_problem(topic)
        if problem:
            return verdicts.refused(problem)
        view = self._views.get(identity.key) or self._view(identity)
        matching = self._matching(view, topic.split("/"), view.pub)
        if self._expiries:
            matching &= self._expiries.live(now)
        if qos > 0 or retain:
            blocked = matching & self._below_qos[min(max(qos, 0), 3)]
            if retain:
                blocked |= matching & self._no_retain
            if blocked:
                return self._with_near_misses(matching & ~blocked, blocked, qos, retain)
        if not matching:
            return self._undecided
        first = (matching & -matching).bit_length() - 1
        return self._decided[first] or self._decision(first)

    def receive(self, identity: Identity, topic: str, *, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.receive``."""
        topic, problem = unshared(topic)
        problem = problem or topic_problem(topic)
        if problem:
            return verdicts.refused(problem)
        view = self._views.get(identity.key) or self._view(identity)
        matching = self._matching(view, topic.split("/"), view.sub)
        if self._expiries:
            matching &= self._expiries.live(now)
        if not matching:
            return self._undecided
        first = (matching & -matching).bit_length() - 1
        return self._decided[first] or self._decision(first)

    def subscribe(self, identity: Identity, topic_filter: str, *, now: datetime) -> Decision:
        """See ``acl.policy.evaluate.subscribe``."""
        topic_filter, problem = unshared(topic_filter)
        problem = problem or filter_problem(topic_filter)
        if problem:
            return verdicts.refused(problem)
        view = self._views.get(identity.key) or self._view(identity)
        live = view.sub & self._expiries.live(now) if self._expiries else view.sub
        asked = split(topic_filter)
        met, covering = self._meeting(view, asked, live)
        return self._gap(asked, covering) or self._grant(view, asked, met, covering)

    def _where(self, wanted: Callable[[Rule], bool]) -> int:
        return mask(bit for bit, rule in enumerate(self._rules) if wanted(rule))

    def _view(self, identity: Identity) -> View:
        """Work out what the policy is for ``identity``, and remember it."""
        admitted = self._audience.admitting(identity)
        tables, hidden = self._tables, self._columns.hidden
        if self._has_templates:
            tables, hidden, unresolved = self._resolved(identity)
            admitted &= ~unresolved
        view = View(identity, admitted & self._pub, admitted & self._sub, tables, hidden)
        if len(self._views) >= self._max_views:
            self._views = {}
        self._views[identity.key] = view
        return view

    def _resolved(self, identity: Identity) -> tuple[list[Table], int, int]:
        """The tables for ``identity``, its filters that begin with ``$``, and its allow filters that match nothing."""
        values: dict[Template, str | None] = {}
        tables: list[Table] = []
        hidden, nothing = self._columns.hidden, 0
        for level, column in enumerate(self._columns.columns):
            overlay: dict[str, int] = {}
            anything = 0
            for template, bits in column.templates:
                if template not in values:
                    values[template] = template.resolve(identity)
                value = values[template]
                if value is None:
                    nothing |= bits & self._allow
                    anything |= bits & ~self._allow
                    continue
                overlay[value] = overlay.get(value, 0) | bits
                if level == 0 and is_hidden(value):
                    hidden |= bits
            overlay = {value: bits | anything for value, bits in overlay.items()} if anything else overlay
            tables.append((column.hits, column.default, overlay if column.templates else None, anything))
        return tables, hidden, nothing

    def _matching(self, view: View, levels: Sequence[str], alive: int) -> int:
        """The filters of ``alive`` that match the topic ``levels``."""
        columns = self._columns
        bucket: tuple[int, ...] = ()
        for level, (hits, default, overlay, anything) in zip(levels, view.tables, strict=False):
            taking = hits.get(level, default)
            if isinstance(taking, tuple):
                bucket += taking
                taking = default
            if overlay is not None:
                taking |= overlay.get(level, anything)
            alive &= taking
        if levels[0][:1] == "$":
            alive &= ~columns.leading_wild
        length = min(len(levels), columns.depth + 1)
        if bucket:
            found = columns.confirmed(bucket, levels, alive & columns.ends[length])
            return (alive & columns.final[length]) | found
        return alive & columns.final[length]

    def _meeting(self, view: View, asked: Levels, alive: int) -> tuple[int, list[int]]:
        """The filters of ``alive`` that share a topic with ``asked``, and those that cover it, length by length.

        The second value has one mask per length that a topic of ``asked`` can have, up to one level below the deepest
        filter (see ``acl.policy.topics.representatives``); the last one stands for all longer topics.
        """
        columns = self._columns
        prefix = asked[:-1] if asked[-1] == HASH else asked
        met = covering = alive
        unsure = 0
        bucket: tuple[int, ...] = ()
        for level, column, (hits, default, overlay, anything) in zip(
            prefix, columns.columns, view.tables, strict=False
        ):
            if level == PLUS:
                met &= column.deep
                covering &= column.wild | anything
                continue
            taking = hits.get(level, default)
            if isinstance(taking, tuple):
                bucket += taking
                taking = default
            if overlay is not None:
                taking |= overlay.get(level, anything)
            met &= taking
            covering &= taking
            unsure |= column.unsure
        if asked[0] in (PLUS, HASH):
            met &= ~view.hidden
        elif is_hidden(asked[0]):
            met &= ~columns.leading_wild
            covering &= ~columns.leading_wild
        length = min(len(prefix), columns.depth + 1)
        met &= columns.reaching[length] if asked[-1] == HASH else columns.ends[length]
        if unsure:
            sure = ~unsure | columns.confirmed(bucket, prefix, met)
            met &= sure
            covering &= sure
        return met, self._by_length(view, asked, length, covering)

    def _by_length(self, view: View, asked: Levels, length: int, covering: int) -> list[int]:
        columns = self._columns
        if asked[-1] != HASH:
            return [covering & columns.ends[length]]
        if length == 0:
            covering, length = self._below(view, 0, covering), 1
        masks = [covering & columns.ends[length]]
        while length <= columns.depth:
            covering, length = self._below(view, length, covering), length + 1
            masks.append(covering & columns.ends[length])
        return masks

    def _below(self, view: View, level: int, covering: int) -> int:
        """The filters of ``covering`` that take any text at ``level``."""
        if level >= self._columns.depth:
            return covering
        return covering & (self._columns.columns[level].wild | view.tables[level][3])

    def _gap(self, asked: Levels, covering: Sequence[int]) -> Decision | None:
        """See ``acl.policy.evaluate._gap``: each mask of ``covering`` holds the deciders of one length."""
        gap: Decision | None = None
        shortest = max(len(asked) - 1, 1) if asked[-1] == HASH else len(asked)
        for extra, deciders in enumerate(covering):
            if deciders & self._allow:
                continue
            if not deciders:
                return verdicts.uncovered(None, _part(asked, shortest + extra))
            gap = gap or verdicts.uncovered(self._rules[lowest(deciders)], "")
        return gap

    def _grant(self, view: View, asked: Levels, met: int, covering: Sequence[int]) -> Decision:
        """See ``acl.policy.evaluate._grant``."""
        allow = self._allow
        last = max(lowest(deciders & allow) for deciders in covering)
        if all(deciders & ~allow for deciders in covering):
            last = min(last, max(lowest(deciders & ~allow) for deciders in covering))
        deciding = met & ((2 << last) - 1)
        allows, denies = deciding & allow, deciding & ~allow
        valid_until = self._expiries.soonest(met) if self._expiries else None
        if not allows:
            return verdicts.nothing_left(self._rules[lowest(deciding)], valid_until)
        qos = next((qos for qos in (0, 1) if met & self._below_qos[qos + 1]), 2)
        if not denies:
            rule = self._rules[last if all(deciders >> last & 1 for deciders in covering) else lowest(allows)]
            return verdicts.granted(rule, (), qos, valid_until)
        first = next((bit for bit, _ in self._left(view, asked, allows, denies)), -1)
        if denies.bit_count() > MAX_REGIONS or (first < 0 and allows.bit_count() > MAX_REGIONS):
            return verdicts.granted(self._rules[allows.bit_length() - 1], (join(asked),), qos, valid_until)
        if first < 0:
            return verdicts.nothing_left(self._rules[lowest(deciding)], valid_until)
        holes = [region for _, region in self._left(view, asked, denies, allows)]
        alone = allow >> last & 1 and all(deciders >> last & 1 for deciders in covering)
        return verdicts.granted(self._rules[last if alone else first], largest(holes), qos, valid_until)

    def _left(self, view: View, asked: Levels, some: int, others: int) -> Iterator[tuple[int, Levels]]:
        """See ``acl.policy.evaluate._left``: the first ``MAX_REGIONS`` of ``some``, against ``others`` before them."""
        for _ in range(MAX_REGIONS):
            if not some:
                return
            bit = lowest(some)
            some &= some - 1
            levels = resolve(self._patterns[bit], view.identity, self._rules[bit].effect)
            region = intersect(asked, levels) if levels else None
            earlier = others & ((1 << bit) - 1)
            if region and not (earlier and all(self._meeting(view, region, earlier)[1])):
                yield bit, region

    def _decision(self, bit: int) -> Decision:
        """The decision that the filter ``bit`` makes when it is the first; the same for everybody, so it is kept."""
        rule = self._rules[bit]
        decision = verdicts.allowed(rule) if rule.effect is Effect.ALLOW else verdicts.denied(rule)
        self._decided[bit] = decision
        return decision

    def _with_near_misses(self, deciding: int, blocked: int, qos: int, retain: bool) -> Decision:
        """The decision of the first of ``deciding``, and the allow rules before it that forbid the QoS or retain."""
        if deciding:
            blocked &= (deciding & -deciding) - 1
            if not blocked:
                return self._decision(lowest(deciding))
        near: list[NearMiss] = []
        while blocked and len(near) < MAX_NEAR_MISSES:
            rule = self._rules[lowest(blocked)]
            miss = verdicts.near_miss(rule, qos, retain)
            if miss:
                near.append(miss)
            blocked &= ~((2 << self._last_bit[rule.id]) - 1)
        if not deciding:
            return verdicts.undecided(near)
        rule = self._rules[lowest(deciding)]
        return verdicts.allowed(rule, near) if rule.effect is Effect.ALLOW else verdicts.denied(rule, near)


def _part(asked: Levels, length: int) -> str:
    """The topics of ``asked`` that have ``length`` levels, as a filter."""
    prefix = asked[:-1] if asked[-1] == HASH else asked
    return join(prefix + (PLUS,) * (length - len(prefix)))


def compile_policy(policy: Policy) -> CompiledPolicy:
    """The index of ``policy``: tens of milliseconds and some ten megabytes for 10,000 rules."""
    return CompiledPolicy(policy)

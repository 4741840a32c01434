"""The compiled policy that the edge and the simulator run. It decides exactly as ``acl.policy.engine.evaluate``.

Every filter of every rule is one bit, and "the first rule that decides" is the lowest of the bits that are left.
What depends on the identity (who, variables) is worked out once per identity, in a ``View``; a decision is then a few
ANDs of masks (``acl.policy.engine.levels``). The work of one decision is bounded by topic levels x filters / 64 words,
and for a subscription with deny rules in it by twice ``regions_examined`` times that.
"""
# Over 400 lines: tables and the decisions over them are one algorithm; a call between modules costs each decision.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate
from operator import and_, or_
from typing import Literal

from acl.policy.engine import verdicts
from acl.policy.engine.audience import Audience
from acl.policy.engine.evaluate import largest
from acl.policy.engine.expiries import Expiries
from acl.policy.engine.levels import Columns
from acl.policy.engine.model import Decision, Effect, Identity, NearMiss, Policy, Rule
from acl.policy.engine.templates import Template, compile_pattern, resolve
from acl.policy.engine.topics import (
    HASH,
    LONG,
    MAX_LEVELS,
    PLUS,
    Levels,
    filter_problem,
    intersect,
    is_hidden,
    join,
    plain_text,
    plain_topic,
    shortened,
    shortest,
    split,
    topic_problem,
    unshared,
)
from acl.policy.engine.verdicts import MAX_NEAR_MISSES, regions_examined

_VIEW_BYTES = 32 * 1024 * 1024
"""Memory for the views of one policy, roughly. They are dropped all at once when it is used up."""

_Get = Callable[[str, int], int]
Table = tuple[_Get, int, _Get | None, int, dict[str, tuple[int, ...]] | None]
"""One level for one identity: literals and their default, values of variables and their default, buckets."""


@dataclass(frozen=True, slots=True)
class View:
    """A policy resolved for one identity: the filters that apply to it, with their variables resolved."""

    identity: Identity
    pub: int
    sub: int
    tables: Sequence[Table]
    seen: int
    """Filters whose first level does not begin with ``$``: those that a leading wildcard meets."""
    longest: int
    """Characters of the longest level that a filter names."""


class CompiledPolicy:
    """A policy compiled for fast decisions. Immutable, apart from its cache of views by identity."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        entries = [(rule, topic) for rule in policy.rules for topic in rule.topics]
        self._rules = [rule for rule, _ in entries]
        self._patterns = [compile_pattern(topic) for _, topic in entries]
        self._columns = Columns(self._patterns)
        self._audience = Audience([rule.who for rule in self._rules], self._columns.mask)
        self._expiries = Expiries([rule.expires for rule in self._rules], self._columns.mask)
        self._expiring = bool(self._expiries)
        self._pub = self._where(lambda rule: rule.acts_on("pub"))
        self._sub = self._where(lambda rule: rule.acts_on("sub"))
        self._allow = self._where(lambda rule: rule.effect is Effect.ALLOW)
        self._all = (1 << len(entries)) - 1
        self._sure = (1 << self._columns.sure_size) - 1
        self._deny = self._all & ~self._allow
        self._no_retain = self._allow & self._where(lambda rule: not rule.retain)
        self._limited = any(rule.qos < 2 or not rule.retain for rule in self._rules)
        self._below_qos = [self._allow & self._where(partial(_below, qos)) for qos in range(4)]
        self._levels = max(map(len, self._patterns), default=1)
        self._after = {rule.id: rank + 1 for rank, rule in enumerate(self._rules)}
        self._tables: list[Table] = [
            (column.hits.get, column.default, None, 0, column.topic_buckets or None) for column in self._columns.columns
        ]
        self._has_templates = any(column.templates for column in self._columns.columns)
        places = sum(len(column.templates) for column in self._columns.columns)
        self._max_views = _VIEW_BYTES // (512 + len(entries) // 4 + 128 * places) + 1
        self._views: dict[tuple[object, ...], View] = {}
        self._none = len(entries)
        self._decided: list[Decision | None] = [*([None] * len(entries)), verdicts.undecided()]
        self._granted: dict[tuple[int, int], Decision] = {}
        self._undecided = verdicts.undecided()

    def publish(
        self, identity: Identity, topic: str, *, qos: int, retain: bool, now: datetime, checked: bool = False
    ) -> Decision:
        """See ``acl.policy.engine.evaluate.publish``.

        ``checked``: ``topic`` is known to be a topic name, and is not looked through for it again, only for its depth.
        """
        view = self._views.get(identity.key) or self._view(identity)
        text, levels = (topic, topic.split("/")) if len(topic) < LONG else shortened(topic, view.longest)
        if len(levels) > MAX_LEVELS or not ((checked and topic) or plain_topic(topic)):
            problem = topic_problem(topic)
            if problem:
                return verdicts.refused(problem)
        live = view.pub & self._expiries.live(now) if self._expiring else view.pub
        if qos > 2 or (self._limited and (qos > 0 or retain)):
            matching = self._matching(view, text, levels, live)
            blocked = matching & self._below_qos[min(max(qos, 0), 3)]
            if retain:
                blocked |= matching & self._no_retain
            if blocked:
                return self._with_near_misses(matching ^ blocked, blocked, qos, retain)
        first = self._first(view, text, levels, live)
        return self._decided[first] or self._decision(first)

    def receive(self, identity: Identity, topic: str, *, now: datetime, checked: bool = False) -> Decision:
        """See ``acl.policy.engine.evaluate.receive``; ``checked`` as for :meth:`publish`."""
        if topic[:7] == "$share/" or not ((checked and topic) or plain_topic(topic)):
            topic, problem = unshared(topic)
            problem = problem or topic_problem(topic)
            if problem:
                return verdicts.refused(problem)
        view = self._views.get(identity.key) or self._view(identity)
        text, levels = (topic, topic.split("/")) if len(topic) < LONG else shortened(topic, view.longest)
        if len(levels) > MAX_LEVELS:
            return verdicts.refused(str(topic_problem(topic)))
        live = view.sub & self._expiries.live(now) if self._expiring else view.sub
        first = self._first(view, text, levels, live)
        return self._decided[first] or self._decision(first)

    def subscribe(self, identity: Identity, topic_filter: str, *, now: datetime) -> Decision:
        """See ``acl.policy.engine.evaluate.subscribe``."""
        asked = tuple(topic_filter.split("/"))
        if not _plain_filter(topic_filter, asked):
            topic_filter, problem = unshared(topic_filter)
            problem = problem or filter_problem(topic_filter)
            if problem:
                return verdicts.refused(problem)
            asked = split(topic_filter)
        view = self._views.get(identity.key) or self._view(identity)
        live = view.sub & self._expiries.live(now) if self._expiring else view.sub
        if "+" in topic_filter or "#" in topic_filter:
            covering = self._covering(view, asked, live)
            if not any(covering):
                return self._undecided
        elif self._limited or self._expiring:
            covering = [self._matching(view, topic_filter, asked, live)]
        else:
            return self._one_topic(self._first(view, topic_filter, asked, live))
        return self._gap(asked, covering) or self._grant(view, asked, live, covering)

    def covering(
        self, identity: Identity, topic_filter: str, action: Literal["pub", "sub"], *, before: int
    ) -> list[int]:
        """For each length that a topic of ``topic_filter`` can have, the filters that match all topics of that length.

        Only filters with a rank below ``before`` count; see ``ranks``. Effects and expiries are not looked at.
        """
        view = self._views.get(identity.key) or self._view(identity)
        alive = (view.pub if action == "pub" else view.sub) & self._columns.before(before)
        return self._covering(view, split(topic_filter), alive)

    def meeting(self, identity: Identity, topic_filter: str, action: Literal["pub", "sub"], *, before: int) -> int:
        """The filters with a rank below ``before`` that share a topic with ``topic_filter``."""
        view = self._views.get(identity.key) or self._view(identity)
        alive = (view.pub if action == "pub" else view.sub) & self._columns.before(before)
        return self._meeting(view, split(topic_filter), alive)

    def ranks(self, mask: int, limit: int) -> Iterator[int]:
        """The first ``limit`` ranks of ``mask``, lowest first: the filters of the rules, counted through in order."""
        for _ in range(limit):
            if not mask:
                return
            rank = self._columns.first(mask)
            mask ^= self._columns.bit(rank)
            yield rank

    def _where(self, wanted: Callable[[Rule], bool]) -> int:
        return self._columns.mask(rank for rank, rule in enumerate(self._rules) if wanted(rule))

    def _view(self, identity: Identity) -> View:
        """The policy resolved for ``identity``, from the cache or computed now."""
        admitted = self._audience.admitting(identity)
        tables, hidden, nothing, longest = self._tables, self._columns.hidden, 0, self._columns.longest
        if self._has_templates:
            tables, hidden, nothing, longest = self._resolved(identity)
        admitted &= ~nothing
        view = View(identity, admitted & self._pub, admitted & self._sub, tables, self._all & ~hidden, longest)
        if len(self._views) >= self._max_views:
            self._views = {}
        self._views[identity.key] = view
        return view

    def _resolved(self, identity: Identity) -> tuple[list[Table], int, int, int]:
        """Resolve the filters for ``identity``.

        Returns tables, filters with a leading ``$``, allow filters without a match and the length of the longest level.
        """
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
                overlay[value] = overlay[value] | bits if value in overlay else bits  # the same integer, not a copy
                if level == 0 and is_hidden(value):
                    hidden |= bits
            overlay = {value: bits | anything for value, bits in overlay.items()} if anything else overlay
            variable = overlay.get if column.templates else None
            tables.append((column.hits.get, column.default, variable, anything, column.topic_buckets or None))
        return tables, hidden, nothing, max(self._columns.longest, *(len(value or "") for value in values.values()))

    def _alive(self, view: View, levels: Sequence[str], alive: int) -> tuple[int, tuple[int, ...]]:
        """The filters of ``alive`` that certainly match the topic ``levels``, and the ranks of those that may."""
        named: tuple[int, ...] = ()
        alive &= self._sure
        for level, (literal, default, variable, anything, bucket) in zip(levels, view.tables):  # noqa: B905  # hot
            if variable is None:
                alive &= literal(level, default)
            else:
                value = variable(level, anything)
                alive &= literal(level, default) | value if value else literal(level, default)
            if bucket is not None and level in bucket:
                named += bucket[level]
        alive &= self._columns.ends[len(levels)]
        return alive & self._columns.leading_exact if levels[0][:1] == "$" else alive, named

    def _first(self, view: View, topic: str, levels: Sequence[str], among: int) -> int:
        """The lowest rank of the filters of ``among`` that match ``topic``; one past the last rank for none."""
        columns = self._columns
        alive, named = self._alive(view, levels, among)
        first = columns.sure_ranks[(alive & -alive).bit_length() - 1] if alive else self._none
        for rank in columns.exact.get(topic, ()):
            if rank < first and among >> columns.bit_of_rank[rank] & 1:
                first = rank
        for rank in named:
            if rank < first and columns.matches(rank, levels) and among >> columns.bit_of_rank[rank] & 1:
                first = rank
        return first

    def _matching(self, view: View, topic: str, levels: Sequence[str], among: int) -> int:
        """The filters of ``among`` that match ``topic``."""
        columns = self._columns
        alive, named = self._alive(view, levels, among)
        for rank in (*columns.exact.get(topic, ()), *named):
            if columns.matches(rank, levels):
                alive |= among & columns.bit(rank)
        return alive

    def _covering(self, view: View, asked: Levels, among: int) -> list[int]:
        """The filters of ``among`` that cover ``asked``, length by length.

        There is one mask per length that a topic of ``asked`` can have, up to one level below the deepest filter (see
        ``acl.policy.engine.topics.representatives``); the last one stands for all longer topics.
        """
        columns = self._columns
        prefix = asked[:-1] if asked[-1] == HASH else asked
        covering = among & self._sure
        named: tuple[int, ...] = ()
        at = 0
        for level, (literal, default, variable, anything, _) in zip(prefix, view.tables):  # noqa: B905  # hot
            if level == PLUS:
                covering &= columns.wild[at] | anything if anything else columns.wild[at]
            else:
                taking = literal(level, default)
                covering &= taking | variable(level, anything) if variable is not None else taking
                if level in columns.buckets[at]:
                    named += columns.buckets[at][level]
            at += 1  # noqa: SIM113  # hot
        for rank in named:
            if columns.covers(rank, prefix):
                covering |= among & columns.bit(rank)
        if asked[0][:1] == "$":
            covering &= columns.leading_exact
        if asked[-1] != HASH:
            return [covering & columns.ends[len(prefix)]]
        return self._by_length(view, prefix, covering) if covering else [0]

    def _meeting(self, view: View, asked: Levels, among: int) -> int:
        """The filters of ``among`` that share a topic with ``asked``."""
        columns = self._columns
        prefix = asked[:-1] if asked[-1] == HASH else asked
        met, unsure = among, 0
        for level, column, (literal, default, variable, anything, _) in zip(
            prefix, columns.columns, view.tables, strict=False
        ):
            if level != PLUS:
                taking = literal(level, default)
                met &= taking | variable(level, anything) if variable is not None else taking
                unsure |= column.unsure
        if asked[0] in (PLUS, HASH):
            met &= view.seen if asked != (PLUS,) else view.seen & ~columns.below_empty
        elif is_hidden(asked[0]):
            met &= columns.leading_exact
        met &= columns.reaching[shortest(prefix)] if asked[-1] == HASH else columns.ends[len(prefix)]
        if met & unsure:
            met = (met & ~unsure) | columns.confirmed(prefix, met)
        return met

    def _by_length(self, view: View, prefix: Levels, covering: int) -> list[int]:
        """``covering`` for topics that begin with ``prefix``, length by length; there only wildcards match any text."""
        columns, length = self._columns, len(prefix)
        if length > columns.depth:
            return [covering & columns.ends[length]]
        wild: Iterable[int] = columns.wild[length:]
        if self._has_templates:
            wild = map(or_, wild, [anything for _, _, _, anything, _ in view.tables[length:]])
        alive = [*accumulate(wild, and_, initial=covering)]
        masks = [*map(and_, [*alive, alive[-1]], columns.ends[length:])]
        return masks[shortest(prefix) - length :]

    def _gap(self, asked: Levels, covering: Sequence[int]) -> Decision | None:
        """See ``acl.policy.engine.evaluate._gap``: each mask of ``covering`` holds the deciders of one length."""
        if all(covering):
            for deciders in covering:
                if not deciders & self._allow:
                    return verdicts.not_allowed(self._rules[self._columns.first(deciders)])
            return None
        if not any(covering):
            return self._undecided
        return verdicts.uncovered(_part(asked, list(covering).index(0)))

    def _grant(self, view: View, asked: Levels, live: int, covering: Sequence[int]) -> Decision:
        """See ``acl.policy.engine.evaluate._grant``."""
        ranks, allow, deny = self._columns, self._allow, self._deny
        met = self._meeting(view, asked, live) if PLUS in asked or asked[-1] == HASH else covering[0]
        last = max(ranks.first(deciders & allow) for deciders in covering)
        if all(deciders & deny for deciders in covering):
            last = min(last, max(ranks.first(deciders & deny) for deciders in covering))
        deciding = met & ranks.before(last + 1)
        allows, denies = deciding & allow, deciding & deny
        limit = regions_examined(max(self._levels, len(asked)), self._none)
        valid_until = self._expiries.soonest(met) if self._expiring else None
        if not allows:
            return verdicts.nothing_left(self._rules[ranks.first(deciding)], valid_until)
        qos = next((qos for qos in (0, 1) if met & self._below_qos[qos + 1]), 2)
        alone = self._rules[last].effect is Effect.ALLOW and all(deciders & ranks.bit(last) for deciders in covering)
        if not denies:
            return self._plain_grant(last if alone else ranks.first(allows), qos, valid_until)
        too_many = denies.bit_count() > limit
        first = -1 if too_many else next((rank for rank, _, _ in self._left(view, asked, allows, denies, limit)), -1)
        if too_many or (first < 0 and allows.bit_count() > limit):
            whole = (join(asked),)
            return verdicts.granted(self._rules[ranks.last(allows)], whole, qos, valid_until, whole)
        if first < 0:
            return verdicts.nothing_left(self._rules[ranks.first(deciding)], valid_until)
        denied = [(region, rest) for _, region, rest in self._left(view, asked, denies, allows, limit)]
        holes = largest([region for region, _ in denied])
        partial = {join(region) for region, rest in denied if rest}
        rule = self._rules[last if alone else first]
        return verdicts.granted(rule, holes, qos, valid_until, [hole for hole in holes if hole in partial])

    def _left(
        self, view: View, asked: Levels, some: int, others: int, limit: int
    ) -> Iterator[tuple[int, Levels, bool]]:
        """See ``acl.policy.engine.evaluate._left``: the first ``limit`` of ``some``, against ``others`` before them."""
        for _ in range(limit):
            if not some:
                return
            rank = self._columns.first(some)
            some ^= self._columns.bit(rank)
            levels = resolve(self._patterns[rank], view.identity, self._rules[rank].effect)
            region = intersect(asked, levels) if levels else None
            earlier = others & self._columns.before(rank)
            if region and not (earlier and all(self._covering(view, region, earlier))):
                yield rank, region, bool(earlier and self._meeting(view, region, earlier))

    def _one_topic(self, rank: int) -> Decision:
        """The decision on a subscription to one topic when the filter ``rank`` is first and no rule has limits."""
        if rank == self._none:
            return self._undecided
        if self._rules[rank].effect is Effect.ALLOW:
            return self._plain_grant(rank, 2, None)
        return verdicts.not_allowed(self._rules[rank])

    def _plain_grant(self, rank: int, qos: int, valid_until: datetime | None) -> Decision:
        """The grant without exceptions by the filter ``rank``; cached where it does not depend on the time."""
        if valid_until:
            return verdicts.granted(self._rules[rank], (), qos, valid_until)
        decision = self._granted.get((rank, qos))
        if decision is None:
            decision = self._granted[rank, qos] = verdicts.granted(self._rules[rank], (), qos, None)
        return decision

    def _decision(self, rank: int) -> Decision:
        """The decision of the filter ``rank`` when it matches first; equal for all identities, so it is cached."""
        rule = self._rules[rank]
        decision = verdicts.allowed(rule) if rule.effect is Effect.ALLOW else verdicts.denied(rule)
        self._decided[rank] = decision
        return decision

    def _with_near_misses(self, deciding: int, blocked: int, qos: int, retain: bool) -> Decision:
        """The decision of the first of ``deciding`` with near misses: earlier allow rules that forbid QoS or retain."""
        if deciding:
            first = self._columns.first(deciding)
            blocked &= self._columns.before(first)
            if not blocked:
                return self._decided[first] or self._decision(first)
        near: list[NearMiss] = []
        while blocked and len(near) < MAX_NEAR_MISSES:
            rule = self._rules[self._columns.first(blocked)]
            miss = verdicts.near_miss(rule, qos, retain)
            if miss:
                near.append(miss)
            blocked ^= blocked & self._columns.before(self._after[rule.id])
        if not deciding:
            return verdicts.undecided(near)
        rule = self._rules[self._columns.first(deciding)]
        return verdicts.allowed(rule, near) if rule.effect is Effect.ALLOW else verdicts.denied(rule, near)


def _below(qos: int, rule: Rule) -> bool:
    return rule.qos < qos


def _plain_filter(text: str, levels: Levels) -> bool:
    """A quick check that ``text``, of these ``levels``, is a valid filter; it may return false for a valid one."""
    if "#" in text[:-1] or "$" in text or not plain_text(text, levels):
        return False
    return (levels[-1] == "#" or text[-1] != "#") and ("+" not in text or text.count("+") == levels.count("+"))


def _part(asked: Levels, below: int) -> str:
    """The part of ``asked``, which ends with ``#``, whose topics are ``below`` levels longer than the shortest."""
    prefix = asked[:-1]
    return join(prefix + (PLUS,) * (shortest(prefix) - len(prefix) + below))


def compile_policy(policy: Policy) -> CompiledPolicy:
    """The index of ``policy``: tens of milliseconds and some ten megabytes for 10,000 rules."""
    return CompiledPolicy(policy)

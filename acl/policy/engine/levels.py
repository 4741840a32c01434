"""Match many topic filters at once with bit masks: one bit per filter, one set of masks per topic level.

Asking which of ``n`` filters match a topic is one dictionary look-up and one AND of ``n``-bit integers per level,
whatever the filters are: a topic of ``h`` levels costs ``h * n / 64`` word operations and never more. A trie is as fast
on friendly filters but visits up to ``2 ** h`` nodes on hostile ones (every subset of ``+``).

A mask takes ``n / 8`` bytes, so a literal that only a few filters name has no mask; it has a *bucket*, the filters
themselves. That keeps memory linear. A filter with such a rare literal passes the ANDs of that level as *unsure*, and
counts only when a bucket names it and its literals agree. Unsure filters have the high bits: the masks of a topic are
then as short as the sure filters are few, because an AND is as long as its shorter side.

Filters are known outside by their *rank*, their place in the order of the rules; ``first``, ``last`` and ``before``
turn masks into ranks and back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from acl.policy.engine.templates import Pattern, Template
from acl.policy.engine.topics import HASH, MAX_LEVELS, PLUS, is_hidden

MAX_BUCKET = 4
BUCKETS_FROM = 1024
"""From this many filters on, masks cost enough for buckets to pay."""
MAX_BUCKET_LEVELS = 16
"""Deeper filters take masks always: confirming one costs a step per level."""


@dataclass(frozen=True, slots=True)
class Column:
    """The masks of one topic level, over all filters."""

    hits: dict[str, int]
    """By literal: the filters that take it here."""
    buckets: dict[str, tuple[int, ...]]
    """By literal that few filters name: those filters. They are unsure until they are confirmed."""
    topic_buckets: dict[str, tuple[int, ...]]
    """The buckets that topics are looked up in: without the filters that a topic finds by its whole text."""
    default: int
    """Filters that take a level nobody names: ``+``, a ``#`` at or above, and the unsure ones."""
    wild: int
    """Filters that take any level: ``+`` and a ``#`` at or above."""
    unsure: int
    """Filters with a literal here that is too rare for a mask."""
    templates: tuple[tuple[Template, int], ...]
    """Filters with variables here, by template."""


class Columns:
    """An index of the filters ``patterns`` by topic level. A filter's rank is its position in ``patterns``."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.size = len(patterns)
        rare = self._rare_literals(patterns)
        unsure = {
            rank
            for rank, pattern in enumerate(patterns)
            if rare and _can_be_unsure(pattern) and not rare.isdisjoint(enumerate(pattern))
        }
        self.sure_ranks = [rank for rank in range(self.size) if rank not in unsure]
        self._unsure_ranks = sorted(unsure)
        self.sure_size = len(self.sure_ranks)
        self.bit_of_rank = [0] * self.size
        for bit, rank in enumerate(self.sure_ranks + self._unsure_ranks):
            self.bit_of_rank[rank] = bit
        prefixes = [pattern[:-1] if pattern[-1] == HASH else pattern for pattern in patterns]
        self.depth = max(map(len, prefixes), default=0)
        self._shapes = {rank: _shape(patterns[rank]) for rank in unsure}
        self._exact = {rank: len(shape[2]) == shape[0] and not shape[1] for rank, shape in self._shapes.items()}
        self.exact: dict[str, list[int]] = defaultdict(list)
        """Unsure filters without wildcards, by their whole text."""
        for rank, exact in self._exact.items():
            if exact:
                self.exact["/".join(map(str, patterns[rank]))].append(rank)
        self.longest = max((len(text) for pattern in patterns for text in pattern if isinstance(text, str)), default=0)
        """Characters of the longest literal level."""
        self._ends(patterns, prefixes)
        self.columns = self._columns(prefixes, rare, unsure)
        self.wild = [column.wild for column in self.columns]
        self.buckets = [column.buckets for column in self.columns]
        self.below_empty = self.mask(rank for rank, pattern in enumerate(patterns) if pattern == ("", HASH))
        """Filters that read ``/#``: ``+`` would meet them at the empty topic, which there is not."""
        self.leading_exact = self.mask(rank for rank, pattern in enumerate(patterns) if pattern[0] not in (PLUS, HASH))
        self.hidden = self.mask(
            rank for rank, pattern in enumerate(patterns) if isinstance(pattern[0], str) and is_hidden(pattern[0])
        )

    def mask(self, ranks: Iterable[int]) -> int:
        """The bits of the filters with these ranks."""
        return mask(map(self.bit_of_rank.__getitem__, ranks))

    def bit(self, rank: int) -> int:
        """The mask of one filter."""
        return 1 << self.bit_of_rank[rank]

    def first(self, bits: int) -> int:
        """The lowest rank among ``bits``, which are not empty."""
        low = (bits & -bits).bit_length() - 1
        if not self._unsure_ranks:
            return low
        if low >= self.sure_size:
            return self._unsure_ranks[low - self.sure_size]
        rank, high = self.sure_ranks[low], bits >> self.sure_size
        return min(rank, self._unsure_ranks[(high & -high).bit_length() - 1]) if high else rank

    def last(self, bits: int) -> int:
        """The highest rank among ``bits``, which are not empty."""
        high, low = bits >> self.sure_size, bits & ((1 << self.sure_size) - 1)
        ranks = [self._unsure_ranks[high.bit_length() - 1]] if high else []
        return max(ranks + ([self.sure_ranks[low.bit_length() - 1]] if low else []))

    def before(self, rank: int) -> int:
        """The bits of all filters with a lower rank."""
        sure = bisect_left(self.sure_ranks, rank)
        return ((1 << (rank - sure)) - 1 << self.sure_size) | ((1 << sure) - 1)

    def _rare_literals(self, patterns: Sequence[Pattern]) -> set[tuple[int, str | Template]]:
        """The ``(level, literal)`` that so few filters name that a bucket holds them."""
        if self.size < BUCKETS_FROM:
            return set()
        counts = Counter(place for pattern in patterns if _can_be_unsure(pattern) for place in enumerate(pattern))
        return {place for place, count in counts.items() if count <= MAX_BUCKET and place[1] not in (PLUS, HASH)}

    def _ends(self, patterns: Sequence[Pattern], prefixes: Sequence[Pattern]) -> None:
        """``ends[h]``: filters that match topics of ``h`` levels. ``reaching[h]``: topics of ``h`` levels or more."""
        plain: dict[int, list[int]] = defaultdict(list)
        open_ended: dict[int, list[int]] = defaultdict(list)
        for rank, (pattern, prefix) in enumerate(zip(patterns, prefixes, strict=True)):
            (open_ended if pattern[-1] == HASH else plain)[len(prefix)].append(rank)
        hashes = self.mask(rank for ended in open_ended.values() for rank in ended)
        below, above = 0, (1 << self.size) - 1
        self.ends: list[int] = []
        self.reaching: list[int] = []
        self.past_hash: list[int] = []
        for length in range(self.depth + 2):
            below |= self.mask(open_ended[length])
            exactly = self.mask(plain[length])
            self.past_hash.append(below)
            self.ends.append(exactly | below)
            self.reaching.append(above | hashes)
            above &= ~exactly
        self.ends += [hashes] * (MAX_LEVELS - self.depth)
        self.reaching += [hashes] * (MAX_LEVELS - self.depth)

    def _columns(
        self, prefixes: Sequence[Pattern], rare: set[tuple[int, str | Template]], unsure: set[int]
    ) -> list[Column]:
        literals: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(self.depth)]
        buckets: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(self.depth)]
        templates: list[dict[Template, list[int]]] = [defaultdict(list) for _ in range(self.depth)]
        for rank, prefix in enumerate(prefixes):
            for level, wanted in enumerate(prefix):
                if isinstance(wanted, Template):
                    templates[level][wanted].append(rank)
                elif rank in unsure and (level, wanted) in rare:
                    buckets[level][wanted].append(rank)
                else:
                    literals[level][wanted].append(rank)
        return [self._column(*parts) for parts in zip(range(self.depth), literals, buckets, templates, strict=True)]

    def _column(
        self,
        level: int,
        literals: Mapping[str, list[int]],
        buckets: Mapping[str, list[int]],
        templates: Mapping[Template, list[int]],
    ) -> Column:
        wild = self.mask(literals.get(PLUS, ())) | self.past_hash[level]
        unsure = self.mask(rank for bucket in buckets.values() for rank in bucket)
        default = wild | unsure
        return Column(
            hits={literal: self.mask(ranks) | default for literal, ranks in literals.items() if literal != PLUS},
            buckets={literal: tuple(ranks) for literal, ranks in buckets.items()},
            topic_buckets={
                literal: inexact
                for literal, ranks in buckets.items()
                if (inexact := tuple(rank for rank in ranks if not self._exact[rank]))
            },
            default=default,
            wild=wild,
            unsure=unsure,
            templates=tuple((template, self.mask(ranks)) for template, ranks in templates.items()),
        )

    def matches(self, rank: int, topic: Sequence[str]) -> bool:
        """Whether the unsure filter ``rank`` matches ``topic``."""
        length, open_ended, literals = self._shapes[rank]
        if len(topic) != length and not (open_ended and len(topic) > length):
            return False
        for level, literal in literals:
            if topic[level] != literal:
                return False
        return literals[0][0] == 0 or topic[0][:1] != "$"

    def covers(self, rank: int, prefix: Sequence[str]) -> bool:
        """Whether the unsure filter ``rank`` covers the filter ``prefix``, apart from their lengths."""
        literals = self._shapes[rank][2]
        return all(level < len(prefix) and prefix[level] == literal for level, literal in literals)

    def confirmed(self, prefix: Sequence[str], among: int) -> int:
        """The unsure filters of ``among`` that agree with the filter ``prefix`` wherever both are literal."""
        found = 0
        for text, bucket in zip(prefix, self.buckets, strict=False):
            if text in bucket:
                for rank in bucket[text]:
                    if all(
                        level >= len(prefix) or prefix[level] in (literal, PLUS)
                        for level, literal in self._shapes[rank][2]
                    ):
                        found |= self.bit(rank)
        return found & among


def _can_be_unsure(pattern: Pattern) -> bool:
    return len(pattern) <= MAX_BUCKET_LEVELS and not any(isinstance(level, Template) for level in pattern)


def _shape(pattern: Pattern) -> tuple[int, bool, tuple[tuple[int, str], ...]]:
    """The levels that a pattern without templates needs, whether it takes more, and its literals by level."""
    literals = tuple((level, str(text)) for level, text in enumerate(pattern) if text not in (PLUS, HASH))
    open_ended = pattern[-1] == HASH
    return len(pattern) - open_ended, open_ended, literals


def mask(bits: Iterable[int]) -> int:
    """The integer with ``bits`` set. Linear in the number of bits and the highest of them."""
    bits = list(bits)
    if len(bits) < 4:
        few = 0
        for bit in bits:
            few |= 1 << bit
        return few
    data = bytearray((max(bits) >> 3) + 1)
    for bit in bits:
        data[bit >> 3] |= 1 << (bit & 7)
    return int.from_bytes(data, "little")

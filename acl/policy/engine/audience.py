"""Find the rules that apply to an identity: an index of every rule's ``who`` by the shape of its globs.

Asked once per identity, not once per decision. A username finds its exact globs, its prefixes (``agent-*``), suffixes
and single inner pieces (``*x*``) by look-ups of its own parts; only globs of another shape are tried one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from acl.policy.engine import globs
from acl.policy.engine.model import Identity, Who

_Pieces = dict[int, dict[str, list[int]]]
"""By length and text of the piece: the numbers of the ``who`` that need it."""
_WORTH_A_MASK = 64


class Audience:
    """An index of the ``who`` of a sequence of rules, each with the ranks of its filters."""

    def __init__(self, who_of_rank: Sequence[Who], mask: Callable[[Iterable[int]], int]) -> None:
        self._mask = mask
        ranks: dict[Who, list[int]] = defaultdict(list)
        for rank, who in enumerate(who_of_rank):
            ranks[who].append(rank)
        self._who = list(ranks)
        self._ranks = list(ranks.values())
        self._masks = [mask(some) if len(some) >= _WORTH_A_MASK else 0 for some in self._ranks]
        self._everyone = mask(rank for who, some in ranks.items() if who.is_everyone for rank in some)
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._prefixes: _Pieces = defaultdict(lambda: defaultdict(list))
        self._suffixes: _Pieces = defaultdict(lambda: defaultdict(list))
        self._inner: _Pieces = defaultdict(lambda: defaultdict(list))
        self._others: list[tuple[str, int]] = []
        for number, who in enumerate(self._who):
            if not who.is_everyone:
                for glob in who.username:
                    self._add(glob, number)

    def _add(self, glob: str, number: int) -> None:
        first, *rest = glob.split("*")
        if not rest:
            self._exact[glob].append(number)
        elif rest == [""]:
            self._prefixes[len(first)][first].append(number)
        elif len(rest) == 1 and not first:
            self._suffixes[len(rest[0])][rest[0]].append(number)
        elif len(rest) == 2 and not first and not rest[1]:
            self._inner[len(rest[0])][rest[0]].append(number)
        else:
            self._others.append((glob, number))

    def admitting(self, identity: Identity) -> int:
        """The bits of the filters whose ``who`` matches ``identity``."""
        admitted = self._everyone
        few: list[int] = []
        for number in set(self._by_username(identity.username)):
            who = self._who[number]
            simple = who.client_id == ("*",) and not who.claims
            if simple or globs.admits(who, identity):
                if self._masks[number]:
                    admitted |= self._masks[number]
                else:
                    few += self._ranks[number]
        return admitted | self._mask(few)

    def _by_username(self, username: str) -> Iterator[int]:
        """The numbers of all ``who`` with a username glob that matches, some of them more than once."""
        yield from self._exact.get(username, ())
        size = len(username)
        for length, pieces in self._prefixes.items():
            if length <= size:
                yield from pieces.get(username[:length], ())
        for length, pieces in self._suffixes.items():
            if length <= size:
                yield from pieces.get(username[size - length :], ())
        for length, pieces in self._inner.items():
            yield from _inside(username, length, pieces)
        for glob, number in self._others:
            if globs.matches(glob, username):
                yield number


def _inside(text: str, length: int, pieces: dict[str, list[int]]) -> Iterable[int]:
    """The numbers of the ``pieces`` of one length that occur in ``text``, by whichever side is smaller."""
    places = len(text) - length + 1
    if places < len(pieces):
        found = {text[at : at + length] for at in range(places)} & pieces.keys() if places > 0 else set()
    else:
        found = {piece for piece in pieces if piece in text}
    return [number for piece in found for number in pieces[piece]]

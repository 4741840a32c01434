"""Find texts that distinguish globs: one or more for every combination of globs that a text can match.

Each glob is a small automaton; running all of them side by side from the empty word, breadth first, reaches every
combination of matching and not matching that any text can have, the shortest text of each first. The states of all
automata are the bits of one integer, so a step of all of them is a few operations whatever their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from acl.policy.analysis.budget import Budget
from acl.policy.engine.globs import matches

MAX_STATES = 20_000
STAR = "\0"
"""Stands for a ``*`` that is meant as itself, in what is otherwise a glob. Neither globs nor topics contain it."""
_FRESH = "xyzwvutsrqponmlkjihgfedcba0123456789"


@dataclass(frozen=True, slots=True)
class Framed:
    """The condition that ``glob`` matches a text with ``head`` before it and ``tail`` after it."""

    glob: str
    head: str = ""
    tail: str = ""

    def matches(self, word: str) -> bool:
        """Whether ``word`` meets the condition."""
        return matches(self.glob, self.head + word + self.tail)

    def only(self) -> str | None:
        """The only text that meets the condition, if the glob has no ``*``; ``None`` otherwise."""
        size = len(self.glob) - len(self.head) - len(self.tail)
        if "*" in self.glob or size < 0 or not (self.glob.startswith(self.head) and self.glob.endswith(self.tail)):
            return None
        return self.glob[len(self.head) : len(self.head) + size]


class _Automata:
    """Automata of several globs run in parallel: each bit is a position reached in one glob."""

    def __init__(self, globs: Sequence[Framed]) -> None:
        self._steps: dict[str, int] = {}
        self._loops = self.start = self.size = 0
        self._accept: dict[str, int] = {}
        """By tail: the last bits of the globs."""
        starts: list[tuple[int, str]] = []
        for framed in globs:
            starts.append((1 << self.size, framed.head))
            for character in framed.glob:
                if character == "*":
                    self._loops |= 1 << self.size
                else:
                    self._steps[character] = self._steps.get(character, 0) | 1 << self.size
                    self.size += 1
            self._accept[framed.tail] = self._accept.get(framed.tail, 0) | 1 << self.size
            self.size += 1
        for start, head in starts:
            self.start |= self._run(start, head)

    def after(self, state: int, character: str) -> int:
        """The state after ``character``. The last bit of a glob has no step, so none runs into the next glob."""
        return (state & self._steps.get(character, 0)) << 1 | (state & self._loops)

    def _run(self, state: int, text: str) -> int:
        for character in text:
            state = self.after(state, character)
        return state

    def accepted(self, state: int) -> int:
        """The globs that match in this state, as their last bits."""
        found = 0
        for tail, accept in self._accept.items():
            found |= self._run(state, tail) & accept
        return found


def literal(text: str) -> str:
    """The glob that matches just ``text``, a ``*`` in it included."""
    return text.replace("*", STAR)


def fresh_character(texts: Iterable[str]) -> str:
    """A character that occurs in none of ``texts``."""
    used = set().union(*texts)
    return next(character for character in chain(_FRESH, map(chr, count(0x4E00))) if character not in used)


def telling(globs: Iterable[Framed], budget: Budget, *, each: int = 1) -> tuple[list[str], bool]:
    """Texts for every combination of ``globs`` that some text matches, ``each`` of them where there are as many.

    A glob without a ``*`` is met by one text, which is taken as it is; automata are run for the others. The second
    value is whether the search was complete; it is given up after ``MAX_STATES``, and with ``budget``.
    """
    globs = tuple(dict.fromkeys(globs))
    fixed = {word: None for framed in globs if (word := framed.only()) is not None}
    open_ended = [framed for framed in globs if "*" in framed.glob]
    automata = _Automata(open_ended)
    fresh = fresh_character(framed.glob for framed in globs)
    alphabet = [fresh, *sorted(set().union(*(framed.glob for framed in open_ended)) - {"*"})]
    cost = len(alphabet) * (1 + automata.size // 2048)
    seen, queue = {automata.start}, deque([(automata.start, "")])
    words: dict[int, list[str]] = {}
    while queue and len(seen) < MAX_STATES and budget.take(cost):
        state, word = queue.popleft()
        some = words.setdefault(automata.accepted(state), [])
        if len(some) <= each:
            some.append(word)
        for character in alphabet:
            after = automata.after(state, character)
            if after not in seen:
                seen.add(after)
                queue.append((after, word + character))
    complete = not queue and budget.take(2 * len(words) * len(open_ended) * each)
    found = list(fixed)
    for some in words.values():
        found += _enough(some, fixed, open_ended if complete else [], fresh, each)
    return [word.replace(STAR, "*") for word in found], complete


def _enough(
    some: Sequence[str], fixed: Mapping[str, None], globs: Sequence[Framed], fresh: str, wanted: int
) -> list[str]:
    """Up to ``each`` texts that match the same globs: those of ``some`` that are not ``fixed``, then longer ones.

    Texts are lengthened by a character that no glob names, so a glob that did not match still does not.
    """
    enough = [word for word in some if word not in fixed][:wanted]
    matched = [framed.matches(some[0]) for framed in globs] if len(enough) < wanted else []
    for word in some:
        for at in range(len(word), -1, -1):
            for length in range(1, wanted + 1):
                if len(enough) >= wanted:
                    return enough
                longer = word[:at] + fresh * length + word[at:]
                if longer not in enough and [framed.matches(longer) for framed in globs] == matched:
                    enough.append(longer)
    return enough

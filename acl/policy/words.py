"""Words that tell globs apart: for a set of globs, one text (or more) for every way in which texts can match them.

Each glob is a small automaton; running all of them side by side from the empty word, breadth first, meets every
combination of matching and not matching that any text can have, the shortest text of each first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from acl.policy.globs import matches

MAX_STATES = 20_000
_FRESH = "xyzwvutsrqponmlkjihgfedcba0123456789"


@dataclass(frozen=True, slots=True)
class _Automaton:
    """A glob as a set of states in an integer: bit ``i`` is set when the first ``i`` characters have been met."""

    steps: dict[str, int]
    loops: int
    accept: int

    def after(self, state: int, character: str) -> int:
        return (state & self.steps.get(character, 0)) << 1 | (state & self.loops)


def _automaton(glob: str) -> _Automaton:
    steps: dict[str, int] = {}
    loops = at = 0
    for character in glob:
        if character == "*":
            loops |= 1 << at
        else:
            steps[character] = steps.get(character, 0) | 1 << at
            at += 1
    return _Automaton(steps, loops, 1 << at)


def fresh_character(texts: Iterable[str]) -> str:
    """A character that occurs in none of ``texts``."""
    used = set().union(*texts)
    return next((character for character in _FRESH if character not in used), None) or next(
        chr(code) for code in range(0x4E00, 0x9FFF) if chr(code) not in used
    )


def telling(globs: Sequence[str], *, each: int = 1) -> tuple[list[str], bool]:
    """Texts for every combination of ``globs`` that some text matches, ``each`` of them where there are as many.

    The second value is whether the search was complete; it is given up after ``MAX_STATES`` states.
    """
    globs = tuple(dict.fromkeys(globs))
    automata = [_automaton(glob) for glob in globs]
    fresh = fresh_character(globs)
    alphabet = [fresh, *sorted(set().union(*globs) - {"*"})]
    start = tuple(1 for _ in automata)
    seen, queue = {start}, deque([(start, "")])
    words: dict[tuple[bool, ...], list[str]] = {}
    while queue and len(seen) < MAX_STATES:
        states, word = queue.popleft()
        combination = tuple(bool(state & each.accept) for state, each in zip(states, automata, strict=True))
        words.setdefault(combination, [])
        if len(words[combination]) < each:
            words[combination].append(word)
        for character in alphabet:
            after = tuple(each.after(state, character) for state, each in zip(states, automata, strict=True))
            if after not in seen:
                seen.add(after)
                queue.append((after, word + character))
    for combination, some in words.items():
        _pump(some, combination, globs, fresh, each)
    return [word for some in words.values() for word in some], not queue


def _pump(some: list[str], combination: tuple[bool, ...], globs: Sequence[str], fresh: str, wanted: int) -> None:
    """Lengthen the words of one combination by a character that no glob names, until there are enough of them."""
    for word in list(some):
        for at in range(len(word), -1, -1):
            for count in range(1, wanted + 1):
                if len(some) >= wanted:
                    return
                longer = word[:at] + fresh * count + word[at:]
                if longer not in some and tuple(matches(glob, longer) for glob in globs) == combination:
                    some.append(longer)

"""Compare two texts line by line, as rows of a table. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

CONTEXT = 3
COSTLY = 400_000
"""Lines of one text times lines of the other, compared each with each (a second at worst): what lies beyond it between
two lines that both texts have just once is shown as replaced whole."""

_Chain = tuple[int, int, "_Chain | None"]
Op = Literal["same", "add", "del", "gap"]


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One line of a text difference: ``old`` and ``new`` are line numbers from 1, 0 where a side has none.

    The ``text`` of a gap says how many lines it replaces.
    """

    op: Op
    old: int
    new: int
    text: str

    @property
    def sign(self) -> str:
        """``+``, ``-`` or a space."""
        return {"add": "+", "del": "-"}.get(self.op, " ")


@dataclass(frozen=True, slots=True)
class TextDiff:
    """The rows, with unchanged stretches folded, and how many lines came and went."""

    rows: list[DiffRow]
    added: int
    removed: int


def diff(before: str, after: str) -> TextDiff:
    """The difference from ``before`` to ``after``, three lines of context around each change."""
    old, new = before.splitlines(), after.splitlines()
    rows: list[DiffRow] = []
    for tag, a, b, c, d in _opcodes(old, new):
        if tag == "equal":
            rows += [DiffRow("same", a + n + 1, c + n + 1, old[a + n]) for n in range(b - a)]
        else:
            rows += [DiffRow("del", n + 1, 0, old[n]) for n in range(a, b)]
            rows += [DiffRow("add", 0, n + 1, new[n]) for n in range(c, d)]
    added, removed = sum(row.op == "add" for row in rows), sum(row.op == "del" for row in rows)
    return TextDiff(_folded(rows) if added or removed else [], added, removed)


def _opcodes(old: list[str], new: list[str]) -> list[tuple[str, int, int, int, int]]:
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    middle = _middle(old[head : len(old) - tail], new[head : len(new) - tail])
    codes = [("equal", 0, head, 0, head)] if head else []
    codes += [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in middle]
    if tail:
        codes.append(("equal", len(old) - tail, len(old), len(new) - tail, len(new)))
    return codes


def _middle(old: list[str], new: list[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """Compare the middle of two texts at once when that is cheap, else piecewise between unique common lines."""
    left = COSTLY
    start_old = start_new = 0
    for stop_old, stop_new in [*(_anchors(old, new) if len(old) * len(new) > COSTLY else []), (len(old), len(new))]:
        piece_old, piece_new = old[start_old:stop_old], new[start_new:stop_new]
        left -= (cost := len(piece_old) * len(piece_new))
        if cost and left < 0:
            yield "replace", start_old, stop_old, start_new, stop_new
        else:
            for tag, a, b, c, d in SequenceMatcher(None, piece_old, piece_new, autojunk=False).get_opcodes():
                yield tag, start_old + a, start_old + b, start_new + c, start_new + d
        start_old, start_new = stop_old, stop_new


def _anchors(old: list[str], new: list[str]) -> list[tuple[int, int]]:
    """The positions of lines that occur once in each text, in the same order in both (patience diff)."""
    counts_old, counts_new = Counter(old), Counter(new)
    places = {line: at for at, line in enumerate(new) if counts_new[line] == 1}
    ends: list[int] = []
    chains: list[_Chain] = []
    for at, line in enumerate(old):
        if counts_old[line] == 1 and line in places:
            length = bisect_left(ends, places[line])
            ends[length : length + 1] = [places[line]]
            chains[length : length + 1] = [(at, places[line], chains[length - 1] if length else None)]
    found: list[tuple[int, int]] = []
    chain = chains[-1] if chains else None
    while chain:
        found.append(chain[:2])
        chain = chain[2]
    return found[::-1]


def _folded(rows: list[DiffRow]) -> list[DiffRow]:
    near = [False] * len(rows)
    for at, row in enumerate(rows):
        if row.op != "same":
            for close in range(max(0, at - CONTEXT), min(len(rows), at + CONTEXT + 1)):
                near[close] = True
    folded: list[DiffRow] = []
    skipped = 0
    for row, keep in zip(rows, near, strict=True):
        if not keep:
            skipped += 1
            continue
        if skipped:
            folded.append(_gap(skipped))
            skipped = 0
        folded.append(row)
    return [*folded, _gap(skipped)] if skipped else folded


def _gap(lines: int) -> DiffRow:
    return DiffRow("gap", 0, 0, f"{lines} unchanged line{'' if lines == 1 else 's'}")

"""Find subscriptions on which two policies can differ although they agree on every single topic.

A subscription is granted where the allow rules cover all of its filter, those behind a deny rule too, at the lowest QoS
among them. So an allow rule whose topics an earlier rule denies still counts: with it a wider filter is granted, with
exceptions, or at a lower QoS. No other change can flip a subscription without flipping a topic in it.

Allow filters cover a filter length by length, each length by one of them. So of the filters within the changed one it
is enough to ask for that one itself; and beyond it lie only those that end with ``#`` and reach it by a ``+`` at its
end, narrowed to what the allow filters have at the same levels. A lowered QoS shows at any filter that meets the dead
rule: the allow filters, what pairs of them share, and each length of theirs are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from acl.policy.engine.topics import HASH, MAX_LEVELS, PLUS, Levels, intersect

MAX_ASKED = 256
"""Filters tried for one identity and one changed filter."""


def below(levels: Sequence[object]) -> int:
    """The number of levels of a filter without its trailing wildcards."""
    end = len(levels)
    while end and levels[end - 1] in (PLUS, HASH):
        end -= 1
    return end


def asked(changed: Levels, allows: Iterable[Levels], *, limited: bool) -> tuple[list[Levels], bool]:
    """The filters on which a subscription may differ; true when those are all.

    ``allows`` are the filters of the allow rules of both policies; with ``limited`` the changed rule grants less than
    QoS 2, and then every filter that meets it may flip.
    """
    others = list(dict.fromkeys(allows))
    found: dict[Levels, None] = {changed: None}
    prefix = changed[:-1] if changed[-1] == HASH else changed
    for length in range(len(prefix), below(changed) - 1, -1):
        starts = {prefix[:length]: None}
        for other in others:
            start = _start(other, length)
            if start is not None:
                for one in list(starts):
                    both = intersect(one, start) if length else one
                    if both is not None:
                        starts[both] = None
            if len(starts) > MAX_ASKED:
                return list(found), False
        found |= dict.fromkeys((*start, HASH) for start in starts if len(start) < MAX_LEVELS)
    if limited:
        met = [other for other in others if intersect(other, changed) is not None]
        for one in met:
            shared = [intersect(one, other) for other in (*found, *others)]
            found |= dict.fromkeys([one, *(each for each in shared if each is not None)])
            deepest = max(map(len, others)) + 1
            if one[-1] == HASH:
                found |= {
                    (*one[:-1], *[PLUS] * more): None for more in range(deepest - len(one) + 2) if one[:-1] or more
                }
            if len(found) > MAX_ASKED:
                break
    return list(found)[:MAX_ASKED], len(found) <= MAX_ASKED


def _start(levels: Levels, length: int) -> Levels | None:
    """The first ``length`` levels of a filter that matches topics of that length or more."""
    if levels[-1] == HASH:
        levels = (*levels[:-1], *[PLUS] * max(0, length - len(levels) + 1))
    return levels[:length] if len(levels) >= length else None

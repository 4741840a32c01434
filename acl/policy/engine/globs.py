"""Globs over usernames, client IDs and claim values: ``*`` matches any run of characters, all else only itself."""

from __future__ import annotations

from collections.abc import Iterable

from acl.policy.engine.model import Identity, Who


def matches(glob: str, text: str) -> bool:
    """Whether ``glob`` matches all of ``text``.

    Taking each piece at its leftmost place is enough, so there is no backtracking and no hostile glob.
    """
    if "*" not in glob:
        return glob == text
    head, *middle, tail = glob.split("*")
    if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether one of ``globs`` matches ``text``."""
    return any(matches(glob, text) for glob in globs)


def covers(outer: str, inner: str) -> bool:
    """Whether ``outer`` matches everything that ``inner`` matches.

    A ``*`` of ``inner`` stands for a character that ``outer`` can only take with a ``*`` of its own, so it is
    enough to match ``inner`` as a text in which ``*`` is such a character. Exact over an unbounded alphabet.
    """
    return matches(outer, inner.replace("*", "\0"))


def admits(who: Who, identity: Identity) -> bool:
    """Whether ``who`` matches ``identity``. A missing claim matches nothing, a list matches by any element."""
    return (
        matches_any(who.username, identity.username)
        and matches_any(who.client_id, identity.client_id)
        and all(any(matches_any(globs, text) for text in identity.claim(name)) for name, globs in who.claims)
    )


def who_covers(outer: Who, inner: Who) -> bool:
    """Whether ``outer`` matches every identity that ``inner`` matches, glob by glob (sound; globs are not merged)."""
    inner_claims = dict(inner.claims)
    return (
        _all_covered(outer.username, inner.username)
        and _all_covered(outer.client_id, inner.client_id)
        and all(name in inner_claims and _all_covered(globs, inner_claims[name]) for name, globs in outer.claims)
    )


def _all_covered(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    return all(any(covers(glob, narrow) for glob in outer) for narrow in inner)

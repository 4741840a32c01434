"""Topic names and topic filters as tuples of levels, and the small algebra over them.

A filter is a tuple of levels: a literal, ``+`` (one level), ``#`` (this level and all below, last only), or ``ANY``
(the first level, ``$`` topics included: what an unresolvable variable of a deny rule stands for there). Matching is
MQTT 5 s4.7.

The alphabet of topic levels is unbounded, which makes the algebra easy: a topic whose wildcard levels are filled with
texts that no filter names (``FRESH``) is matched only by filters that have a wildcard there, so what matches it
matches every topic of the same length under the same filter. Coverage by a union is therefore decided by one topic
per length, up to one level below the deepest filter. There is no empty topic: ``/#`` begins with ``/+``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MAX_BYTES = 65_535
MAX_LEVELS = 128
PLUS = "+"
HASH = "#"
ANY = "\0any"
FRESH = "\0fresh"
SHARE = "$share"

Levels = tuple[str, ...]

_PLANE_ENDS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_CONTROL = bytes(range(0x20)) + b"\x7f"
LONG = 256
"""Characters from which on a text is long: its bytes are looked through faster, and it is not split or hashed whole."""

_UNFIT = re.compile(f"[\x01-\x1f\x7f-\x9f\ufdd0-\ufdef{_PLANE_ENDS}]")


def topic_problem(topic: str) -> str | None:
    """Why ``topic`` is not a topic name that can be published to (MQTT 5 s4.7.3), or ``None``."""
    if PLUS in topic or HASH in topic:
        return "a topic name cannot contain the wildcards + and #"
    return text_problem(topic, "topic") or _unfit_problem(topic, "topic")


def filter_problem(topic_filter: str) -> str | None:
    """Why ``topic_filter`` is not a topic filter (MQTT 5 s4.7.1), or ``None``."""
    return shape_problem(topic_filter) or _unfit_problem(topic_filter, "topic filter")


def shape_problem(topic_filter: str) -> str | None:
    """Why ``topic_filter`` is not a topic filter, whatever its characters, or ``None``.

    Enough for the filter of a rule: one with a character that no client may send takes no topic.
    """
    hashes = topic_filter.count(HASH)
    if hashes and (hashes > 1 or not (topic_filter == HASH or topic_filter.endswith("/#"))):
        return "# must be a whole level and the last one"
    if PLUS in topic_filter and topic_filter.count(PLUS) != topic_filter.split("/").count(PLUS):
        return "+ must be a whole level"
    return text_problem(topic_filter, "topic filter")


def text_problem(text: str, noun: str) -> str | None:
    """Why ``text`` cannot be a topic name or filter because of its length or characters, or ``None``."""
    if not text:
        return f"the {noun} is empty"
    if len(text) > MAX_BYTES:
        return f"the {noun} is longer than {MAX_BYTES} bytes"
    if "\0" in text:
        return f"the {noun} contains the character U+0000"
    return _depth_problem(text, noun, MAX_LEVELS) or (None if text.isascii() else _unicode_problem(text, noun))


def too_deep(action: str, topic: str, levels: int) -> str | None:
    """The reason for which the edge takes no ``topic`` of so many levels in a publish or subscribe, or ``None``.

    ``levels`` is the edge's own limit (``EDGE_TOPIC_LEVELS``): brokers have one each, and end sessions beyond it. A
    shared subscription is measured by its filter. A delivery is not: the message is at the broker already.
    """
    if topic.count("/") < levels or action == "receive":
        return None
    if action == "pub":
        return _depth_problem(topic, "topic", levels)
    asked, problem = unshared(topic)
    return None if problem else _depth_problem(asked, "topic filter", levels)


def _depth_problem(text: str, noun: str, levels: int) -> str | None:
    return f"the {noun} has more than {levels} levels" if text.count("/") >= levels else None


def _unicode_problem(text: str, noun: str) -> str | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"the {noun} is not well-formed Unicode"
    return f"the {noun} is longer than {MAX_BYTES} bytes" if size > MAX_BYTES else None


def unfit_character(text: str) -> str | None:
    """The first control character or non-character in ``text``, as ``U+0001``, or ``None``; NUL is not looked for.

    MQTT 5 s1.5.4 leaves it to the server whether it takes them. Mosquitto does not, so nobody behind the edge may send
    them: what a client may call itself must not hang on the broker.
    """
    if _printable_ascii(text):
        return None
    found = _UNFIT.search(text)
    return f"U+{ord(found[0]):04X}" if found else None


def _unfit_problem(text: str, noun: str) -> str | None:
    unfit = unfit_character(text)
    return f"the {noun} contains the character {unfit}" if unfit else None


def plain_topic(topic: str) -> bool:
    """A quick check that ``topic`` is a topic name but for its depth; it may return false for one that is."""
    if "+" in topic or "#" in topic or not topic:
        return False
    if len(topic) < LONG:
        return topic.isascii() and topic.isprintable()
    return len(topic) <= MAX_BYTES and _printable_ascii(topic)


def plain_text(text: str, levels: Sequence[str]) -> bool:
    """A quick check that ``text``, of these ``levels``, is valid; it may return false for a valid text."""
    return _printable_ascii(text) and len(levels) <= MAX_LEVELS and 0 < len(text) <= MAX_BYTES


def _printable_ascii(text: str) -> bool:
    """Whether ``text`` is ASCII without control characters. ``isprintable`` takes four times as long for a long one."""
    if not text.isascii():
        return False
    return text.isprintable() if len(text) < LONG else len(text.encode().translate(None, _CONTROL)) == len(text)


def unshared(topic_filter: str) -> tuple[str, str | None]:
    """The filter that a shared subscription ``$share/GROUP/F`` is checked as, and its problem if it has one.

    Anything else is returned as it is. Source: MQTT 5 s4.8.2.
    """
    if not topic_filter.startswith("$share/"):
        return topic_filter, None
    _, group, *rest = topic_filter.split("/", 2)
    if not group or PLUS in group or HASH in group or not rest or not rest[0]:
        return topic_filter, "a shared subscription reads $share/GROUP/FILTER"
    unfit = _unfit_problem(group, "group of the shared subscription")
    if unfit:
        return topic_filter, unfit
    if rest[0].startswith("$share/"):
        return topic_filter, "a shared subscription cannot be shared again"
    return rest[0], None


def split(text: str) -> Levels:
    """The levels of a topic or filter; empty levels count (MQTT 5 s4.7.1.1)."""
    return tuple(text.split("/"))


def shortened(topic: str, longest: int) -> tuple[str, list[str]]:
    """A stand-in for a long ``topic``, and its levels, to look up among texts of at most ``longest`` characters.

    Nobody names a longer level, so ``FRESH`` stands for it, and for the whole: hashing 64 KiB takes longer than all the
    rest of a decision. So does ``split``, which looks at each character; ``find`` skips to the next slash. What lies
    below ``MAX_LEVELS`` is one level.
    """
    levels: list[str] = []
    text, start, end = topic, 0, 0
    while end >= 0:
        end = topic.find("/", start) if len(levels) < MAX_LEVELS else -1
        stop = end if end >= 0 else len(topic)
        if stop - start <= longest:
            levels.append(topic[start:stop])
        else:
            text = FRESH
            levels.append("$" + FRESH if not start and is_hidden(topic) else FRESH)
        start = end + 1
    return text, levels


def join(levels: Sequence[str]) -> str:
    """The text of ``levels``; an ``ANY`` reads ``+``."""
    return "/".join(PLUS if level == ANY else level for level in levels)


def shortest(prefix: Sequence[str]) -> int:
    """The number of levels of the shortest topic that begins with ``prefix``. The empty text is not a topic."""
    return len(prefix) + (len(prefix) < 2 and not any(prefix))


def is_hidden(first: str) -> bool:
    """Whether a topic with this first level is outside the reach of a leading wildcard (MQTT 5 s4.7.2)."""
    return first.startswith("$")


def level_matches(pattern: str, level: str) -> bool:
    """Whether one level of a filter (not ``#``) matches one level of a topic, the ``$`` rule aside."""
    return pattern in (PLUS, ANY, level)


def matches(topic_filter: Levels, topic: Levels) -> bool:
    """Whether ``topic_filter`` matches ``topic``: ``a/#`` takes ``a`` too; ``+/x`` and ``#`` never take ``$...``."""
    if is_hidden(topic[0]) and topic_filter[0] in (PLUS, HASH):
        return False
    if topic_filter[-1] == HASH:
        prefix = topic_filter[:-1]
        return len(topic) >= len(prefix) and all(map(level_matches, prefix, topic))
    return len(topic) == len(topic_filter) and all(map(level_matches, topic_filter, topic))


def intersect(one: Levels, other: Levels) -> Levels | None:
    """The filter of the topics that both match, or ``None`` when there are none."""
    if {one[0], other[0]} & {PLUS, HASH} and (is_hidden(one[0]) or is_hidden(other[0])):
        return None
    met: list[str] = []
    for mine, yours in zip(one, other, strict=False):
        if HASH in (mine, yours):
            break
        both = _meet(mine, yours)
        if both is None:
            return None
        met.append(both)
    return _meet_tails(one, other, met)


def _meet(mine: str, yours: str) -> str | None:
    if yours in (mine, ANY):
        return mine
    if mine == ANY:
        return yours
    if mine == PLUS:
        return yours
    return mine if yours == PLUS else None


def _meet_tails(one: Levels, other: Levels, met: list[str]) -> Levels | None:
    """Finish an intersection: ``met`` is common, and at least one side is at its end or at its ``#``."""
    at = len(met)
    mine, yours = one[at:], other[at:]
    if not mine or not yours:
        return tuple(met) if shortest(met) == at and mine in ((), (HASH,)) and yours in ((), (HASH,)) else None
    rest = yours if mine[0] == HASH else mine
    if at == 0 and rest[0] == ANY:
        rest = (PLUS, *rest[1:])
    return (*met, *rest)


def covers(outer: Levels, inner: Levels) -> bool:
    """Whether the one filter ``outer`` matches every topic that ``inner`` matches; ``covered`` for just one."""
    if outer[0] in (PLUS, HASH) and (is_hidden(inner[0]) or inner[0] == ANY):
        return False
    if inner == (HASH,):
        inner = (PLUS, HASH)  # the same topics: there is none without a level
    elif inner == ("", HASH):
        inner = ("", PLUS, HASH)  # and none that is empty
    if outer[-1] == HASH:
        outer = outer[:-1]
        inner = inner[:-1] if inner[-1] == HASH else inner
        if len(inner) < len(outer):
            return False
    elif inner[-1] == HASH or len(inner) != len(outer):
        return False
    return all(wide in (PLUS, ANY, narrow) for wide, narrow in zip(outer, inner, strict=False))


def covered(inner: Levels, outers: Iterable[Levels]) -> bool:
    """Whether the union of ``outers`` matches every topic that ``inner`` matches. Exact; see the module's text."""
    outers = tuple(outers)
    return all(any(matches(outer, topic) for outer in outers) for topic in representatives(inner, outers))


def representatives(inner: Levels, outers: Iterable[Levels]) -> Iterable[Levels]:
    """Topics of ``inner``, one per length, that a union of ``outers`` must match to cover ``inner``."""
    prefix = inner[:-1] if inner[-1] == HASH else inner
    head = tuple(FRESH if level in (PLUS, ANY) else level for level in prefix)
    depth = max((len(outer) for outer in outers), default=0)
    longest = max(len(head), depth) + 1 if inner[-1] == HASH else len(head)
    for length in range(shortest(head), longest + 1):
        topic = head + (FRESH,) * (length - len(head))
        yield topic
        if prefix and prefix[0] == ANY:
            yield ("$" + FRESH, *topic[1:])

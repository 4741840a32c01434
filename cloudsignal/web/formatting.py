"""Format times, sizes, counts and topics for pages. Pure Python; ``static/js/app.js`` says the same in the browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_UNSEEN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that show nothing, or turn those around them: a topic with one reads as another."""
_TOPIC_PARTS = re.compile(
    rf"(?P<var>\{{[^{{}}/{_UNSEEN}]*\}})|(?P<wild>(?<![^/])[+#](?![^/]))|(?P<slash>/)|(?P<unseen>[{_UNSEEN}])"
    rf"|(?P<text>[^/{{+#{_UNSEEN}]+|.)",
    re.DOTALL,
)


def ago(moment: datetime, now: datetime) -> str:
    """The time between a moment and ``now`` in words: ``now``, ``42 s ago``, ``in 3 h``.

    What lies ahead is rounded to whole minutes, so that an hour just begun is ``in 1 h``.
    """
    seconds = round((now - moment).total_seconds())
    size = abs(seconds)
    if size < 5:
        return "now"
    if seconds < -59:
        size = round(size / 60) * 60
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "s"))
    amount = f"{size // unit} {name}"
    return f"in {amount}" if seconds < 0 else f"{amount} ago"


def exact(moment: datetime) -> str:
    """A moment in UTC, to the millisecond: ``2026-11-22 18:04:05.123 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d} UTC"


def duration(seconds: float) -> str:
    """A length of time: ``84 ms``, ``1.24 s``, ``3 min 5 s``, ``1 h``, ``2 d``."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)} ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    parts = []
    for unit, name in (*_UNITS, (1, "s")):
        amount, whole = divmod(whole, unit)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])


def size(count: int) -> str:
    """A number of bytes: ``812 B``, ``3.4 KB``, ``2 MB`` (1 KB is 1024 bytes)."""
    if count < 1024:
        return f"{count} B"
    for name in ("KB", "MB"):
        value = count / 1024 if name == "KB" else count / 1024**2
        if value < 1024 or name == "MB":
            return f"{value:.1f}".removesuffix(".0") + f" {name}"
    raise AssertionError


_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)  # fmt: skip


def browser(user_agent: str) -> str:
    """A browser as people call it: ``Firefox on Linux``; what is not known stays as it is, cut to 60 characters."""
    name = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    return f"{name} on {system}" if name and system else user_agent[:60] or "unknown"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 session``, ``2 sessions``, ``1,204 messages``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def actor(name: str) -> str:
    """An audit actor as text, without the prefix for people: ``ada@example.com``, ``key sk_...x7m4``."""
    kind, colon, rest = name.partition(":")
    if not colon or kind == "user":
        return rest or name
    return f"{kind} {rest}"


def topic_parts(topic: str) -> list[tuple[str, str]]:
    """A topic or filter in pieces ``(kind, text)`` with kind ``var``, ``wild``, ``slash``, ``unseen`` or ``text``.

    ``+`` and ``#`` are wildcards only as a whole level (MQTT 5 s4.7.1).
    """
    return [(match.lastgroup or "text", match.group()) for match in _TOPIC_PARTS.finditer(topic)]

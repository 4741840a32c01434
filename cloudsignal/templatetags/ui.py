"""Template tags and filters for pages: icons, badges, times, topics, form fields."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message
from django.forms import BoundField, CheckboxInput
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from cloudsignal.web import formatting

register = template.Library()

SHAPES: Mapping[str, str] = {
    "good": "ok",
    "bad": "bad",
    "warning": "warning",
    "neutral": "neutral",
    "pending": "pending",
}
"""The shape of each tone: color never tells a status alone."""


@register.simple_tag
@lru_cache(maxsize=512)  # a page draws some twenty, always the same
def icon(name: str, extra: str = "") -> SafeString:
    """One symbol of ``static/img/icons.svg``; decoration, so hidden from screen readers."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"/></svg>', extra, static("img/icons.svg"), name
    )


@register.simple_tag
def icons_url() -> str:
    """The URL of the icon sprite, for scripts that make icons."""
    return static("img/icons.svg")


@register.simple_tag
def badge(tone: str, word: str, shape: str = "") -> SafeString:
    """A status badge: word, shape and color."""
    return format_html('<span class="badge" data-tone="{}">{}{}</span>', tone, icon(shape or SHAPES[tone]), word)


@register.simple_tag
def ago(moment: datetime | None, missing: str = "never") -> SafeString:
    """A relative time with the exact one on hover; kept up to date by the browser."""
    if moment is None:
        return format_html('<span class="muted">{}</span>', missing)
    return format_html(
        '<relative-time class="nowrap"><time datetime="{}" title="{}">{}</time></relative-time>',
        moment.isoformat(),
        formatting.exact(moment),
        formatting.ago(moment, timezone.now()),
    )


@register.filter
def exact(moment: datetime | None) -> str:
    """A moment in UTC to the millisecond."""
    return formatting.exact(moment) if moment else ""


@register.filter
def clock(moment: datetime | None) -> SafeString:
    """The time of day with milliseconds, the full moment on hover: for lists where order matters."""
    if moment is None:
        return mark_safe("")
    day, _, rest = formatting.exact(moment).partition(" ")
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), f"{day} {rest}", rest[:12])


@register.filter
def duration(seconds: float | None) -> str:
    """A length of time in seconds, as words."""
    return "" if seconds is None else formatting.duration(float(seconds))


@register.filter
def bytesize(count: int) -> str:
    """A number of bytes, as words."""
    return formatting.size(count)


@register.filter
def browser(user_agent: str) -> str:
    """A browser by its user agent."""
    return formatting.browser(user_agent)


@register.filter
def counted(count: int, noun: str) -> str:
    """``{{ 3|counted:"session" }}`` -> ``3 sessions``; ``"policy,policies"`` names an irregular plural."""
    one, _, many = noun.partition(",")
    return formatting.plural(int(count), one, many)


@register.filter
def figure(count: int) -> str:
    """A whole number as people read it: ``60,000``."""
    return f"{count:,}"


@register.filter
def topic(text: str) -> SafeString:
    """A topic or filter with dimmed slashes, highlighted wildcards and variables, and named invisible characters."""
    parts = []
    for kind, part in formatting.topic_parts(text):
        match kind:
            case "slash":
                parts.append(mark_safe('<span class="dim">/</span><wbr>'))
            case "unseen":
                parts.append(format_html('<span class="unseen">{}</span>', f"U+{ord(part):04X}"))
            case "var" | "wild":
                parts.append(format_html('<span class="{}">{}</span>', kind, part))
            case _:
                parts.append(escape(part))
    return format_html('<span class="topic">{}</span>', mark_safe("".join(parts)))  # noqa: S308 - every part is escaped above


@register.filter
def mqttname(username: str) -> SafeString:
    """An MQTT username with its local part highlighted and ``@org`` dimmed."""
    local, at, org = username.partition("@")
    return format_html('<span class="id">{}<span class="dim">{}</span></span>', local, at + org)


@register.filter
def digest(text: str) -> SafeString:
    """``sha256:`` and the first twelve digits, the whole on hover."""
    return format_html('<span class="id nowrap" title="{}">{}</span>', text, text.removeprefix("sha256:")[:12])


@register.filter
def tone(message: Message) -> str:
    """The tone of a message of Django's framework."""
    return {"success": "good", "warning": "warning", "error": "bad"}.get(message.level_tag, "neutral")


@register.filter
def actor(name: str) -> str:
    """The actor of an audit event as text for people."""
    return formatting.actor(name)


@register.filter
def item(mapping: Mapping[str, Any], key: str) -> Any:
    """One value of a mapping; None when it has no such key."""
    return mapping.get(key)


@register.inclusion_tag("components/field.html")
def field(bound: BoundField, **extra: Any) -> dict[str, Any]:
    """A form field with label, hint, error and what was typed. ``bare`` drops the placeholder of a foreign form."""
    if extra.get("bare"):
        bound.field.widget.attrs.pop("placeholder", None)
    if bound.name == next((name for name in bound.form.fields if name in bound.form.errors), None):
        bound.field.widget.attrs["autofocus"] = True  # the first that is wrong, however far down it stands
    return {
        "field": bound,
        "checkbox": isinstance(bound.field.widget, CheckboxInput),
        "suffix": extra.get("suffix", ""),
        "optional": extra.get("optional", False),
    }


@register.simple_block_tag
def table(content: str, label: str = "", labelled_by: str = "") -> SafeString:
    """A list's table, which scrolls sideways by itself. Without a link or button in each row it needs a name
    (``label``, or the id of its heading), so that the keyboard reaches what lies out of sight."""
    region: SafeString | str = ""
    if label or labelled_by:
        name, value = ("aria-label", label) if label else ("aria-labelledby", labelled_by)
        region = format_html(' tabindex="0" role="region" {}="{}"', name, value)
    return format_html('<div class="scroll"{}><table class="table">{}</table></div>', region, content)


@register.simple_block_tag
def list_foot(
    content: str, *, newest_url: str = "", older_url: str = "", newest: str = "Newest", older: str = "Older"
) -> SafeString | str:
    """The foot of a list: links to its other pages, and in the block how many rows are shown."""
    first = format_html('<a href="{}">{}</a>', newest_url, newest) if newest_url else ""
    rest = format_html('<a href="{}" rel="next">{}</a>', older_url, older) if older_url else ""
    said = format_html("<span>{}</span>", content.strip()) if content.strip() else ""
    return format_html('<div class="list-foot">{}{}{}</div>', first, rest, said) if first or rest or said else ""

"""Present an audit event as a line of the list: words, tone and link. Pure but for the model's fields."""

from __future__ import annotations

import json
from dataclasses import dataclass

from audit.access import cursor_of
from audit.kinds import ACL_DENIED, KINDS, NO_RULE, Kind, Source, Tone
from audit.models import Event
from cloudsignal.web.formatting import actor

ACTION_WORDS = {
    "publish": "Publish",
    "subscribe": "Subscribe",
    "unsubscribe": "Unsubscribe",
    "receive": "Receive",
    "will": "Will",
}
SIMULATED = {"publish": "pub", "will": "pub", "subscribe": "sub", "receive": "receive"}
_UNKNOWN = Kind("", "", Source.EDGE, Tone.NEUTRAL, "")


@dataclass(frozen=True, slots=True)
class Line:
    """An event with what the list shows of it."""

    event: Event
    key: str
    kind: Kind
    shape: str
    fresh: bool = False

    @property
    def title(self) -> str:
        """The kind in words."""
        return self.kind.title or self.event.kind

    @property
    def change(self) -> bool:
        """Whether a person or key did this, not a client."""
        return self.kind.source is Source.CHANGE

    @property
    def actor(self) -> str:
        """The actor of a change."""
        return actor(self.event.actor)

    @property
    def action(self) -> str:
        """The client's action, as a word."""
        return ACTION_WORDS.get(self.event.action, self.event.action)

    @property
    def no_rule(self) -> bool:
        """Whether no rule decided: a verdict of its own."""
        return self.event.rule == NO_RULE

    @property
    def reason(self) -> str:
        """The reason in full: the column holds its first 64 characters, the details hold the rest."""
        whole = str(_mapping(self.event.details).get("reason", ""))
        return whole if whole.startswith(self.event.reason) else self.event.reason

    @property
    def rule(self) -> str:
        """The deciding rule; empty when there is none."""
        return "" if self.no_rule else self.event.rule

    @property
    def simulated_action(self) -> str:
        """The simulator's word for the action; empty when there is nothing to simulate: no topic, or not all of it."""
        whole = self.event.topic and "topic_bytes" not in _mapping(self.event.details)
        return SIMULATED.get(self.event.action, "") if whole else ""

    @property
    def qos(self) -> int:
        """The QoS, 0 where it has no meaning."""
        return max(self.event.qos, 0)


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an administrative change; None where it did not exist."""

    name: str
    before: str | None
    after: str | None


def changes(event: Event) -> list[Change]:
    """The fields that an administrative change altered, in order."""
    before, after = _mapping(event.before), _mapping(event.after)
    return [
        Change(name.replace("_", " "), _value(before, name), _value(after, name))
        for name in sorted({*before, *after}, key=str)
    ]


def details(event: Event) -> list[tuple[str, str]]:
    """Further facts of an event, as pairs of name and value."""
    return [(str(name).replace("_", " "), _text(value)) for name, value in sorted(_mapping(event.details).items())]


def _mapping(value: object) -> dict[str, object]:
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"value": value}


def _value(mapping: dict[str, object], name: str) -> str | None:
    return _text(mapping[name]) if name in mapping else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def line(event: Event, *, fresh: bool = False) -> Line:
    """The line of ``event``; of an unknown kind (written by a newer release) it shows the raw name."""
    kind = KINDS.get(event.kind, _UNKNOWN)
    shape = {Tone.GOOD: "ok", Tone.BAD: "bad", Tone.WARNING: "warning", Tone.NEUTRAL: "neutral"}[kind.tone]
    if event.kind == ACL_DENIED and event.rule == NO_RULE:
        shape = "none"
    return Line(event, cursor_of(event), kind, shape, fresh)

"""The five preset policies. Each is a document of its own under ``acl/presets``, with tests of its intent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from importlib import resources


@dataclass(frozen=True, slots=True)
class Preset:
    """A policy to start from: ``text`` is the document, ``name`` its stable key."""

    name: str
    title: str
    description: str
    text: str

    def starting(self, now: datetime) -> str:
        """The text with expiries set for ``now``: expiring rules end when the month after the next one begins."""
        months = now.year * 12 + now.month + 1
        end = f"{months // 12:04}-{months % 12 + 1:02}-01T00:00:00Z"
        return re.sub(r"(?m)^(    expires: ).*$", rf"\g<1>{end}", self.text)


_PRESETS = (
    (
        "notifications",
        "Notifications",
        "Each user reads an inbox of their own and the announcements; a backend writes them.",
    ),
    (
        "agent-pipelines",
        "Agent pipelines",
        "Agents own a card and a request box each and hand tasks along; an orchestrator oversees them.",
    ),
    (
        "chat-channels",
        "Chat channels",
        "Members write and read rooms, each under their own name; moderators reach everything but private rooms.",
    ),
    (
        "permit-all",
        "Permit all (prototyping)",
        "Every client may do everything inside the organization. Prototyping only: flagged, and it expires.",
    ),
    ("blank", "Blank", "No rules: every publish and subscribe is denied until you add one."),
)

PRESETS: tuple[Preset, ...] = tuple(
    Preset(name, title, description, (resources.files("acl") / "presets" / f"{name}.yaml").read_text("utf-8"))
    for name, title, description in _PRESETS
)


def preset(name: str) -> Preset | None:
    """The preset called ``name``, or ``None``."""
    return next((each for each in PRESETS if each.name == name), None)

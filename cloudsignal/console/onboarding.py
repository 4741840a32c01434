"""The onboarding steps of an organization, from a new one to an enforced policy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["done", "next", "later"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The onboarding progress of an organization."""

    issued: bool
    connected: bool
    drafted: bool
    simulated: bool
    deployed: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One onboarding step: what to do, why, and the page for it."""

    name: str
    title: str
    text: str
    url_name: str
    action: str
    state: State


_STEPS = (
    (
        "issued",
        "Issue a credential",
        "A username and a password for one client. It expires after an hour unless you choose otherwise.",
        "orgs:credential-new",
        "Issue a credential",
    ),
    (
        "connected",
        "Connect a client",
        "Any MQTT 3.1.1 or 5 client over TLS. It can sign in; everything else is denied until a rule allows it.",
        "orgs:settings",
        "View connection settings",
    ),
    (
        "drafted",
        "Choose a preset",
        "Start from rules for notifications, agent pipelines or chat, or write your own.",
        "acl:presets",
        "View presets",
    ),
    (
        "simulated",
        "Simulate",
        "Check on the draft what a client may do, before anything is enforced.",
        "acl:policy",
        "Open the simulator",
    ),
    (
        "deployed",
        "Deploy",
        "Every node enforces the new version and reports it within seconds.",
        "acl:review",
        "Review and deploy",
    ),
)


def steps(progress: Progress) -> list[Step]:
    """The five steps; the first that is not done is the next one."""
    found: list[Step] = []
    next_seen = False
    for name, title, text, url_name, action in _STEPS:
        state: State = "done" if getattr(progress, name) else "later" if next_seen else "next"
        next_seen = next_seen or state == "next"
        found.append(Step(name, title, text, url_name, action, state))
    return found

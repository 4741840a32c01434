"""The demo's data: two sample organizations on two presets, their people, and what each device does.

Every device does what its policy allows; some also try what it does not, so that the audit page has something to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Literal

OPERATOR = "operator@cloudsignal.example"


@dataclass(frozen=True, slots=True)
class Publish:
    """A device publishes to ``topic`` every ``every`` seconds. ``{n}`` counts up."""

    topic: str
    every: float
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A device subscribes at sign-in; with ``every``, again every so many seconds (what is refused is tried again)."""

    topic: str
    qos: int = 0
    every: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One MQTT client: its username, which version it speaks, its claims, and what it does."""

    username: str
    version: Literal["3.1.1", "5"]
    actions: tuple[Publish | Subscribe, ...]
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleOrganization:
    """A sample organization with its people, preset and devices."""

    slug: str
    name: str
    preset: str
    people: tuple[tuple[str, str], ...]
    """E-mail address and role."""
    devices: tuple[Device, ...]
    visitor: str
    """The MQTT username of the printed commands."""
    listen: str
    """A filter that the visitor may subscribe to, with traffic on it."""
    refused: str
    """A topic that the visitor may not publish to."""


NAMES = (
    "ada", "bela", "cleo", "dara", "emil", "fay", "gus", "hana", "ivo", "jun", "kai", "lena",
    "mira", "nils", "oda", "pia", "quin", "rosa", "sven", "tara", "ugo", "vera", "wim", "yara",
)  # fmt: skip


def _readers() -> tuple[Device, ...]:
    """People's phones: each reads its own inbox and confirms; every fifth tries somebody else's."""
    devices = []
    for number, (name, version) in enumerate(zip(NAMES, cycle(("5", "3.1.1")), strict=False)):
        neighbour = NAMES[(number + 1) % len(NAMES)]
        actions: list[Publish | Subscribe] = [
            Subscribe(f"inbox/{name}/#", qos=1),
            Subscribe("announcements/#"),
            Publish(f"receipts/{name}/{{n}}", every=11 + number % 7, qos=1),
        ]
        if number % 5 == 0:
            actions.append(Subscribe(f"inbox/{neighbour}/#", every=45))
        if number % 8 == 3:
            actions.append(Publish(f"inbox/{neighbour}/offer", every=30, qos=1))
        devices.append(Device(name, version, tuple(actions)))  # type: ignore[arg-type]
    return tuple(devices)


def _backends() -> tuple[Device, ...]:
    """The services that write notifications."""
    half = len(NAMES) // 2
    return (
        Device("backend-1", "5", (
            *(Publish(f"inbox/{name}/message", every=12, qos=1) for name in NAMES[:half]),
            Publish("announcements/news", every=8, retain=True),
            Subscribe("receipts/#"),
        )),
        Device("backend-2", "3.1.1", tuple(Publish(f"inbox/{name}/message", every=15, qos=1) for name in NAMES[half:])),
    )  # fmt: skip


PIPELINES = ("billing", "payroll", "support")


def _agents() -> tuple[Device, ...]:
    """Agents of three pipelines that ask each other for work; some write another's card or look into payroll."""
    devices = []
    versions = islice(cycle(("5", "5", "3.1.1")), 21)
    for number, version in enumerate(versions, start=1):
        name, other = f"agent-{number}", f"agent-{number % 21 + 1}"
        pipeline = PIPELINES[number % len(PIPELINES)]
        actions: list[Publish | Subscribe] = [
            Publish(f"agents/{name}/card", every=60, qos=1, retain=True),
            Subscribe("agents/+/card"),
            Subscribe(f"agents/{name}/requests/#", qos=1),
            Subscribe(f"agents/{name}/replies/#", qos=1),
            Subscribe(f"pipelines/{pipeline}/tasks/#"),
            Publish(f"agents/{other}/requests/{name}", every=14 + number % 5, qos=1),
            Publish(f"agents/{other}/replies/{name}", every=17 + number % 5),
            Publish(f"pipelines/{pipeline}/tasks/{{n}}", every=13),
        ]
        if number % 7 == 0:
            actions.append(Publish(f"agents/{other}/card", every=25, qos=1, retain=True))
        if number % 6 == 2:  # agents of the pipeline "support"
            actions.append(Publish("pipelines/payroll/tasks/{n}", every=40))
        if number % 10 == 5:
            actions.append(Subscribe(f"agents/{other}/requests/#", every=50))
        devices.append(Device(name, version, tuple(actions), {"pipeline": pipeline}))  # type: ignore[arg-type]
    orchestrator = (Subscribe("agents/#"), Publish("agents/agent-3/requests/orchestrator", every=10, qos=1))
    devices.append(Device("orchestrator", "5", orchestrator))
    return tuple(devices)


SAMPLES = (
    SampleOrganization(
        slug="northwind",
        name="Northwind Notifications",
        preset="notifications",
        people=(("owner@northwind.example", "owner"), ("auditor@northwind.example", "auditor")),
        devices=(*_backends(), *_readers()),
        visitor="visitor",
        listen="announcements/#",
        refused="announcements/mine",
    ),
    SampleOrganization(
        slug="helix",
        name="Helix Agents",
        preset="agent-pipelines",
        people=(("owner@helix.example", "owner"),),
        devices=_agents(),
        visitor="agent-visitor",
        listen="agents/+/card",
        refused="agents/agent-1/card",
    ),
)

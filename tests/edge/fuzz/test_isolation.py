"""Nothing crosses between organizations, whatever clients try; and the broker's own lock holds without the edge's."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from tests.edge.conformance.harness.client import Client
from tests.edge.conformance.harness.servers import Edge
from tests.edge.fuzz.isolation import POLICY, World, roam

SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
"""Set FUZZ_SEED to repeat a run."""


def run(main: Callable[[], Any]) -> Any:
    """Run a coroutine function on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


ROUND = 5_000
"""Trials with one set of organizations; then come new ones, or retained messages would make each trial dearer."""


def isolated(trials: int) -> None:
    done = delivered = wills = 0
    with Edge() as edge:
        for number in range(-(-trials // ROUND)):
            seed = SEED + number
            world: World = run(lambda seed=seed: roam(edge, trials=min(trials, ROUND), seed=seed))
            found = f"FUZZ_SEED={seed}: {len(world.violations)} violations: {world.violations[:3]}"
            assert not world.violations, f"{found} {edge.process.output()[-2000:]}"
            done, delivered, wills = done + world.trials, delivered + world.delivered, wills + world.wills
            edge.process.alive()
        criticals = [event for event in edge.events() if event.kind == "critical"]
    assert not criticals, f"FUZZ_SEED={SEED}: {criticals[:3]}"
    assert done >= trials
    assert delivered > trials / 4, f"FUZZ_SEED={SEED}: too few deliveries to prove anything: {delivered}"
    assert wills > trials / 100


def test_nothing_crosses_in_2000_trials() -> None:
    isolated(2_000)


@pytest.mark.soak
def test_nothing_crosses_in_100000_trials() -> None:
    isolated(100_000)


class Unmounted:
    """Two organizations on an edge without its mount, each trying to reach the other."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.names = [edge.org(POLICY).id for _ in range(2)]
        self.clients: list[tuple[str, str, Client]] = []
        """Own organization, the other one, client."""
        self.crossed: list[str] = []
        self.home = 0

    async def play(self) -> None:
        """Everybody subscribes to everything, publishes everywhere, and subscribes again for what is retained."""
        await self.sign_in()
        for own, other, client in self.clients:
            wide = ["#", "+/t/#", f"{other}/t/#", f"{other}/+/x", f"$share/g/{other}/t/#", "$share/g/#", "$SYS/#"]
            await client.subscribe(f"{own}/t/#", *wide)
        for own, other, client in self.clients:
            for topic in (f"{own}/t/x", f"{own}/t/y/z", f"{other}/t/x", f"{other}/s/x", "elsewhere/x"):
                for retain in (False, True):
                    await client.publish(topic, own.encode(), qos=1, retain=retain)
        for own, other, client in self.clients:
            await client.subscribe(f"{own}/t/#", f"{other}/t/#")
            await client.ping()
            for message in client.messages:
                if message.payload.decode() == own and message.topic.startswith(own):
                    self.home += 1
                else:
                    self.crossed.append(f"{own} got {message.payload!r} on {message.topic}")
            await client.drop()

    async def sign_in(self) -> None:
        """One client of each protocol version in each organization."""
        for own, other in (self.names, self.names[::-1]):
            username, password = self.edge.user(self.edge.tenants[own])
            for version in (4, 5):
                client = Client(self.edge.endpoint("tls"), version, own)
                await client.open()
                assert (await client.connect(f"v{version}", username=username, password=password)).reason == 0
                self.clients.append((own, other, client))


def crossings(acl: str | None) -> Unmounted:
    """Play :class:`Unmounted` with this ACL at the broker; ``None`` is the one CloudSignal generates."""
    with Edge(module="tests.edge.fuzz.unmounted", acl=acl) as edge:
        played = Unmounted(edge)
        run(played.play)
    return played


def test_without_the_mount_the_brokers_lock_holds() -> None:
    played = crossings(None)
    assert not played.crossed, played.crossed[:3]
    assert played.home >= 16


def test_without_the_mount_and_the_lock_messages_do_cross() -> None:
    """The control: the test above can fail."""
    assert crossings("pattern readwrite #\n").crossed

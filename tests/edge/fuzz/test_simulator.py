"""The simulator tells the truth: what it says of a request is what a real client meets, by the same rule."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
import uvloop

from tests.edge.conformance.harness.servers import Edge
from tests.edge.fuzz.verdicts import Comparison, compare, gather_events

SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
"""Set FUZZ_SEED to repeat a run."""


def agree(cases: int, levels: int = 128) -> None:
    with (
        Edge(env={"EDGE_TOPIC_LEVELS": str(levels)}) as edge,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found: Comparison = runner.run(compare(edge, cases=cases, seed=SEED, levels=levels))
        found.settle(gather_events(edge, found))
    assert not found.differences, f"FUZZ_SEED={SEED}: {len(found.differences)}: {found.differences[:4]}"
    assert found.cases >= cases
    assert cases / 10 < found.denied < found.cases - cases / 10, "both verdicts must occur"
    assert found.holes >= cases / 300, "subscriptions with holes must occur"


def test_simulator_and_wire_agree_in_300_cases() -> None:
    agree(300)


def test_simulator_and_wire_agree_where_the_edge_takes_two_levels() -> None:
    agree(150, levels=2)


@pytest.mark.soak
def test_simulator_and_wire_agree_in_5000_cases() -> None:
    agree(5_000)

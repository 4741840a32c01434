"""One suite, two servers: what MQTT 3.1.1 and MQTT 5 ask for holds on the bare broker and through the edge alike.

The bare broker is the oracle: ``test_same_outcome`` compares what every client received in the two runs of a case,
packet by packet. Where they may differ, the case says why (``differs``), and ``test_differences_are_few`` lists it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from tests.edge.conformance.harness.places import PLACES
from tests.edge.conformance.harness.servers import Bare, Edge
from tests.edge.conformance.harness.stage import CASES, Outcome, Run, play_all

pytestmark = pytest.mark.timeout(400)
"""The first test plays all runs: half a minute on an idle machine of two cores, several on one that is not."""

MALFORMED = 0x81

RUNS = [Run(target, *place) for target in ("bare", "edge") for place in PLACES]  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[Run, Outcome]]:
    """Plays every run that a selected test asks about, all of them at once."""
    wanted: dict[Run, None] = {}
    for item in request.session.items:
        for run in (getattr(item, "callspec", None) and item.callspec.params.get("runs", ())) or ():  # type: ignore[attr-defined]
            wanted[run] = None
    targets = {run.target for run in wanted}
    with Bare() as bare, Edge() if "edge" in targets else nullcontext(bare) as edge:
        played = play_all(wanted, bare, edge)
        if isinstance(edge, Edge):
            edge.process.alive()
        yield played


def section(run: Run) -> str:
    """The section of the specification, for a test's name."""
    return f"s{CASES[run.case].section}"


@pytest.mark.parametrize("runs", [(run,) for run in RUNS], ids=lambda runs: f"{runs[0]}-{section(runs[0])}")
def test_specification(runs: tuple[Run], outcomes: dict[Run, Outcome]) -> None:
    """The case's own assertions, written from the specification."""
    if outcomes[runs[0]].error:
        pytest.fail(f"section {CASES[runs[0].case].section}\n{outcomes[runs[0]].error}", pytrace=False)


@pytest.mark.parametrize(
    "runs",
    [(Run("bare", *place), Run("edge", *place)) for place in PLACES if not CASES[place[2]].differs],  # type: ignore[arg-type]
    ids=lambda runs: f"{str(runs[1])[5:]}-{section(runs[1])}",
)
def test_same_outcome(runs: tuple[Run, Run], outcomes: dict[Run, Outcome]) -> None:
    """Every client received the same through the edge as from the bare broker.

    One thing is not compared: the reason named to a client that broke the protocol. Mosquitto 2.0.11 mostly closes
    without a word or with a general code, the edge names the exact one; which is right, the cases assert.
    """
    bare, edge = ({label: _unreasoned(kinds) for label, kinds in outcomes[run].seen.items()} for run in runs)
    assert edge == bare


def _unreasoned(kinds: dict[str, list[Any]]) -> dict[str, list[Any]]:
    kept = {name: packets for name, packets in kinds.items() if name != "DISCONNECT"}
    answers = [packet for packet in kept.get("CONNACK", []) if packet[1] < MALFORMED]
    return {**kept, "CONNACK": answers}


def test_the_suite_is_as_large_as_promised() -> None:
    """At least 120 distinct cases, each with the section it is written from."""
    assert len(CASES) >= 120
    assert all(made.section and made.play.__doc__ for made in CASES.values())
    places = {(run.target, run.version, run.transport) for run in RUNS}
    assert len(places) == 8, "bare and edge, 3.1.1 and 5, TLS and WSS"
    for place in places:
        assert len({run.case for run in RUNS if (run.target, run.version, run.transport) == place}) >= 120, place


def test_differences_are_few() -> None:
    """What is not compared packet by packet stands here with its reason, and nowhere else."""
    listed = {name: made.differs for name, made in CASES.items() if made.differs}
    assert len(listed) <= len(CASES) // 4, listed

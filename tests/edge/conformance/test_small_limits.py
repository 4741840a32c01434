"""The suite once more, before a broker with small limits of its own: what the edge lets through must fit them."""

from __future__ import annotations

from tests.edge.conformance.harness.places import PLACES
from tests.edge.conformance.harness.servers import Bare, Edge
from tests.edge.conformance.harness.stage import Run, play_all

LEVELS = 62
SMALL = (
    "max_inflight_messages 20",
    "max_queued_messages 600",  # the largest burst of a case is 500
    "max_queued_bytes 600000",
    f"max_packet_size {262_144 + 64}",  # what the organization is granted, mounted
)
RUNS = [Run("edge", *place) for place in PLACES if place[1] == "tls"]


def test_the_suite_holds_before_a_broker_with_small_limits() -> None:
    env = {"EDGE_TOPIC_LEVELS": str(LEVELS)}
    with Bare() as bare, Edge(env=env, upstream_extra=SMALL) as edge:
        outcomes = play_all(RUNS, bare, edge)
        edge.process.alive()
        events = edge.events()
    failed = {str(run): outcome.error.splitlines()[-1] for run, outcome in outcomes.items() if outcome.error}
    assert failed == {}
    assert [event for event in events if event.kind in {"critical", "broker_refused"}] == []

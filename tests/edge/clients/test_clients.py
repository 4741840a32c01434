"""The table of docs/clients.md holds what client libraries do: a sample at every run, all of it in the long tests."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable

import pytest

from tests.edge.clients.behaviors import BEHAVIORS
from tests.edge.clients.driving import LIBRARIES, NODE, Client, Library
from tests.edge.clients.table import BEGIN, END, PAGE, versions
from tests.support.rig import Rig

QUICK = ("denied publish", "denied subscribe", "will", "retained", "resume")
"""Behaviors that are seen at once and kill nothing."""
PAHO = tuple(library for library in LIBRARIES if library.driver == "paho_driver.py")


def told() -> dict[str, dict[str, str]]:
    """What the page says, by library and behavior."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def test_the_page_tells_every_behavior_of_every_library_and_of_which_versions() -> None:
    assert {name: set(cells) for name, cells in told().items()} == {one.name: set(BEHAVIORS) for one in LIBRARIES}
    assert versions() in PAGE.read_text()
    assert json.loads((NODE / "package.json").read_text())["dependencies"]["mqtt"] in versions()
    assert importlib.metadata.version("gmqtt") in versions()


@pytest.mark.parametrize("library", PAHO, ids=lambda one: one.name)
@pytest.mark.parametrize("behavior", QUICK)
def test_paho_does_what_the_page_says(behavior: str, library: Library, rig: Rig) -> None:
    assert BEHAVIORS[behavior](library, rig) == told()[library.name][behavior]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.name)
def test_every_library_connects_and_gets_a_retained_message(library: Library, rig: Rig) -> None:
    assert BEHAVIORS["retained"](library, rig) == told()[library.name]["retained"]


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.name)
@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_library_does_what_the_page_says(behavior: str, library: Library, make_rig: Callable[..., Rig]) -> None:
    assert BEHAVIORS[behavior](library, make_rig()) == told()[library.name][behavior]


def test_a_username_with_what_the_aws_client_appends_is_told_as_malformed(rig: Rig) -> None:
    """awscrt appends ``?SDK=...`` unless metrics are switched off: docs/clients.md tells the way out."""
    org = rig.org()
    library = next(one for one in LIBRARIES if one.driver == "awscrt_driver.py")
    client = Client(library, rig, rig.plane.issue(org), metrics=True)
    answer = client.wait("refused", "connected")
    client.kill()
    assert answer is not None
    assert answer["event"] == "refused"

"""A connection that is closed is gone at once, not when the garbage collector comes by."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.parts import Issued, Watched, wait_for
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.wire import ClosedError, dial_websocket

CONNECTIONS = 120

OBJECTS = 10
"""Left to the collector by one connection, at most; a session in a circle with its halves is more than 100."""


def come_and_go(rig: Rig, issued: Issued, number: int) -> None:
    """One connection, and every way it may end in turn."""
    version = 4 if number % 2 else 5
    if number % 10 == 0:
        client = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
        client.connect(version=version, username=issued.username, password=issued.password)
    else:
        client = rig.client(issued, version=version, client_id=f"c{number % 7}")
    client.subscribe("a/b")
    client.publish("a/b", qos=1)
    if number % 3:
        client.disconnect()
    with suppress(ClosedError, OSError):
        client.close()


def test_closed_connections_leave_nothing_to_the_garbage_collector(workdir: Path) -> None:
    rig = build_rig(Path(tempfile.mkdtemp(dir=workdir)), edge=Watched, COLLECTOR="off")
    try:
        assert isinstance(rig.edge, Watched)
        edge = rig.edge
        issued = rig.plane.issue(rig.org())
        come_and_go(rig, issued, 1)
        before = len(edge.collections())
        wait_for(lambda: len(edge.collections()) > before, what="a collection")
        before = len(edge.collections())
        for number in range(CONNECTIONS):
            come_and_go(rig, issued, number)
        rest = len(edge.collections())
        wait_for(lambda: len(edge.collections()) > rest + 1, seconds=15, what="two more collections")
        found = sum(objects for objects, _ in edge.collections()[before:])
        assert found < OBJECTS * CONNECTIONS, f"{found / CONNECTIONS:.0f} objects remain of every connection"
    finally:
        stop_rig(rig)

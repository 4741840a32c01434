"""What the machine does to the edge: disks that refuse, clocks that jump, places that run out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudsignal.edge.floors import Floors
from cloudsignal.edge.store import BACKOFF, Store, UnavailableError
from tests.edge.conftest import Rig
from tests.edge.parts import wait_for

MakeRig = Callable[..., Rig]


def test_revisions_the_disk_did_not_take_are_kept_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "revisions"
    floors = Floors(path)
    floors.note("org_a", 7)
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        floors.save()
    path.rmdir()
    floors.save()
    assert Floors(path).get("org_a") == 7


def test_the_clock_of_the_edge_runs_on_when_the_disk_takes_no_revisions(rig: Rig) -> None:
    """Else nothing would expire any more, and nobody who fell silent be let go."""
    revisions = rig.edge.folder / "edge" / rig.edge.node / "revisions"
    rig.org()
    wait_for(revisions.exists, what="the file of revisions")
    kept = revisions.rename(revisions.with_suffix(".kept"))
    revisions.mkdir()
    try:
        org = rig.org()
        wait_for(lambda: "revisions" in rig.edge.log.read_text(), what="a word about it in the log")
        rig.client(rig.plane.issue(org), keep_alive=1).closed()
    finally:
        revisions.rmdir()
        kept.rename(revisions)
    wait_for(lambda: org in revisions.read_text(), what="what the disk had not taken")


def test_a_redis_that_refuses_the_password_is_not_left_with_open_connections(rig: Rig) -> None:
    async def knock() -> int:
        store = Store(rig.valkey.url.replace("redis://", "redis://:wrong@"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="redis is away"):
                await store.call(("PING",))
            await asyncio.sleep(BACKOFF * 1.5)
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(knock()) <= 0

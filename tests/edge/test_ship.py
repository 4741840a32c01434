"""The shipper on a real Valkey: whatever the disk does, what it holds leaves, and only what is safe is deleted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cloudsignal.edge.audit.events import make_event
from cloudsignal.edge.audit.framing import frame
from cloudsignal.edge.audit.journal import Journal, segments
from cloudsignal.edge.audit.shipper import ROTATE_BYTES, Shipper
from cloudsignal.edge.redis import Store, UnavailableError
from tests.support.parts import NODE_KEY
from tests.support.rig import Rig


def shipping(rig: Rig, journal: Journal, work: Callable[[Shipper], Awaitable[None]]) -> None:
    """Run ``work`` with a shipper of ``journal``."""

    async def run() -> None:
        stores = Store(rig.valkey.url), Store(rig.valkey.url)
        await work(Shipper(journal, *stores, "tested", NODE_KEY))
        for store in stores:
            await store.close()

    asyncio.run(run())


async def everything(shipper: Shipper) -> None:
    """Ship until there is nothing left, and delete what is safe."""
    while await shipper.ship():
        pass
    while shipper._sent:
        await shipper.confirm()


def test_a_full_disk_is_shipped_and_emptied_while_it_takes_nothing_new(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away until the disk was full. Only what is sent can be deleted: else it would stay full for good."""
    org = rig.plane.new_org()
    for name in ("before", "after a restart"):
        journal = Journal(tmp_path, node="n", incarnation=name)
        journal.record(make_event("connect", org=org, client_id=name))
        journal.flush()
    waiting = make_event("connect", org=org, client_id="in memory")
    journal.record(waiting)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        shipping(rig, journal, everything)
        assert {event.client_id for event in rig.plane.events(org=org)} == {"before", "after a restart"}
        assert [number for number, _ in segments(tmp_path)] == [journal.current]
    shipping(rig, journal, everything)
    assert len(rig.plane.events(org=org)) == 3


def test_room_that_comes_back_at_the_wrong_moment_costs_nothing(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two writes of one round: what the second one put behind the last event read is sent as well."""
    org = rig.plane.new_org()
    journal = Journal(tmp_path, node="n", incarnation="i")
    journal.record(make_event("connect", org=org, client_id="large", details={"text": "x" * ROTATE_BYTES}))
    write, answers = os.write, iter([OSError(28, "No space left on device")])

    def refuse_once(file: int, data: bytes) -> int:
        if error := next(answers, None):
            raise error
        return write(file, data)

    async def room_comes_back(shipper: Shipper) -> None:
        assert await shipper.ship()
        journal.record(make_event("connect", org=org, client_id="late"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse_once)
            await shipper.ship()
        await everything(shipper)

    shipping(rig, journal, room_comes_back)
    assert {event.client_id for event in rig.plane.events(org=org)} == {"large", "late"}
    assert not list(tmp_path.glob("*.damaged"))


def test_a_segment_that_cannot_be_read_to_its_end_is_set_aside_and_holds_nothing_up(rig: Rig, tmp_path: Path) -> None:
    org = rig.plane.new_org()
    spoilt = Journal(tmp_path, node="n", incarnation="1")
    spoilt.record(make_event("connect", org=org, client_id="readable"))
    spoilt.close()
    (_, path), *_ = segments(tmp_path)
    with path.open("ab") as file:
        file.write(frame(b"E", "nobody knows"))
    journal = Journal(tmp_path, node="n", incarnation="2")
    journal.record(make_event("connect", org=org, client_id="behind it"))
    shipping(rig, journal, everything)
    assert {event.client_id for event in rig.plane.events(org=org)} == {"readable", "behind it"}
    assert [left.name for left in tmp_path.glob("*.damaged")] == [path.with_suffix(".damaged").name]


def test_a_redis_without_memory_is_waited_out(rig: Rig, tmp_path: Path) -> None:
    """``noeviction``: when ingest was away for so long that the stream fills all it may, writing fails and says so."""
    org = rig.plane.new_org()
    journal = Journal(tmp_path, node="n", incarnation="i")
    for number in range(250):
        journal.record(make_event("connect", org=org, client_id=str(number)))

    async def until_there_is_room(shipper: Shipper) -> None:
        rig.plane.redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(UnavailableError, match="OOM"):
                await shipper.ship()
        finally:
            rig.plane.redis.config_set("maxmemory", 0)
        assert rig.plane.events(org=org) == []
        await everything(shipper)

    shipping(rig, journal, until_there_is_room)
    assert len(rig.plane.events(org=org)) == 250

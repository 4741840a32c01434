"""Places before CONNECT: few for one address and network, given in turn, taken away from who had their time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cloudsignal.edge.transport import admission as module
from cloudsignal.edge.transport.admission import PER_ADDRESS, PER_FAILING, PER_NETWORK, Admission, Place


def run(work: Callable[[Admission], Coroutine[Any, Any, None]], *, capacity: int = 100_000, failing: str = "") -> None:
    """Run ``work`` with the places of a process that can hold ``capacity`` sessions."""

    async def main() -> None:
        await work(Admission(lambda ip: ip == failing, capacity=capacity))

    asyncio.run(main())


async def settle() -> None:
    """Let everything that is due happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def knock(places: Admission, ip: str, times: int) -> list[asyncio.Task[Place | None]]:
    """So many connections from one address."""
    tasks = [asyncio.create_task(places.enter(ip)) for _ in range(times)]
    await settle()
    return tasks


def inside(tasks: list[asyncio.Task[Place | None]]) -> list[Place]:
    """Those that have a place."""
    return [place for task in tasks if task.done() and (place := task.result()) is not None]


async def leave(tasks: list[asyncio.Task[Place | None]]) -> None:
    """Cancel who waits."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_network_without_room_is_passed_over_as_one_however_many_of_its_addresses_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    has_room = Admission._room

    def counted(self: Admission, address: str, network: str) -> bool:
        asked.append(address)
        return has_room(self, address, network)

    async def work(places: Admission) -> None:
        crowd = [task for n in range(1, 501) for task in await knock(places, f"2001:db8::{n:x}", 1)]
        assert len(inside(crowd)) == PER_NETWORK
        other = await knock(places, "192.0.2.1", 1)
        asked.clear()
        inside(other)[0].leave()
        assert len(asked) < 10
        await leave(crowd)

    monkeypatch.setattr(Admission, "_room", counted)
    run(work)


@pytest.mark.parametrize(
    ("ips", "most"),
    [
        (["192.0.2.1"], PER_ADDRESS),
        (["192.0.2.1", "::ffff:192.0.2.1"], PER_ADDRESS),
        ([f"192.0.2.{n}" for n in range(9)], PER_NETWORK),
        ([f"2001:db8::{n}" for n in range(9)], PER_NETWORK),
        (["192.0.2.1", "192.0.3.1"], 2 * PER_ADDRESS),
        (["2001:db8:0:1::1", "2001:db8:0:2::1"], 2 * PER_ADDRESS),
    ],
)
def test_one_address_and_one_network_have_so_many_places(ips: list[str], most: int) -> None:
    async def work(places: Admission) -> None:
        tasks = [task for ip in ips for task in await knock(places, ip, 100)]
        assert len(inside(tasks)) == most
        other = await knock(places, "198.51.100.1", 1)
        assert inside(other)
        await leave(tasks)

    run(work)


def test_an_address_that_fails_to_sign_in_has_few_places() -> None:
    async def work(places: Admission) -> None:
        tasks = await knock(places, "192.0.2.1", 100)
        assert len(inside(tasks)) == PER_FAILING
        assert len(inside(await knock(places, "192.0.2.2", 50))) == 50
        await leave(tasks)

    run(work, failing="192.0.2.1")


def test_who_waits_is_served_by_turns_of_networks_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)

    async def work(places: Admission) -> None:
        (first,) = inside(await knock(places, "203.0.113.1", 1))
        queues = {ip: await knock(places, ip, 3) for ip in ("192.0.2.1", "192.0.2.2", "198.51.100.1")}
        order = []
        holder = first
        for _ in range(9):
            holder.leave()
            holder.leave()  # saying so twice does no harm
            await settle()
            (ip,) = (ip for ip, tasks in queues.items() if any(task.done() for task in tasks))
            done = next(task for task in queues[ip] if task.done())
            queues[ip].remove(done)
            order.append(ip[-1] if ip.startswith("192") else "o")
            (holder,) = inside([done])
        assert "".join(order) == "1o2o1o212"

    run(work)


def test_no_more_wait_than_there_is_room_for_and_a_new_address_still_gets_in_line() -> None:
    async def work(places: Admission) -> None:
        loud = await knock(places, "192.0.2.1", 300)
        assert len(inside(loud)) == PER_ADDRESS
        waits = [task for task in loud if not task.done()]
        assert len(waits) == 100  # an eighth of what the process can hold
        others = [task for n in range(1, 4) for task in await knock(places, f"192.0.2.{n + 1}", 200)]
        assert places.waiting == 200  # a quarter of it
        late = await knock(places, "198.51.100.1", 1)
        assert inside(late), "another network has places left"
        near = await knock(places, "192.0.2.77", 1)
        assert not near[0].done(), "it waits in the place of one of the longest queue"
        assert places.waiting == 200
        await leave([*loud, *others, *near])

    run(work, capacity=800)


def test_a_place_is_taken_away_after_its_time_when_somebody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)

    async def work(places: Admission) -> None:
        held = inside(await knock(places, "192.0.2.1", PER_ADDRESS))
        away = inside(await knock(places, "198.51.100.1", 5))
        given_up: list[Place] = []
        for place in held + away:
            place.give_up = lambda place=place: (given_up.append(place), place.leave())  # type: ignore[misc]
        await asyncio.sleep(0.15)
        assert given_up == [], "nobody waits"
        waits = await knock(places, "192.0.2.1", 3)
        await asyncio.sleep(0.1)
        assert len(inside(waits)) == 3
        assert given_up == held[:3], "the oldest of this address, as many as wait"

    run(work)


def test_who_goes_while_waiting_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)

    async def work(places: Admission) -> None:
        (holder,) = inside(await knock(places, "192.0.2.1", 1))
        waits = await knock(places, "192.0.2.1", 3)
        waits[0].cancel()
        holder.leave()
        waits[1].cancel()  # its turn has come, and it does not know yet
        await settle()
        assert len(inside(waits[2:])) == 1
        assert places.waiting == 0
        inside(waits[2:])[0].leave()
        assert inside(await knock(places, "192.0.2.1", 1))

    run(work)

"""The nodes of the broker: names resolved, each its turn, and those that failed last for a while."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from types import SimpleNamespace
from typing import Any, ParamSpec

import pytest

from cloudsignal.config import BROKERS_MAX, Address, Upstream
from cloudsignal.edge.broker import pool as pools
from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool, NoBrokerError, Reached

ANSWERS: dict[str, list[str] | Exception] = {}


Arguments = ParamSpec("Arguments")


def in_a_loop(test: Callable[Arguments, Coroutine[Any, Any, None]]) -> Callable[Arguments, None]:
    """A test that is a coroutine."""

    @wraps(test)
    def run(*args: Arguments.args, **options: Arguments.kwargs) -> None:
        asyncio.run(test(*args, **options))

    return run


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | Exception]:
    """The name service, which is outside the machine: what it answers for each name."""

    async def getaddrinfo(self: object, host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        answer = ANSWERS[host]
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    ANSWERS.clear()
    return ANSWERS


def pool(*hosts: str) -> BrokerPool:
    return BrokerPool(Upstream(hosts=tuple(Address(host, 8883) for host in hosts)))


async def known(*hosts: str) -> tuple[BrokerPool, list[BrokerNode]]:
    made = pool(*hosts)
    return made, await made.nodes()


@in_a_loop
async def test_a_name_stands_for_each_of_its_addresses_and_nodes_say_which_they_are() -> None:
    ANSWERS["b.example"] = ["10.0.0.2", "10.0.0.1"]
    made, nodes = await known("b.example", "10.0.0.9", "::1")
    assert [node.label for node in nodes] == [
        "b.example (10.0.0.1:8883)",
        "b.example (10.0.0.2:8883)",
        "10.0.0.9:8883",
        "[::1]:8883",
    ]
    assert {made.state(node).reached for node in nodes} == {Reached.UNKNOWN}
    assert [node.label for node in await BrokerPool(Upstream(path="/run/b.sock")).nodes()] == ["/run/b.sock"]


@in_a_loop
async def test_each_node_gets_its_turn() -> None:
    made, nodes = await known("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert Counter(made.choose()[0] for _ in range(30)) == dict.fromkeys(nodes, 10)
    assert all(set(made.choose()) == set(nodes) for _ in range(3))


@in_a_loop
async def test_a_node_to_avoid_comes_behind_those_that_are_well_and_before_those_that_are_not() -> None:
    made, (avoided, bad, good) = await known("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert made.well_beside(avoided)
    made.failed(bad, "refused")
    for _ in range(3):
        assert made.choose((avoided,)) == [good, avoided, bad]
    made.failed(good, "refused")
    assert not made.well_beside(avoided)
    assert made.well_beside(bad)


@in_a_loop
async def test_a_node_that_failed_comes_last_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    made, nodes = await known("10.0.0.1", "10.0.0.2", "10.0.0.3")
    bad = nodes[1]
    pauses = []
    for _ in range(8):
        made.failed(bad, "no answer within 1 s")
        made.failed(bad, "no answer within 1 s")  # another one had tried it at the same time
        assert all(made.choose()[-1] == bad for _ in range(6))
        begun = clock[0]
        while made.choose()[0] != bad:
            clock[0] += 0.05
        pauses.append(clock[0] - begun)
        assert all(made.choose()[-1] == bad for _ in range(6))  # one finds out for all
    assert [round(pause) for pause in pauses[-2:]] == pytest.approx([30, 30], abs=7)
    assert 0.7 < pauses[0] < 1.3 < pauses[1] < 2.5 < pauses[2]
    state = made.state(bad)
    assert (state.reached, state.why) == (Reached.UNREACHABLE, "no answer within 1 s")
    made.succeeded(bad)
    assert made.state(bad).reached is Reached.REACHABLE
    assert Counter(made.choose()[0] for _ in range(30)) == dict.fromkeys(nodes, 10)


@in_a_loop
async def test_a_node_that_probes_find_unreachable_costs_nobody_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    made, (bad, good) = await known("10.0.0.1", "10.0.0.2")
    for second in range(60):
        if second % 3 == 0:
            made.failed(bad, "refused")
        if second > 15:
            assert made.choose() == [good, bad]
        clock[0] += 1.0


@in_a_loop
async def test_when_every_node_failed_all_are_tried() -> None:
    made, nodes = await known("10.0.0.1", "10.0.0.2")
    for node in nodes:
        made.failed(node, "refused")
    assert {node: made.choose().count(node) for node in nodes} == dict.fromkeys(nodes, 1)


@in_a_loop
async def test_a_name_of_a_hundred_addresses_is_used_as_far_as_the_limit_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ANSWERS["many.example"] = [f"10.0.1.{number}" for number in range(100)]
    made, nodes = await known("many.example")
    assert len(nodes) == BROKERS_MAX == len(await made.nodes())
    said = [record.getMessage() for record in caplog.records if "100 addresses" in record.getMessage()]
    assert said == ["the broker's names resolve to 100 addresses; 32 of them are used"]


@in_a_loop
async def test_a_name_that_resolves_to_nothing_is_an_error_that_names_it_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "RESOLVE_AGAIN", 0.0)
    ANSWERS["none.example"] = socket.gaierror(-2, "Name or service not known")
    made = pool("none.example")
    with pytest.raises(NoBrokerError, match=r"none\.example cannot be resolved: .*Name or service not known"):
        await made.nodes()
    ANSWERS["none.example"] = ["10.0.0.1"]
    assert [node.ip for node in await made.nodes()] == ["10.0.0.1"]


@in_a_loop
async def test_the_last_good_answer_stays_when_a_name_resolves_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "RESOLVE_EVERY", 0.0)
    caplog.set_level(logging.WARNING)
    ANSWERS["b.example"] = ["10.0.0.1"]
    made, nodes = await known("b.example")
    ANSWERS["b.example"] = socket.gaierror(-3, "Temporary failure in name resolution")
    for _ in range(3):
        assert await made.nodes() == nodes
        await asyncio.sleep(0)
    assert "the addresses known before stay in use" in caplog.text
    monkeypatch.setattr(pools, "RESOLVE_AGAIN", 0.0)
    made._resolve_at.clear()
    ANSWERS["b.example"] = ["10.0.0.2"]
    while await made.nodes() == nodes:
        await asyncio.sleep(0)
    assert [node.ip for node in await made.nodes()] == ["10.0.0.2"]


@in_a_loop
async def test_a_name_that_is_never_answered_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "RESOLVE_WITHIN", 0.05)
    stuck = asyncio.Event()

    async def resolve(host: Address) -> list[str]:
        if host.host == "stuck.example":
            await stuck.wait()
        return ["10.0.0.1"]

    monkeypatch.setattr(pools, "_resolve", resolve)
    made, nodes = await known("stuck.example", "b.example")
    assert [node.host for node in nodes] == ["b.example"]
    alone = pool("stuck.example")
    with pytest.raises(NoBrokerError, match="no answer in time"):
        await alone.nodes()
    stuck.set()
    while len(await made.nodes()) < 2:
        await asyncio.sleep(0)


@in_a_loop
async def test_a_node_with_an_address_of_each_kind_counts_once() -> None:
    ANSWERS["both.example"] = ["10.0.0.1", "fd00::1"]
    made, nodes = await known("both.example")
    assert [node.ip for node in nodes] == ["10.0.0.1"]
    made.failed(nodes[0], "refused")
    assert [node.ip for node in await made.nodes()] == ["10.0.0.1", "fd00::1"]  # perhaps it listens on the other
    made.succeeded(nodes[0])
    made.failed(nodes[0], "refused")
    assert [node.ip for node in await made.nodes()] == ["10.0.0.1"]

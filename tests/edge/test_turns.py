"""A connection whose organization has others waiting for their turn: bounded as ever, and it goes on afterwards."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from cloudsignal.config import Upstream
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.codec import Connect, Kind, Publish
from cloudsignal.edge.session.context import Grant, Phase
from cloudsignal.edge.session.memo import LONGEST
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import REST_MAX, Organization
from cloudsignal.edge.transport import turns as turns_module
from cloudsignal.edge.transport.admission import Admission
from cloudsignal.edge.transport.connection import ANSWER_BACKLOG, Broker, Client
from cloudsignal.edge.transport.turns import READS, Turns
from cloudsignal.wire.bundle import Quotas
from tests.support.session_bench import ALL, ORG, Bench, active

NOTHING = "version: '3'\nrules: []"

OFFERED = 50_000
"""Messages a client offers without reading an answer, in all twenty times what may be answered."""


class Alone:
    """What connections ask of their process, for one organization; the broker is the other end of a socket."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.name = "n"
        self.upstream = Upstream()
        self.journal = Journal(folder, node="n", incarnation="i")
        self.turns = Turns()
        self.org = Organization(ORG, Mount.of(ORG), active(policy, quotas=Quotas(messages_per_minute=0)))
        self.broker_end, self._edge_end = socket.socketpair()
        self.broker_end.setblocking(False)

    def opened(self, client: Client) -> None:
        pass

    async def sign_in(self, client: Client) -> None:
        client.session.welcome(Grant(self.org, "dev", "c1", "tok", 0, {}))
        loop = asyncio.get_running_loop()
        _, client.broker = await loop.create_unix_connection(lambda: Broker(client), sock=self._edge_end)

    def signed_in(self, client: Client) -> None:
        pass

    def broker_lost(self, client: Client) -> None:
        pass

    def closed(self, client: Client, ip: str) -> None:
        pass

    def count(self, name: str, by: int = 1) -> None:
        pass

    async def client(self) -> tuple[Client, socket.socket]:
        """A live session of MQTT 5, and the client's end of its socket, which takes little at a time."""
        theirs, ours = socket.socketpair()
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        place = await Admission(lambda _: False, capacity=10).enter("127.0.0.1")
        assert place is not None
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(
            lambda: Client(self, Origin("127.0.0.1", 1, "mqtt"), place), sock=ours
        )
        theirs.send(codec.encode_connect(Connect(5, "c1", username="dev")))
        assert await some(self.broker_end)
        self.broker_end.send(codec.connack(5, 0))
        assert await some(theirs)
        assert client.session.phase is Phase.LIVE
        return client, theirs


async def some(end: socket.socket) -> bytes:
    """What arrives next."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(end, 1 << 20), 10)


async def offer(end: socket.socket, data: bytes) -> int:
    """Send for as long as the edge reads; returns how many bytes were taken."""
    taken = waited = 0
    while taken < len(data) and waited < 300:
        waited += 1
        with suppress(BlockingIOError):
            taken += end.send(data[taken : taken + 65_536])
            waited = 0
        await asyncio.sleep(0.001)
    return taken


@pytest.mark.parametrize("busy", [False, True])
def test_a_client_that_reads_no_answers_is_not_read_from_also_while_others_of_its_organization_wait(
    tmp_path: Path, busy: bool
) -> None:
    """Two connections of one organization, of which one keeps it busy, could fill the edge's memory with answers."""

    async def play() -> None:
        host = Alone(tmp_path, NOTHING)
        client, end = await host.client()

        def another() -> None:
            if busy:
                host.turns.wait(host.org, another)

        another()
        denied = codec.encode_publish(Publish(b"a", b"x" * 100, 1, packet_id=7), 5)
        taken = await offer(end, denied * OFFERED)
        assert taken < 4 * ANSWER_BACKLOG
        assert client.transport.get_write_buffer_size() < 16 * ANSWER_BACKLOG
        # Who reads again is read from again, and every message has its answer.
        answers, whole = b"", taken // len(denied)
        puback = codec.acknowledgement(Kind.PUBACK, 7, 5, 0x87, "the policy does not allow this publish")
        while len(answers) < whole * len(puback):
            answers += await some(end)
        assert answers == puback * whole
        assert await offer(end, (denied * 2)[taken % len(denied) :]) > 0
        assert await some(end)
        client.abort()

    uvloop.run(play())


def test_a_session_that_fails_in_its_turn_keeps_nobody_else_from_theirs() -> None:
    org, done = Organization(ORG, Mount.of(ORG), active(ALL)), []

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        turns = Turns()
        turns.wait(org, lambda: 1 // 0)
        turns.wait(org, lambda: done.append(1))
        for _ in range(3):
            await asyncio.sleep(0)

    uvloop.run(play())
    assert done == [1]


def test_a_connection_that_fails_in_its_turn_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused on both sides, it would be deaf until its keep-alive."""

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        host = Alone(tmp_path, ALL)
        client, end = await host.client()
        monkeypatch.setattr(type(client.session), "broker_received", lambda *_: 1 // 0)
        client.yield_turn()
        host.broker_end.send(b"\xd0\0")
        client.delivered(b"\xd0\0")
        for other in (end, host.broker_end):
            with suppress(ConnectionError):
                assert await some(other) == b""

    uvloop.run(play())


def test_an_organization_alone_never_waits_however_often_it_is_read_from() -> None:
    org, other = (Organization(name, Mount.of(name), active(ALL)) for name in ("one", "other"))

    async def play() -> None:
        turns = Turns()
        assert not any(turns.crowded_out(org) for _ in range(10 * READS))
        assert not turns.crowded_out(other)
        # Now another is about: the next reads in a row wait, until the other has had one.
        for _ in range(3):
            assert [turns.crowded_out(org) for _ in range(READS + 2)] == [False] * READS + [True] * 2
            assert not turns.crowded_out(other)

    uvloop.run(play())


@pytest.mark.parametrize("rests", [False, True])
def test_an_organization_that_waits_for_its_turn_is_about_however_long_it_waits(
    rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "ABOUT", 0.0)
    org, other = (Organization(name, Mount.of(name), active(ALL)) for name in ("one", "other"))

    async def play() -> None:
        turns = Turns()
        turns.crowded_out(other)
        if rests:
            other.rests_until = time.perf_counter() + 60.0
        else:
            monkeypatch.setattr(turns_module, "SLICE", 0.0)  # nobody's turn comes
        turns.wait(other, lambda: None)
        await asyncio.sleep(0)
        assert [turns.crowded_out(org) for _ in range(READS + 2)] == [False] * READS + [True] * 2

    uvloop.run(play())


def test_a_message_to_many_subscribers_lets_another_organization_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: how many of forty deliveries are through when another organization's has been read."""
    monkeypatch.setattr(turns_module, "ABOUT", 60.0)

    async def play() -> None:
        crowd, turns = Organization(ORG, Mount.of(ORG), active(ALL)), Turns()
        hosts = [Alone(tmp_path / str(number), ALL) for number in range(41)]
        for host in hosts:
            host.turns = turns
        for host in hosts[1:]:
            host.org = crowd
        clients = [await host.client() for host in hosts]
        single, subscribers = clients[0][0].session, [client.session for client, _ in clients[1:]]
        delivery = codec.encode_publish(Publish(f"{ORG}/t/a".encode(), b"x"), 5)
        before = single.messages_out
        for message in range(2):
            for host in hosts[1:]:
                host.broker_end.send(delivery)
            hosts[0].broker_end.send(delivery)
            while single.messages_out == before + message:
                await asyncio.sleep(0)
            through = sum(session.messages_out for session in subscribers) - message * len(subscribers)
            assert not message or through <= 3 * READS  # at the first message nobody else was about yet
            await wait_until(lambda: all(one.messages_out == message + 1 for one in subscribers))  # noqa: B023
        assert not any(client._queued or client._owed for client, _ in clients)
        mounted = codec.encode_publish(Publish(b"a", b"x"), 5)
        for client, end in clients:
            assert await some(end) == mounted * 2
            client.abort()

    uvloop.run(play())


def test_what_is_read_while_a_session_waits_is_kept_in_order_and_bounded(tmp_path: Path) -> None:
    """The first read that waits is not paused for; the second is."""

    async def play() -> None:
        host = Alone(tmp_path, ALL)
        client, end = await host.client()
        busy = True

        def another() -> None:
            if busy:
                host.turns.wait(host.org, another)

        another()
        packets = [codec.encode_publish(Publish(b"a", b"%d" % number * 60_000), 5) for number in range(9)]
        taken = await offer(end, b"".join(packets) * 20)
        assert len(client._late) <= taken < len(packets[0]) * 9 * 5
        busy = False
        expected = b"".join(codec.encode_publish(Publish(f"{ORG}/t/a".encode(), p[-60_000:]), 5) for p in packets)
        arrived = b""
        while len(arrived) < len(expected):
            arrived += await some(host.broker_end)
        assert arrived[: len(expected)] == expected
        client.abort()

    uvloop.run(play())


def test_an_organization_that_rests_gets_its_turn_later_and_keeps_nobody_else_waiting() -> None:
    order: list[str] = []
    resting, other = (Organization(name, Mount.of(name), active(ALL)) for name in ("resting", "other"))

    async def play() -> None:
        turns = Turns()

        def go_on(org: Organization, left: int) -> None:
            order.append(org.id)
            if org is resting:
                org.rest(65_000)
            if left:
                turns.wait(org, lambda: go_on(org, left - 1))

        for org in (resting, other):
            turns.wait(org, lambda org=org: go_on(org, 3))  # type: ignore[misc]
        await wait_until(lambda: len(order) == 8)

    uvloop.run(play())
    assert order == ["resting", *["other"] * 4, *["resting"] * 3]


def test_only_a_long_topic_that_goes_to_the_broker_makes_its_organization_rest() -> None:
    short, long = "a" * LONGEST, "a" * 60_000
    denying = Bench(5, policy="version: '3'\nrules: [{id: some, topic: 'b/#'}]")
    for bench, topic, rests in ((Bench(4), short[:-99], False), (denying, long, False), (Bench(4), long, True)):
        bench.publish(topic)
        assert bool(bench.org.rests_until) is rests
    bench.publish(long)
    for _ in range(100):
        bench.publish(long)
    assert bench.org.rests_until <= time.perf_counter() + REST_MAX


async def wait_until(done: Callable[[], bool]) -> None:
    """Let the loop run until something holds, ten seconds at most."""
    for _ in range(10_000):
        if done():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came about")

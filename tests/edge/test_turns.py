"""A connection whose organization has others waiting for their turn: bounded as ever, and it goes on afterwards."""

from __future__ import annotations

import asyncio
import socket
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
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.transport.admission import Admission
from cloudsignal.edge.transport.connection import ANSWER_BACKLOG, Broker, Client
from cloudsignal.edge.transport.turns import Turns
from cloudsignal.wire.bundle import Quotas
from tests.support.session_bench import ALL, ORG, active

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

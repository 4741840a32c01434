"""A case of the conformance suite, the stage it plays on, and the runner that plays many at once.

A case is written once, from the specification. It is played against the bare broker and through the edge, in each
protocol version it applies to, over TLS and over WSS; every run has topics, client ids and (at the edge) an
organization of its own, so that hundreds of runs share one event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client, Closed, Transport, Version
from tests.edge.conformance.harness.packets import Packet
from tests.edge.conformance.harness.servers import Bare, Edge, Server, Tenant

AT_ONCE = 48
"""Runs played at the same time."""

BOTH: tuple[Version, ...] = (4, 5)
V3: tuple[Version, ...] = (4,)
V5: tuple[Version, ...] = (5,)


@dataclass(frozen=True, slots=True)
class Case:
    """One case: what is played, where the specification says so, and what may differ."""

    name: str
    section: str
    play: Callable[[Stage], Awaitable[None]]
    versions: tuple[Version, ...]
    alone: bool
    """Subscribes to everything, so it needs a bare broker of its own."""
    differs: str
    """Why the edge may answer otherwise than the bare broker: a rule of the edge, or a fault of the broker."""


CASES: dict[str, Case] = {}


def case(
    section: str, *, versions: tuple[Version, ...] = BOTH, alone: bool = False, differs: str = ""
) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[Stage], Awaitable[None]]]:
    """Register a case. ``section`` is that of both specifications unless ``versions`` names one."""

    def register(play: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
        name = play.__name__
        if name in CASES:
            raise ValueError(f"case {name!r} is written twice")
        CASES[name] = Case(name, section, play, versions, alone, differs)
        return play

    return register


@dataclass(frozen=True, slots=True)
class Run:
    """One case in one place."""

    target: str
    """``bare`` or ``edge``."""
    version: Version
    transport: Transport
    case: str

    def __str__(self) -> str:
        return f"{self.target}-{'3.1.1' if self.version == 4 else '5'}-{self.transport}-{self.case}"


@dataclass(slots=True)
class Outcome:
    """How a run went."""

    error: str = ""
    seen: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """Client label -> packet name -> what was received, in order, free of names that differ from run to run."""


_numbers = itertools.count(1)


class Stage:
    """What a case has at hand."""

    def __init__(self, server: Server, version: Version, transport: Transport) -> None:
        self.server = server
        self.version = version
        self.transport = transport
        self.number = next(_numbers)
        self.clients: list[Client] = []
        self.tenant: Tenant | None = None
        self._login: tuple[str, str] = ("u", "secret")
        if isinstance(server, Edge):
            self.tenant = server.org()
            self._login = server.user(self.tenant)

    @property
    def edge(self) -> bool:
        """Whether this run goes through the edge."""
        return self.server.edge

    @property
    def five(self) -> bool:
        """Whether this run speaks MQTT 5."""
        return self.version == 5

    def topic(self, name: str = "t") -> str:
        """A topic of this run alone."""
        return f"r{self.number}/{name}"

    def cid(self, name: str) -> str:
        """A client id of this run alone."""
        return f"c{self.number}-{name}"

    async def open(self, label: str = "x") -> Client:
        """A connection on which nothing has been sent."""
        source = f"127.{self.number >> 16 & 255}.{self.number >> 8 & 255}.{self.number & 255 or 1}"
        endpoint = self.server.endpoint(self.transport)
        endpoint = type(endpoint)(endpoint.transport, endpoint.port, endpoint.tls, source=source)
        client = Client(endpoint, self.version, label)
        self.clients.append(client)
        return await client.open()

    def login(self) -> dict[str, str]:
        """Username and password for :func:`packets.connect`."""
        return {"username": self._login[0], "password": self._login[1]}

    async def dial(self, label: str = "a", *, client_id: str | None = None, **options: Any) -> tuple[Client, Packet]:
        """Open and send CONNECT; returns the client and its CONNACK, whatever it says."""
        client = await self.open(label)
        client.auto_ack = options.pop("auto_ack", True)
        wanted = self.cid(label) if client_id is None else client_id
        answer = await client.connect(wanted, **{**self.login(), **options})
        return client, answer

    async def client(self, label: str = "a", **options: Any) -> Client:
        """A signed-in client. Labels may repeat: the same label is the same client id."""
        client, answer = await self.dial(label, **options)
        assert answer.reason == 0, f"{label}: CONNACK {answer.reason:#x}"
        return client

    async def persistent(self, label: str = "a", **options: Any) -> Client:
        """A signed-in client whose session outlives the connection; resumes the stored one."""
        if self.five:
            options["props"] = {"session_expiry": 300, **options.get("props", {})}
        return await self.client(label, clean=options.pop("clean", False), **options)

    async def pair(self, topic: str | None = None, *, qos: int = 2) -> tuple[Client, Client]:
        """A publisher and a client subscribed to ``topic``."""
        publisher, subscriber = await self.client("pub"), await self.client("sub")
        await subscriber.subscribe((topic or self.topic(), qos))
        return publisher, subscriber

    async def rejected(self, client: Client, *codes: int, lax: bool = False) -> None:
        """The server must end the connection; through the edge, in MQTT 5, with one of ``codes``.

        Mosquitto 2.0.11 ends it too, but seldom names the reason. ``lax``: it lets this pass, and the edge does not.
        """
        if self.edge:
            said = await client.ended()
            answers = [packet.reason for packet in client.log if packet.kind == mqtt.CONNACK and packet.reason]
            assert (answers[-1] if answers else said) in (codes if self.five else (None, 1, 2)), client.summary()
        elif lax:
            with suppress(AssertionError):
                await client.ended(seconds=0.5)
        else:
            await client.ended()

    async def settle(self) -> None:
        """Let every client that is still connected receive what is on its way to it."""
        live = [client for client in self.clients if client.listening and client.connack and not client.connack.reason]
        for result in await asyncio.gather(*(client.ping() for client in live), return_exceptions=True):
            assert result is None or isinstance(result, Closed), result

    async def close(self) -> None:
        """Cut everything that is still open."""
        await asyncio.gather(*(client.drop() for client in self.clients), return_exceptions=True)

    def seen(self) -> dict[str, dict[str, list[Any]]]:
        """What every client received, comparable with another run of the same case."""
        found: dict[str, dict[str, list[Any]]] = {}
        for client in self.clients:
            kinds = found.setdefault(client.label, {})
            if client.ended_by_server:
                kinds["the end"] = [True]
            for packet in client.log:
                kinds.setdefault(packet.name, []).append(self._plain(packet))
        return found

    def _plain(self, packet: Packet) -> tuple[Any, ...]:
        left_out = {"reason_string", "topic_alias", "message_expiry"}
        if packet.kind == mqtt.CONNACK:
            left_out |= {"topic_alias_maximum", "maximum_packet_size", "server_keep_alive", "assigned_client_id"}
        props = {name: self._renamed(value) for name, value in packet.props.items() if name not in left_out}
        topic = "" if "topic_alias" in packet.props else self._renamed(packet.topic)
        payload = packet.payload if len(packet.payload) < 100 else hashlib.sha256(packet.payload).hexdigest()
        return (packet.flags, packet.reason, packet.reasons, packet.session_present, topic, payload, props)

    def _renamed(self, value: Any) -> Any:
        return value.replace(f"r{self.number}/", "r/") if isinstance(value, str) else value


async def play(run: Run, server: Server) -> Outcome:
    """Play one run; never raises for what the case finds."""
    stage = Stage(server, run.version, run.transport)
    outcome = Outcome()
    try:
        async with asyncio.timeout(60):
            await CASES[run.case].play(stage)
            await stage.settle()
            faults = [client.fault for client in stage.clients if client.fault is not None]
            assert not faults, faults
    except (Exception, asyncio.CancelledError) as error:
        outcome.error = "".join(traceback.format_exception(error))
    finally:
        outcome.seen = stage.seen()
        await stage.close()
    return outcome


async def _play_all(runs: Iterable[Run], bare: Server, edge: Server) -> dict[Run, Outcome]:
    room = asyncio.Semaphore(AT_ONCE)
    outcomes: dict[Run, Outcome] = {}

    async def one(run: Run) -> None:
        async with room:
            if run.target == "edge":
                outcomes[run] = await play(run, edge)
            elif not CASES[run.case].alone:
                outcomes[run] = await play(run, bare)
            else:
                own = Bare()
                try:
                    await asyncio.to_thread(own.start)
                    outcomes[run] = await play(run, own)
                finally:
                    await asyncio.to_thread(own.close)

    await asyncio.gather(*(one(run) for run in runs))
    return outcomes


def play_all(runs: Iterable[Run], bare: Server, edge: Server) -> dict[Run, Outcome]:
    """Play every run, many at a time; returns how each went."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_play_all(runs, bare, edge))

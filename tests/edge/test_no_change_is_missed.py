"""Whatever fails, waits or comes out of order between an edge and Redis: what was published is in force in the end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cloudsignal.edge import node
from cloudsignal.edge.audit.events import ListTrail
from cloudsignal.edge.control.bundle_status import Reports
from cloudsignal.edge.control.change_stream import Follower
from cloudsignal.edge.control.desired_state import Snapshot
from cloudsignal.edge.redis import Command, Store, UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from tests.edge.parts import ALLOW_ALL, NODE_KEY, PEPPER, Plane, Valkey

DENY = "version: '3'\nrules: []"
SEEDS = int(os.environ.get("CHAOS_SEEDS", "1"))
"""Each costs a second of computing and ten of waiting."""


@pytest.fixture(scope="module")
def valkey(workdir: Path) -> Iterator[Valkey]:
    """A Valkey that nothing else uses."""
    made = Valkey(Path(tempfile.mkdtemp(dir=workdir)))
    made.start()
    yield made
    made.stop(kill=True)


class Shaky(Store):
    """Redis over a bad line: commands wait, overtake each other, are lost before or after they were carried out."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(url)
        self.chance = chance
        self.calm = False

    def ask(self, command: Command) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        asyncio.get_running_loop().create_task(self.pass_on(command, answer))
        return answer

    async def call(self, *commands: Command) -> list[Any]:
        asked = [self.ask(command) for command in commands]
        await asyncio.wait(asked)
        return [one.result() for one in asked]

    async def pass_on(self, command: Command, answer: asyncio.Future[Any]) -> None:
        try:
            await self.trouble(UnavailableError("lost"))
            reply = (await super().call(command))[0]
            await self.trouble(UnavailableError("lost"))
        except UnavailableError as error:
            answer.set_exception(error)
        else:
            answer.set_result(reply)

    async def trouble(self, error: Exception) -> None:
        if self.calm:
            return
        if (drawn := self.chance.random()) < 0.3:
            await asyncio.sleep(self.chance.random() * 0.02)
        elif drawn < 0.33 and self._connection is not None:
            self._connection.close()
        elif drawn < 0.36:
            raise error

    def follower(self, *, block: float) -> Redis:
        redis, run = super().follower(block=block), Redis.execute_command

        async def execute(*args: Any, **options: Any) -> Any:
            await self.trouble(RedisConnectionError("lost"))
            reply = await run(redis, *args, **options)
            await self.trouble(RedisConnectionError("lost"))
            return reply

        redis.execute_command = execute  # type: ignore[method-assign]
        return redis


class Half:
    """The part of a node that follows the control plane."""

    def __init__(self, store: Store, plane: Plane, folder: Path) -> None:
        self.store = store
        self.reports = Reports(store, NODE_KEY)
        self.snapshot = Snapshot(
            store=store,
            trail=ListTrail(),
            node="n",
            folder=folder,
            verify_key=plane.key.public_key(),
            pepper=PEPPER,
            changed=lambda _: None,
            report=self.reports.put,
        )
        self.follower = Follower(
            store,
            self.snapshot,
            identities=list,
            credentials_changed=self.credentials_changed,
            close=lambda _: None,
            reconnected=self.reports.again,
        )

    async def credentials_changed(self, names: Any, _: float) -> None:
        await self.snapshot.fetch_credentials(names)

    def enforced(self) -> dict[str, int]:
        return {org: known.force.revision for org, known in self.snapshot.organizations.items()}


async def until(condition: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        await asyncio.sleep(0.01)


def publish(plane: Plane, orgs: list[str], chance: random.Random) -> None:
    """One thing the control plane does, or somebody to it."""
    org = chance.choice(orgs)
    before = plane.bundles.get(org)
    drawn = chance.random()
    if drawn < 0.1 and before is not None:
        plane.redis.hset(keys.bundle(org), mapping={"rev": 1, keys.FIELD: before[:-1] + bytes([before[-1] ^ 1])})
    elif drawn < 0.15:
        plane.redis.delete(keys.CHANGES)
    elif drawn < 0.2:
        plane.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif drawn < 0.3:
        plane.announce(Change("credential", org, username="dev"))
    else:
        plane.deploy(org, chance.choice([ALLOW_ALL, DENY]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_published_revision_is_in_force_or_superseded(valkey: Valkey, tmp_path: Path, seed: int) -> None:
    """Without the list of heads, which would heal a miss within ten seconds, and without a full reading."""
    valkey.redis.flushall()
    plane, chance = Plane(valkey.redis), random.Random(seed)

    async def follow() -> None:
        store = Shaky(valkey.url, chance)
        half = Half(store, plane, tmp_path)
        tasks = [asyncio.create_task(work) for work in (half.follower.run(), half.reports.run())]
        orgs = [plane.new_org() for _ in range(8)]
        for number in range(10):
            for _ in range(chance.randrange(1, 30)):
                await asyncio.to_thread(publish, plane, orgs, chance)
                await asyncio.sleep(chance.choice([0, 0, chance.random() * 0.02]))
            for org in orgs:
                await asyncio.to_thread(plane.deploy, org)
            store.calm = number % 2 == 0
            newest = dict(plane.revisions)
            await until(
                lambda newest=newest: half.enforced() == newest,
                seconds=20,
                what=lambda newest=newest: f"missed: {newest.items() - half.enforced().items()}",
            )
            await until(
                lambda newest=newest: all(
                    any((r.revision, r.status) == (revision, "enforcing") for r in plane.reports(org))
                    for org, revision in newest.items()
                ),
                seconds=20,
                what=lambda: "a report was lost",
            )
            store.calm = False
        assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await store.close()

    asyncio.run(follow())


class Cuttable:
    """Passes connections on to Redis, and resets all of them when told to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        return f"redis://{host}:{port}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.port)
        self.open += writer, onward
        await asyncio.gather(self.carry(reader, onward), self.carry(onward_reader, writer))

    @staticmethod
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    def reset(self) -> None:
        """As a process does that dies with something unread."""
        for writer in self.open:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self.open.clear()


def test_a_connection_that_is_reset_while_changes_are_applied_ends_nothing(valkey: Valkey, tmp_path: Path) -> None:
    """The next read finds it closed. On uvloop, which edges run on, that was an error nobody expected: the follower
    ended for good, and neither policies nor revocations reached live sessions any more."""
    plane = Plane(valkey.redis)

    async def follow() -> None:
        line = Cuttable(valkey.port)
        half = Half(Store(await line.start()), plane, tmp_path)
        follower = asyncio.create_task(half.follower.run())
        await half.follower.in_step.wait()
        org, cut = plane.new_org(), 0

        async def cut_off(names: Any, _: float) -> None:
            nonlocal cut
            if names:
                cut += 1
                line.reset()
                await asyncio.sleep(0.05)  # it is noticed

        half.follower._credentials_changed = cut_off
        for revision in range(1, 4):
            await asyncio.to_thread(plane.announce, Change("credential", org, username="dev"))
            await until(lambda revision=revision: cut == revision, seconds=10, what=lambda: "the change did not arrive")
            await asyncio.to_thread(plane.deploy, org)
            await until(
                lambda revision=revision: half.enforced() == {org: revision},
                seconds=8,
                what=lambda: f"waited in vain; the follower: {follower}",
            )
        follower.cancel()

    valkey.redis.flushall()
    uvloop.run(follow())


def test_a_part_of_a_node_that_fails_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "RESTART", 0.001)
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) == 3:
            raise asyncio.CancelledError
        raise ValueError("nobody expected this")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(node.Node._forever(object.__new__(node.Node), work))
    assert begun == [0, 1, 2]

"""Whatever fails, waits or comes out of order between an edge and Redis: what was published is in force in the end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cloudsignal.edge import node
from cloudsignal.edge.control import change_stream, desired_state
from cloudsignal.edge.control.bundle_status import BundleStatus
from cloudsignal.edge.control.change_stream import ChangeConsumer
from cloudsignal.edge.control.desired_state import DesiredState
from cloudsignal.edge.redis import Command, Store, UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import open_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.credential import seal_credential
from cloudsignal.wire.heads import digest_bytes
from tests.support.parts import ALLOW_ALL, NODE_KEY, PEPPER, Plane, Valkey
from tests.support.rig import Rig
from tests.support.trail import ListSink

DENY = "version: '3'\nrules: []"
SEEDS, ROUNDS = int(os.environ.get("CHAOS_SEEDS", "1")), 4
"""A round costs a fraction of a second of computing and a second of waiting."""


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

    def consumer(self, *, block: float) -> Redis:
        redis, run = super().consumer(block=block), Redis.execute_command

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
        self.reports = BundleStatus(store, NODE_KEY)
        self.desired = DesiredState(
            store=store,
            sink=ListSink(),
            node="n",
            folder=folder,
            verify_key=plane.key.public_key(),
            levels=128,
            pepper=PEPPER,
            changed=lambda _: None,
            report=self.reports.put,
        )
        self.consumer = ChangeConsumer(
            store,
            self.desired,
            identities=list,
            credentials_changed=self.credentials_changed,
            close=lambda _: None,
            reconnected=self.reports.again,
        )

    async def credentials_changed(self, names: Any, _: float) -> None:
        await self.desired.fetch_credentials(names)

    def enforced(self) -> dict[str, int]:
        return {org: known.active.revision for org, known in self.desired.organizations.items()}


async def until(condition: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def following(store: Store, plane: Plane, folder: Path) -> AsyncIterator[tuple[Half, asyncio.Task[None]]]:
    """The half of a node, in step, and the task that follows the changes; it must not have ended meanwhile."""
    half = Half(store, plane, folder)
    tasks = [asyncio.create_task(work) for work in (half.consumer.run(), half.reports.run())]
    try:
        await half.consumer.in_step.wait()
        yield half, tasks[0]
        assert not any(task.done() for task in tasks), tasks
    finally:
        await end(*tasks)
        await store.close()


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel until it is heard, as a node does: redis-py may turn a cancellation into an error of its own."""
    while any(not task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)


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
    orgs = [plane.new_org() for _ in range(8)]

    async def publish_and_look(half: Half, store: Shaky, number: int) -> None:
        for _ in range(chance.randrange(1, 30)):
            await asyncio.to_thread(publish, plane, orgs, chance)
            await asyncio.sleep(chance.choice([0, 0, chance.random() * 0.02]))
        for org in orgs:
            await asyncio.to_thread(plane.deploy, org)
        newest = dict(plane.revisions)
        store.calm = number % 2 == 0
        await until(
            lambda: half.enforced() == newest,
            seconds=20,
            what=lambda: f"missed: {newest.items() - half.enforced().items()}",
        )
        said = {("enforcing", org, revision) for org, revision in newest.items()}
        await until(
            lambda: said <= {(r.status, r.org, r.revision) for org in orgs for r in plane.reports(org)},
            seconds=20,
            what=lambda: "a report was lost",
        )
        store.calm = False

    async def follow() -> None:
        store = Shaky(valkey.url, chance)
        async with following(store, plane, tmp_path) as (half, _):
            for number in range(ROUNDS):
                await publish_and_look(half, store, number)

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
        line, org, cut = Cuttable(valkey.port), plane.new_org(), 0

        async def cut_off(names: Any, _: float) -> None:
            nonlocal cut
            if names:
                cut += 1
                line.reset()
                await asyncio.sleep(0.05)  # it is noticed

        async with following(Store(await line.start()), plane, tmp_path) as (half, task):
            half.consumer._credentials_changed = cut_off
            for revision in range(1, 4):
                await asyncio.to_thread(plane.announce, Change("credential", org, username="dev"))
                await until(lambda at=revision: cut == at, seconds=10, what=lambda: "the change did not arrive")
                await asyncio.to_thread(plane.deploy, org)
                await until(
                    lambda at=revision: half.enforced() == {org: at},
                    seconds=8,
                    what=lambda: f"waited in vain; {task}",
                )

    valkey.redis.flushall()
    uvloop.run(follow())


def test_that_redis_was_lost_is_not_forgotten_when_the_following_fails_and_begins_again(
    valkey: Valkey, tmp_path: Path
) -> None:
    """Else client IDs, reports and the ledger are not put right until their next renewal, an hour later."""
    plane, back = Plane(valkey.redis), []

    def fail() -> list[tuple[str, str]]:
        raise ValueError("what nobody expects")

    async def follow() -> None:
        line = Cuttable(valkey.port)
        half = Half(Store(await line.start()), plane, tmp_path)
        half.consumer._reconnected = lambda: back.append(True)
        first = asyncio.create_task(half.consumer.run())
        await half.consumer.in_step.wait()
        half.consumer._identities = fail
        line.reset()
        with pytest.raises(ValueError, match="nobody"):
            await asyncio.wait_for(first, 10)
        assert not back
        half.consumer._identities = list
        second = asyncio.create_task(half.consumer.run())  # as the node does
        await asyncio.wait_for(half.consumer.in_step.wait(), 10)
        await end(second)
        await half.store.close()

    valkey.redis.flushall()
    uvloop.run(follow())
    assert back == [True]


def test_a_bundle_whose_change_was_lost_is_found_by_the_next_list_of_heads(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One list and the edge's next look at it: ten seconds each, see ``EVERY``."""
    monkeypatch.setattr(desired_state, "EVERY", 0.05)
    valkey.redis.flushall()
    plane = Plane(valkey.redis)

    async def look(half: Half) -> None:
        looks, fetch_heads = 0, half.desired.fetch_heads

        async def counted() -> list[str]:
            nonlocal looks
            looks += 1
            return await fetch_heads()

        half.desired.fetch_heads = counted  # type: ignore[method-assign]
        org = plane.new_org()
        await asyncio.to_thread(plane.deploy, org)
        await until(lambda: half.enforced() == {org: 1}, seconds=10, what=lambda: "not active")
        blob = plane.bundle(org, DENY)
        valkey.redis.hset(keys.bundle(org), mapping={"rev": 2, keys.FIELD: blob})  # and nobody says so
        plane.heads[org] = 2, digest_bytes(open_bundle(blob, plane.key.public_key(), org=org).digest)
        plane.write_heads()
        watching, before = asyncio.create_task(half.desired.watch_heads()), looks
        await until(lambda: half.enforced() == {org: 2}, seconds=10, what=lambda: f"not found in {looks} looks")
        assert looks - before <= 2
        await end(watching)

    async def follow() -> None:
        async with following(Store(valkey.url), plane, tmp_path) as (half, _):
            await look(half)

    asyncio.run(follow())


def test_a_credential_whose_change_was_lost_is_found_by_the_next_full_reading(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is due every ``RESYNC`` seconds, and looks at the credential of every live session."""
    monkeypatch.setattr(change_stream, "RESYNC", 0.1)
    monkeypatch.setattr(change_stream, "BLOCK", 0.05)
    valkey.redis.flushall()
    plane = Plane(valkey.redis)

    async def look(half: Half) -> None:
        org = plane.new_org()
        half.consumer._identities = lambda: [(org, "dev")]
        await asyncio.to_thread(plane.deploy, org)
        issued = await asyncio.to_thread(plane.issue, org)
        read = half.desired.known_credential
        await until(lambda: read(org, "dev") == plane.records[org, "dev"], seconds=10, what=lambda: "not there")
        old = plane.records[org, "dev"]
        revoked = replace(old, revision=2, secrets=(replace(old.secrets[0], revoked=True),))
        plane.store_credential(org, "dev", seal_credential(revoked, PEPPER), 2)  # and nobody says so
        assert issued.token_id == old.secrets[0].token_id
        await until(lambda: read(org, "dev") == revoked, seconds=10, what=lambda: "the revocation was missed")

    async def follow() -> None:
        async with following(Store(valkey.url), plane, tmp_path) as (half, _):
            await look(half)

    asyncio.run(follow())


def test_a_wait_for_a_bundle_that_is_in_vain_says_what_redis_and_the_edge_know(rig: Rig) -> None:
    org = rig.org()
    with pytest.raises(AssertionError, match="revision 9 of") as caught:
        rig.plane.enforced(org, 9, seconds=0.1)
    text = str(caught.value)
    for part in (
        "published: revision b'1'",
        "xread",
        "status='enforcing'",
        "edge-1: watermarks",
        "bundle on disk: True",
    ):
        assert part in text, text


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

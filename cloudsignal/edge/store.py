"""Redis as the edge uses it: commands issued in one turn of the event loop share one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TIMEOUT = 2.0
"""Seconds a round trip may take before Redis counts as away."""

Command = Sequence[str | bytes | int]


class UnavailableError(Exception):
    """Redis did not answer, or not in time."""


class Store:
    """A client of Redis or Valkey."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 1),
            max_connections=64,
        )
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def follower(self, *, block: float) -> Redis:
        """A client of its own for reads that block up to ``block`` seconds."""
        return Redis.from_url(
            self._url, socket_timeout=block + TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )

    async def call(self, *commands: Command) -> list[Any]:
        """Run commands in order; returns their replies. Raises :class:`UnavailableError` when any of them fails."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        self._waiting.extend(zip(commands, futures, strict=True))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._start)
        return await asyncio.gather(*futures) if len(futures) > 1 else [await futures[0]]

    def send(self, *commands: Command) -> None:
        """Run commands whose replies nobody needs; failures are ignored."""
        loop = asyncio.get_running_loop()
        for command in commands:
            future: asyncio.Future[Any] = loop.create_future()
            future.add_done_callback(_ignore)
            self._waiting.append((command, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._start)

    async def close(self) -> None:
        """Finish what is under way and close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT)
        await self.redis.aclose()

    def _start(self) -> None:
        self._scheduled = False
        batch, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        replies: list[Any]
        try:
            async with asyncio.timeout(TIMEOUT * 2):
                pipeline = self.redis.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            replies = [error] * len(batch)
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(UnavailableError(str(reply)))
            else:
                future.set_result(reply)


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()

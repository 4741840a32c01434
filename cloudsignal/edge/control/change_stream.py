"""Consumer of the change stream; reads all records again whenever it may have missed a change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis.exceptions import RedisError

from cloudsignal.edge.control.desired_state import DesiredState
from cloudsignal.edge.redis import Store, UnavailableError, close_client
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError, decode

logger = logging.getLogger("cloudsignal.edge.control.change_stream")

BLOCK = 5.0
"""Seconds one read waits for a change."""

RESYNC = 300.0
"""Seconds between two full readings while nothing seems to be missing."""

_CHUNK = 200


class ChangeConsumer:
    """Keeps a :class:`DesiredState` up to date."""

    def __init__(
        self,
        store: Store,
        desired: DesiredState,
        *,
        identities: Callable[[], Iterable[tuple[str, str]]],
        credentials_changed: Callable[[Iterable[tuple[str, str]], float], Awaitable[None]],
        close: Callable[[Change], None],
        reconnected: Callable[[], None],
    ) -> None:
        self._store = store
        self._desired = desired
        self._identities = identities
        self._credentials_changed = credentials_changed
        self._close = close
        self._reconnected = reconnected
        self.in_step = asyncio.Event()
        """Set while the consumer follows the stream."""
        self._lost = False
        """Whether Redis was unavailable and ``reconnected`` has not been called since."""
        self._last = b"0-0"

    async def run(self) -> None:
        """Follow until canceled."""
        pause = 0.1
        self._lost = self._lost or self.in_step.is_set()
        self.in_step.clear()
        while True:
            redis = self._store.consumer(block=BLOCK)
            try:
                self._last = await self._newest(redis)
                await self.resync()
                if self._lost:
                    self._reconnected()
                self._lost = False
                self.in_step.set()
                pause = 0.1
                await self._follow(redis)
            except (RedisError, OSError, TimeoutError, UnavailableError) as error:
                if self.in_step.is_set():
                    logger.warning("redis is unavailable: %s", type(error).__name__)
                    self._lost = True
                self.in_step.clear()
            finally:
                await close_client(redis)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def resync(self) -> None:
        """Read the list of heads, then every bundle, and the credentials of every live session."""
        self._desired.forget_credentials()
        await self._desired.fetch_heads()
        cursor: int | bytes = 0
        while True:
            reply = (await self._store.call(("SCAN", cursor, "MATCH", keys.BUNDLE_PATTERN, "COUNT", 1000)))[0]
            cursor, prefix = int(reply[0]), len(keys.bundle(""))
            names = [name.decode("utf-8", "replace")[prefix:] for name in reply[1]]
            for start in range(0, len(names), _CHUNK):
                await self._desired.fetch_bundles(names[start : start + _CHUNK])
            if not cursor:
                break
        live = list(set(self._identities()))
        for start in range(0, len(live), _CHUNK):
            await self._credentials_changed(live[start : start + _CHUNK], 0.0)

    async def _newest(self, redis: Any) -> bytes:
        entries = await redis.xrevrange(keys.CHANGES, count=1)
        return bytes(entries[0][0]) if entries else b"0-0"

    async def _follow(self, redis: Any) -> None:
        due = time.monotonic() + RESYNC
        while time.monotonic() < due:
            reply = await redis.xread({keys.CHANGES: self._last}, count=1000, block=int(BLOCK * 1000))
            if not reply:
                if await self._trimmed(redis):
                    return
                continue
            entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
            await self._apply(entries)
            self._last = bytes(entries[-1][0])
            if len(entries) >= 1000 and await self._trimmed(redis):
                return

    async def _trimmed(self, redis: Any) -> bool:
        """Whether entries behind the last one applied were trimmed before they were read."""
        entries = await redis.xrange(keys.CHANGES, count=1)
        length = await redis.xlen(keys.CHANGES)
        if not entries:
            return False
        return _order(entries[0][0]) > _order(self._last) and bool(length)

    async def _apply(self, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> None:
        orgs: dict[str, None] = {}
        names: dict[tuple[str, str], float] = {}
        for _, fields in entries:
            try:
                change = decode(fields.get(keys.FIELD.encode(), b""), Change)
            except WireError:
                logger.warning("an entry of the change stream cannot be read")
                continue
            if change.kind == "bundle":
                orgs[change.org] = None
            elif change.kind == "credential":
                names[change.org, change.username] = change.committed_at
            else:
                self._close(change)
        if names:
            await self._credentials_changed(names, max(names.values()))
        if orgs:
            await self._desired.fetch_bundles(orgs)


def _order(identifier: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = identifier.partition(b"-")
    return int(milliseconds), int(sequence or 0)

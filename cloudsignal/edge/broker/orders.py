"""Orders of the control plane about data in the broker; exactly one edge verifies and executes each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from redis.exceptions import RedisError, ResponseError

from cloudsignal.edge.broker.housekeeping import Housekeeping, HousekeepingError
from cloudsignal.edge.redis import Store, UnavailableError, close_client
from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.order import GROUP, Order, open_order

logger = logging.getLogger("cloudsignal.edge.broker.orders")

BLOCK = 5.0
"""Seconds one read waits for an order."""

IDLE = 60_000
"""Milliseconds after which an order that another edge has taken and not finished is taken from it."""

TOGETHER = 10
"""Orders taken at a time."""

LET_END = 1.5
"""Seconds that live sessions of a revoked username get to be ended as revoked before they are discarded."""


class Orders:
    """Follows the stream of orders."""

    def __init__(
        self,
        store: Store,
        housekeeping: Housekeeping,
        *,
        node: str,
        verify_key: Ed25519PublicKey,
        cleared: Callable[[str], None],
    ) -> None:
        self._store = store
        self._housekeeping = housekeeping
        self._node = node
        self._verify_key = verify_key
        self._cleared = cleared

    async def run(self) -> None:
        """Follow until canceled."""
        while True:
            redis = self._store.consumer(block=BLOCK)
            try:
                await self._join(redis)
                while True:
                    await self._take(redis)
            except (RedisError, OSError, TimeoutError, UnavailableError):
                pass  # the follower says that Redis is unavailable
            finally:
                await close_client(redis)
            await asyncio.sleep(1.0)

    async def _join(self, redis: Any) -> None:
        try:
            await redis.xgroup_create(keys.ORDERS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _take(self, redis: Any) -> None:
        left = await redis.xautoclaim(keys.ORDERS, GROUP, self._node, IDLE, count=TOGETHER)
        reply = await redis.xreadgroup(GROUP, self._node, {keys.ORDERS: ">"}, count=TOGETHER, block=int(BLOCK * 1000))
        fresh = [] if not reply else next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        for entry, fields in [*left[1], *fresh]:
            if await self._done((fields or {}).get(keys.FIELD.encode(), b"")):
                await redis.xack(keys.ORDERS, GROUP, entry)
                await redis.xdel(keys.ORDERS, entry)

    async def _done(self, blob: bytes) -> bool:
        """Execute an order; ``False`` when it must be tried again."""
        try:
            order = open_order(blob, self._verify_key, now=time.time())
        except WireError as error:
            logger.warning("an order was refused: %s", error)
            return True
        try:
            await self._carry_out(order)
        except HousekeepingError as error:
            logger.warning("%s of %s is tried again: %s", order.kind, order.org, error)
            return False
        logger.info("%s of %s is done", order.kind, order.org)
        return True

    async def _carry_out(self, order: Order) -> None:
        work = self._housekeeping
        if order.kind == "clear_retained":
            await work.clear_retained(order.org, [topic.encode() for topic in order.names])
            self._cleared(order.org)
        elif order.kind == "discard_sessions":
            if order.username:
                await asyncio.sleep(LET_END)
            for client_id in order.names:
                await work.discard_session(order.org, client_id, username=order.username, before=order.issued_at)
        else:
            await work.erase(order.org)

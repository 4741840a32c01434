"""Connections of sessions to the broker: few at a time, from node to node, and a full backlog is waited for."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Collection

from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool, NoBrokerError, in_words
from cloudsignal.edge.transport.connection import Broker, Client

AT_ONCE = 64
"""Connects under way at a time."""

RETRY = 0.002
"""Seconds before a full backlog (EAGAIN on a unix socket) is tried again."""

NODE_WITHIN = 1.0
"""Seconds a node has for the connection and its TLS handshake, while there is another one to try."""

SIGN_IN_WITHIN = 4.0
"""Seconds a sign-in may spend on the broker in all."""


class BrokerUnreachableError(Exception):
    """No node of the broker could be reached; the text says which was tried last, and why it failed."""


class Dialer:
    """Opens the broker connections of sessions."""

    def __init__(self, pool: BrokerPool) -> None:
        self.pool = pool
        self._under_way = 0
        self.waited = 0
        """How often the broker's backlog was full."""

    async def dial(self, client: Client, *, end: float, exclude: Collection[BrokerNode] = ()) -> Broker | None:
        """Connect to a node of the broker for ``client``; ``None`` when its session ended meanwhile.

        Nodes in ``exclude`` are not tried, unless there are no others. ``end`` is on the monotonic clock. Raises
        :class:`BrokerUnreachableError`.
        """
        try:
            await self.pool.nodes()
        except NoBrokerError as error:
            raise BrokerUnreachableError(str(error)) from error
        if self._under_way >= AT_ONCE:
            await self._turn(end)
        self._under_way += 1
        try:
            return await self._try(client, self.pool.choose(exclude), end)
        finally:
            self._under_way -= 1

    async def _turn(self, end: float) -> None:
        """Wait until fewer connects are under way."""
        while self._under_way >= AT_ONCE:
            if time.monotonic() > end:
                raise BrokerUnreachableError("too many connects to the broker are under way")
            await asyncio.sleep(RETRY)

    async def _try(self, client: Client, nodes: list[BrokerNode], end: float) -> Broker | None:
        failure = "no time was left"
        for node in nodes:
            left = end - time.monotonic()
            if client.session.ended or left <= 0:
                break
            within = left if node is nodes[-1] else min(NODE_WITHIN, left)
            try:
                async with asyncio.timeout(within):
                    return await self._connect(client, node)
            except (OSError, TimeoutError) as error:
                why = in_words(error, within)
                self.pool.failed(node, why)
                failure = f"{node.label}: {why}"
        if client.session.ended:
            return None
        raise BrokerUnreachableError(failure)

    async def _connect(self, client: Client, node: BrokerNode) -> Broker:
        while True:
            try:
                return (await self.pool.connect(node, lambda: Broker(client, node.label)))[1]
            except OSError as error:
                if error.errno != errno.EAGAIN or client.session.ended:
                    raise
                self.waited += 1
                await asyncio.sleep(RETRY)

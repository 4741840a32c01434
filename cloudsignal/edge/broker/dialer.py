"""Connections of sessions to the broker: few at a time, from node to node, and a full backlog is waited for."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Collection
from typing import NamedTuple

from audit.kinds import AuthReason
from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool, NoBrokerError, in_words
from cloudsignal.edge.transport.connection import Broker, Client

AT_ONCE = 64
"""Connects under way at a time."""

RETRY = 0.002
"""Seconds before a full backlog (EAGAIN on a unix socket) is tried again."""

NODE_WITHIN = 1.0
"""Seconds a node has for the connection and its TLS handshake, while there is another one to try."""

SIGN_IN_WITHIN = 4.0
"""Seconds a sign-in may spend on the broker in all, beside waiting for its turn."""

ANSWER_WITHIN = 1.0
"""Seconds a node has for its answer to CONNECT, while there is another one to try."""

TRIES = 3
"""Nodes that one sign-in says CONNECT to, at most."""

TURN_WITHIN = 8.0
"""Seconds a sign-in may wait until fewer connects are under way."""


class Dialed(NamedTuple):
    """A connection to a node of the broker, and until when the sign-in may go on, on the monotonic clock."""

    broker: Broker
    node: BrokerNode
    end: float


class BrokerUnreachableError(Exception):
    """No node of the broker could be reached; the text says which was tried last, and why it failed."""


class Dialer:
    """Opens the broker connections of sessions."""

    def __init__(self, pool: BrokerPool) -> None:
        self.pool = pool
        self._under_way = 0
        self.waited = 0
        """The number of times that the broker's backlog was full."""

    async def dial(
        self, client: Client, *, avoid: Collection[BrokerNode] = (), end: float | None = None
    ) -> Dialed | None:
        """Connect to a node of the broker for ``client``; ``None`` when its session ended meanwhile.

        Nodes to ``avoid`` come behind the others that are well. Raises :class:`BrokerUnreachableError`.
        """
        try:
            await self.pool.nodes()
        except NoBrokerError as error:
            raise BrokerUnreachableError(str(error)) from error
        if self._under_way >= AT_ONCE:
            await self._turn()
        self._under_way += 1
        try:
            return await self._try(client, self.pool.choose(avoid), end or time.monotonic() + SIGN_IN_WITHIN)
        finally:
            self._under_way -= 1

    async def _turn(self) -> None:
        """Wait until fewer connects are under way."""
        end = time.monotonic() + TURN_WITHIN
        while self._under_way >= AT_ONCE:
            if time.monotonic() > end:
                raise BrokerUnreachableError("too many connects to the broker are under way")
            await asyncio.sleep(RETRY)

    async def _try(self, client: Client, nodes: list[BrokerNode], end: float) -> Dialed | None:
        failure = "no time was left"
        for node in nodes:
            left = end - time.monotonic()
            if client.session.ended or left <= 0:
                break
            within = left if node is nodes[-1] else min(NODE_WITHIN, left)
            try:
                if node.path:  # connects at once or not at all; a timer for each sign-in would cost more than that
                    return Dialed(await self._connect(client, node, time.monotonic() + within), node, end)
                async with asyncio.timeout(within):
                    return Dialed(await self._connect(client, node, end), node, end)
            except (OSError, TimeoutError) as error:
                why = in_words(error, within)
                self.pool.failed(node, why)
                failure = f"{node.label}: {why}"
        if client.session.ended:
            return None
        raise BrokerUnreachableError(failure)

    async def _connect(self, client: Client, node: BrokerNode, end: float) -> Broker:
        while True:
            try:
                return (await self.pool.connect(node, lambda: Broker(client, node.label)))[1]
            except OSError as error:
                if error.errno != errno.EAGAIN or client.session.ended:
                    raise
                if time.monotonic() > end:
                    raise TimeoutError from error
                self.waited += 1
                await asyncio.sleep(RETRY)

    async def introduce(self, client: Client, dialed: Dialed) -> None:
        """Say CONNECT to a node, and to others when it does not take the session.

        A cluster of one node gets it twice: a node may crash over the first CONNECT and take the second. Refuses the
        session when none has taken it.
        """
        session = client.session
        tried: list[BrokerNode] = []
        while True:
            broker, node, end = dialed
            tried.append(node)
            last = len(tried) >= min(TRIES, max(self.pool.size, 2))
            client.broker, session.broker_node, session.at_broker = broker, node.label, True
            if not session.declined:
                client.pump()
            left = max(end - time.monotonic(), ANSWER_WITHIN)
            beside = not last and self.pool.well_beside(node)
            await broker.answered(ANSWER_WITHIN if beside else left)
            if session.live:
                self.pool.succeeded(node)
            if session.ended or session.live:
                return
            why, code = session.declined, session.declined_code
            silent = not why and broker.transport is not None
            if silent:
                why = "no answer to CONNECT in time"
            if silent or (why and not code):
                self.pool.failed(node, why)
            client.broker = None
            broker.give_up()
            why = f"{node.label}: {why or 'it closed the connection instead of an answer to CONNECT'}"
            if last or (silent and not beside) or time.monotonic() > end:
                break
            session.introduce_again()
            try:
                found = await self.dial(client, end=end, avoid=tried)
            except BrokerUnreachableError as error:
                why = f"{why}; {error}"
                break
            if found is None:
                return
            dialed = found
        session.at_broker = session.may_remain or not code
        details = {"broker": why} | ({"broker_code": str(code)} if code else {})
        session.refuse(AuthReason.UNAVAILABLE, details=details)

"""Connections to the broker: a unix socket or TLS, few at a time, and a full backlog is waited for."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time

from cloudsignal.config import Upstream
from cloudsignal.edge.transport.certificates import upstream_context
from cloudsignal.edge.transport.connection import Broker, Client

AT_ONCE = 64
"""Connects under way at a time."""

RETRY = 0.002
"""Seconds before a full backlog (EAGAIN on a unix socket) is tried again."""

PATIENCE = 8.0
"""Seconds until a connect is given up."""


class BrokerUnreachableError(Exception):
    """The broker could not be reached."""


class Dialer:
    """Opens the broker connections of sessions."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._under_way = 0
        self._tls: ssl.SSLContext | None = None if upstream.path else upstream_context(upstream)
        self.waited = 0
        """How often the broker's backlog was full."""

    @property
    def local(self) -> bool:
        """Whether the broker is behind a unix socket, whose end is noticed at once on both sides."""
        return bool(self._upstream.path)

    async def dial(self, client: Client) -> Broker | None:
        """Connect to the broker for ``client``; ``None`` when its session ended meanwhile.

        Raises :class:`BrokerUnreachableError`.
        """
        try:
            if self._under_way >= AT_ONCE:
                await self._turn()
            self._under_way += 1
            try:
                return await self._try(client)
            finally:
                self._under_way -= 1
        except (OSError, TimeoutError) as error:
            raise BrokerUnreachableError(type(error).__name__) from error

    async def _turn(self) -> None:
        """Wait until fewer connects are under way."""
        end = time.monotonic() + PATIENCE
        while self._under_way >= AT_ONCE:
            if time.monotonic() > end:
                raise TimeoutError
            await asyncio.sleep(RETRY)

    async def _try(self, client: Client) -> Broker | None:
        end = time.monotonic() + PATIENCE
        while not client.session.ended:
            try:
                return await self._connect(client)
            except OSError as error:
                if error.errno != errno.EAGAIN or time.monotonic() > end:
                    raise
                self.waited += 1
                await asyncio.sleep(RETRY)
        return None

    async def _connect(self, client: Client) -> Broker:
        loop = asyncio.get_running_loop()
        broker = Broker(client)
        if self._tls is None:
            await loop.create_unix_connection(lambda: broker, self._upstream.path)
        else:
            async with asyncio.timeout(PATIENCE):
                await loop.create_connection(
                    lambda: broker,
                    self._upstream.host,
                    self._upstream.port,
                    ssl=self._tls,
                    server_hostname=self._upstream.host,
                )
        return broker

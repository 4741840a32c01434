"""What the node tells about itself on Redis: a heartbeat and its live sessions, both of which expire with it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cloudsignal.edge.session import Session
from cloudsignal.edge.store import UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import HEARTBEAT_SECONDS, Heartbeat, LiveSession

if TYPE_CHECKING:
    from cloudsignal.edge.node import Node

logger = logging.getLogger("cloudsignal.edge.beat")

EXPIRY = int(3 * HEARTBEAT_SECONDS)
"""Seconds until a silent node counts as gone."""

_CHUNK = 500


class Beat:
    """Writes heartbeat and session list."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._listed: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """A session is live."""
        self._listed[session.id] = session
        self._node.store.send(("HSET", keys.sessions(self._node.name), session.id, self._entry(session)))

    def remove(self, session: Session) -> None:
        """A session is over."""
        if self._listed.pop(session.id, None) is not None:
            self._node.store.send(("HDEL", keys.sessions(self._node.name), session.id))

    async def run(self) -> None:
        """Beat until cancelled."""
        await asyncio.sleep(0.05)
        while True:
            try:
                await self._beat()
            except UnavailableError:
                logger.debug("no heartbeat: redis is away")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def farewell(self) -> None:
        """Take the node off the list at once instead of letting it expire."""
        name = self._node.name
        try:
            await self._node.store.call(("DEL", keys.node(name), keys.sessions(name)))
        except UnavailableError:
            logger.debug("no farewell: redis is away")

    async def held_elsewhere(self, session: Session) -> bool:
        """Whether a newer session, on any node, has the client id of this one."""
        try:
            held = (await self._node.store.call(("GET", keys.client(session.org.id, session.client_id))))[0]
        except UnavailableError:
            return False
        return isinstance(held, bytes) and held.rpartition(b"\n")[2] != session.id.encode()

    async def _beat(self) -> None:
        node = self._node
        now = time.time()
        heartbeat = Heartbeat(
            node=node.name,
            incarnation=node.incarnation,
            sequence=node.journal.sequence,
            started_at=node.started_at,
            at=now,
            address=str(node.settings.mqtts or node.settings.wss or ""),
            sessions=len(self._listed),
            counters=dict(node.counters),
        )
        name = keys.sessions(node.name)
        _, listed, _ = await node.store.call(
            ("SET", keys.node(node.name), encode(heartbeat), "EX", EXPIRY),
            ("HLEN", name),
            ("EXPIRE", name, EXPIRY),
        )
        if listed != len(self._listed):
            await self._rewrite(name)

    async def _rewrite(self, name: str) -> None:
        """Redis has forgotten sessions, or remembers those of an earlier process."""
        sessions = list(self._listed.values())
        await self._node.store.call(("DEL", name))
        for start in range(0, len(sessions), _CHUNK):
            fields: list[str | bytes] = []
            for session in sessions[start : start + _CHUNK]:
                fields += (session.id, self._entry(session))
            await self._node.store.call(("HSET", name, *fields))
        await self._node.store.call(("EXPIRE", name, EXPIRY))

    def _entry(self, session: Session) -> bytes:
        return encode(
            LiveSession(
                session=session.id,
                org=session.org.id,
                username=session.username,
                client_id=session.client_id,
                node=self._node.name,
                ip=session.origin.ip,
                port=session.origin.port,
                transport=session.origin.transport,
                mqtt_version="5" if session.version == 5 else "3.1.1",
                tls_version=session.origin.tls_version,
                tls_cipher=session.origin.tls_cipher,
                token_id=session.token_id,
                connected_at=session.connected_at,
                expires_at=session.expires_at,
            )
        )

"""Heartbeat and session list of the node on Redis; both expire when the node stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.redis import Command, Store, UnavailableError
from cloudsignal.edge.session.machine import Session
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import HEARTBEAT_SECONDS, SESSIONS_SECONDS, BrokerState, Heartbeat, LiveSession
from cloudsignal.wire.sealed import Kind, seal_record

logger = logging.getLogger("cloudsignal.edge.control.heartbeat")

INDEX_SECONDS = 3600
"""Seconds until an organization's index of sessions is forgotten, unless a node keeps it."""

GATHER = 0.1
"""Seconds a change of the session list may wait for others."""

_CHUNK = 500

COUNT = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('HLEN', KEYS[1])
"""
"""Keep the list for so many seconds; how long it is. What somebody has made something else of is begun anew."""

INDEX = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
for i = 3, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], ARGV[1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
"""Note in an organization's index which node lists its sessions: ``node, seconds, session ids``."""


class HeartbeatSender:
    """Writes heartbeat and session list."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        counters: Mapping[str, int],
        *,
        name: str,
        incarnation: str,
        address: str,
        key: bytes,
        brokers: Callable[[], tuple[BrokerState, ...]],
    ) -> None:
        self._store = store
        self._journal = journal
        self._counters = counters
        self._name = name
        self._incarnation = incarnation
        self._address = address
        """Where clients reach this node."""
        self._key = key
        """Seals what this node says of itself."""
        self._brokers = brokers
        self._sooner = asyncio.Event()
        """Set when a heartbeat has something to say that should not wait."""
        self._started_at = time.time()
        self._listed: dict[str, Session] = {}
        self._fresh: dict[str, Session] = {}
        """Sessions that are live and not written to Redis yet."""
        self._gone: list[Session] = []
        """Sessions that are on Redis and have ended."""
        self._timer: asyncio.TimerHandle | None = None
        self._indexed = time.monotonic()
        self._at = 0.0

    def add(self, session: Session) -> None:
        """Add a live session to the list."""
        self._listed[session.id] = self._fresh[session.id] = session
        self._write_soon()

    def remove(self, session: Session) -> None:
        """Remove an ended session from the list; one that was never written needs no command."""
        if self._listed.pop(session.id, None) is not None and self._fresh.pop(session.id, None) is None:
            self._gone.append(session)
            self._write_soon()

    async def run(self) -> None:
        """Send heartbeats until canceled."""
        await asyncio.sleep(0.05)
        while True:
            try:
                await self._beat()
            except UnavailableError:
                logger.debug("no heartbeat: redis is unavailable")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sooner.wait(), HEARTBEAT_SECONDS)
            self._sooner.clear()

    def beat_soon(self) -> None:
        """Send the next heartbeat now: what it says of the brokers has changed."""
        self._sooner.set()

    async def farewell(self) -> None:
        """Take the node off the list at once instead of letting it expire."""
        name = self._name
        try:
            await self._store.call(("DEL", keys.node(name), keys.sessions(name)))
        except UnavailableError:
            logger.debug("no farewell: redis is unavailable")

    async def held_elsewhere(self, session: Session) -> bool:
        """Whether a newer session, on any node, has the client ID of this one."""
        try:
            held = (await self._store.call(("GET", keys.client(session.org.id, session.client_id))))[0]
        except UnavailableError:
            return False
        return isinstance(held, bytes) and held.rpartition(b"\n")[2] != session.id.encode()

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._write)

    def _write(self) -> None:
        """Bring the list on Redis up to date with few commands. Should they be lost, the next beat notices."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        name = keys.sessions(self._name)
        fresh, self._fresh = list(self._fresh.values()), {}
        gone, self._gone = self._gone, []
        for start in range(0, len(fresh), _CHUNK):
            self._store.send(*self._listing(name, fresh[start : start + _CHUNK]))
        for start in range(0, len(gone), _CHUNK):
            part = gone[start : start + _CHUNK]
            self._store.send(("HDEL", name, *(session.id for session in part)))
            self._store.send(*(("HDEL", keys.live(org), *ids) for org, ids in _by_organization(part).items()))

    async def _beat(self) -> None:
        self._write()
        expected = len(self._listed)
        self._at = max(
            time.time(), self._at + 0.001
        )  # only what is later than before is believed, also by a clock put back
        heartbeat = Heartbeat(
            node=self._name,
            incarnation=self._incarnation,
            sequence=self._journal.sequence,
            started_at=self._started_at,
            at=self._at,
            address=self._address,
            sessions=expected,
            counters=dict(self._counters),
            brokers=self._brokers(),
        )
        record = seal_record(Kind.HEARTBEAT, encode(heartbeat), self._key)
        name = keys.sessions(self._name)
        _, listed = await self._store.call(
            ("SET", keys.node(self._name), record, "EX", SESSIONS_SECONDS),
            ("EVAL", COUNT, 1, name, SESSIONS_SECONDS),
        )
        due = time.monotonic() - self._indexed >= INDEX_SECONDS / 4
        if listed != expected or due:
            await self._rewrite(name)
        if due:
            self._indexed = time.monotonic()

    async def _rewrite(self, name: str) -> None:
        """Redis has forgotten sessions, or remembers those of an earlier process.

        Now and then whatever it says: somebody may have written others into the list, or taken them off an index.
        """
        identifiers = list(self._listed)
        self._fresh.clear()
        self._gone.clear()
        await self._store.call(("DEL", name))
        for start in range(0, len(identifiers), _CHUNK):
            chunk = (self._listed.get(identifier) for identifier in identifiers[start : start + _CHUNK])
            await self._store.call(*self._listing(name, [session for session in chunk if session is not None]))

    def _listing(self, name: str, sessions: list[Session]) -> list[Command]:
        fields: list[str | bytes] = []
        for session in sessions:
            fields += (session.id, self._entry(session))
        if not fields:
            return [("EXPIRE", name, SESSIONS_SECONDS)]
        commands: list[Command] = [("HSET", name, *fields), ("EXPIRE", name, SESSIONS_SECONDS)]
        for org, ids in _by_organization(sessions).items():
            commands.append(("EVAL", INDEX, 1, keys.live(org), self._name, INDEX_SECONDS, *ids))
        return commands

    def _entry(self, session: Session) -> bytes:
        return encode(
            LiveSession(
                session=session.id,
                org=session.org.id,
                username=session.username,
                client_id=session.client_id,
                node=self._name,
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


def _by_organization(sessions: list[Session]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for session in sessions:
        found.setdefault(session.org.id, []).append(session.id)
    return found

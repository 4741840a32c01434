"""The edge as a client of the broker in an organization's name: list and clear retained messages, discard sessions.

The broker's own lock holds for it as for every client: it signs in with the organization's ID and reaches its
mountpoint only. Payloads are read from the socket and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool, in_words
from cloudsignal.edge.codec import (
    Connect,
    Kind,
    Property,
    ProtocolError,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
    acknowledgement,
    decode_acknowledgement,
    decode_connack,
    decode_publish,
    disconnect,
    encode_connect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from cloudsignal.edge.codec.reasons import TRY_ANOTHER
from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.edge.session.mountpoint import Mount, upstream_client_id
from cloudsignal.edge.session.retained import TOGETHER, note_command
from cloudsignal.wire import keys
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.retained import TOPIC_BYTES, RetainedEntry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

logger = logging.getLogger("cloudsignal.edge.broker.housekeeping")

WITHIN = 10.0
"""Seconds the broker may be silent."""

QUIET = 0.3
"""Seconds without a packet after which a ping is sent: clusters may answer one before all deliveries."""

FILTERS = 100
"""Topics in one SUBSCRIBE."""

ROUNDS_MAX = 1_000
"""How often to ask for more of what is to be taken away: a broker gives about a thousand messages at a time."""

COUNTING = 300
"""Seconds within which no other edge counts the same organization."""

NODE_WITHIN = 2.0
"""Seconds a node has for the connection, and for its answer to CONNECT, while there is another one to try."""

HELD = 60
"""Seconds a client ID is kept from everybody while its session is discarded, should the edge be killed meanwhile."""

HOLD = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
"""Take a client ID from who was seen to hold it: ``what was seen, what to put there, seconds`` -> whether it was so."""

FREE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[2])
return 1
"""
"""Free a client ID taken with :data:`HOLD` and what belongs to it: ``what was put there, client ID``."""

PING = bytes([Kind.PINGREQ, 0])
DONE = "1"


class HousekeepingError(Exception):
    """The broker was not reached, or did not do what was asked."""


@dataclass(frozen=True, slots=True)
class Found:
    """A retained message at the broker."""

    topic: bytes
    """Topic as clients name it."""
    size: int
    """Bytes of the packet it was delivered in."""
    ends: int
    """When it expires, seconds since the epoch; 0 for never."""


class Housekeeping:
    """Administrative access to the broker: retained messages and stored sessions."""

    def __init__(self, pool: BrokerPool, store: Store) -> None:
        self.pool = pool
        self._store = store

    async def list_retained(self, org: str, topics: Sequence[bytes] = ()) -> list[Found]:
        """Retained messages of an organization: those on ``topics``, or as many as the broker gives to one client.

        Mosquitto gives at most some ``max_queued_messages`` (1,000) at a time and drops the rest. Raises
        :class:`HousekeepingError`.
        """
        mount = Mount.of(org)
        filters = [mount.topic(topic) for topic in topics] or [mount.plain + b"#", mount.dollar + b"#"]
        found: dict[bytes, Found] = {}
        async with self._signed_in(org, f"{org}:%list-{uuid7()}") as connection:
            for start in range(0, len(filters), FILTERS):
                asked = [Subscription(topic_filter, 0) for topic_filter in filters[start : start + FILTERS]]
                # Unsubscribed at once: a publisher would be told (PUBACK 0x00, not 0x10) that somebody listens.
                leave = Unsubscribe(2, [one.topic_filter for one in asked])
                connection.write(encode_subscribe(Subscribe(1, asked), 5) + encode_unsubscribe(leave, 5))
                found.update({one.topic: one for one in await connection.retained(mount)})
        return list(found.values())

    async def clear_retained(self, org: str, topics: Sequence[bytes]) -> None:
        """Take away the messages on these topics. Raises :class:`HousekeepingError` and :class:`UnavailableError`."""
        mount = Mount.of(org)
        async with self._signed_in(org, f"{org}:%clear-{uuid7()}") as connection:
            for start in range(0, len(topics), TOGETHER):
                messages = [Publish(mount.topic(topic), b"", retain=True) for topic in topics[start : start + TOGETHER]]
                connection.write(b"".join(encode_publish(message, 5) for message in messages) + PING)
                await connection.expect(Kind.PINGRESP)
        await self._note(org, dict.fromkeys(topics))

    @asynccontextmanager
    async def publisher(self, org: str) -> AsyncIterator[Callable[[Publish], Awaitable[int]]]:
        """Publish messages in an organization's name, one after the other; each call returns the broker's code.

        Raises :class:`HousekeepingError`, and so do the calls.
        """
        async with self._signed_in(org, f"{org}:%will-{uuid7()}") as connection:
            yield connection.publish

    async def clear_everything(self, org: str) -> None:
        """Take away every retained message, those that the ledger does not know of too. Raises the same."""
        for _ in range(ROUNDS_MAX):
            found = await self.list_retained(org)
            if not found:
                return
            await self.clear_retained(org, [one.topic for one in found])
        raise HousekeepingError("retained messages come faster than they are taken away")

    async def discard_session(self, org: str, client_id: str, *, username: str = "", before: float) -> bool:
        """End a session at the broker with its subscriptions and its queue, and free its client ID.

        Only one that began before ``before`` (seconds since the epoch) and, when ``username`` is given, is of that
        local username: its successor keeps its own. While it is done nobody can take the client ID. Returns whether it
        was done; raises :class:`HousekeepingError` and :class:`UnavailableError`.
        """
        key = keys.client(org, client_id)
        (held,) = await self._store.call(("GET", key))
        owner, _, session = (held or b"").decode("utf-8", "replace").partition("\n")
        if held is not None and ((username and owner != username) or _began(session) >= before):
            return False
        mine = f"\n{uuid7()}"
        (taken,) = await self._store.call(("EVAL", HOLD, 1, key, held or b"", mine, HELD))
        if not taken:
            return False
        async with self._signed_in(org, upstream_client_id(org, client_id)):
            pass  # a clean start discards what was there (MQTT 5 s3.1.2.4), and nothing is stored of this one
        names = (key, keys.filters(org, client_id), keys.stored(org))
        await self._store.call(("EVAL", FREE, len(names), *names, mine, client_id))
        return True

    async def erase(self, org: str) -> None:
        """Leave nothing of an organization in the broker, and nothing about that on Redis. Raises the same."""
        await self.clear_everything(org)
        stored = (await self._store.call(("ZRANGE", keys.stored(org), 0, -1)))[0]
        prefix = keys.client(org, "")
        held = [name.decode()[len(prefix) :] for name in await self._names(keys.client(org, "*"))]
        for client_id in {*held, *(name.decode("utf-8", "replace") for name in stored)}:
            await self.discard_session(org, client_id, before=time.time() + 1)
        ours = (keys.stored, keys.retained, keys.retained_bytes, keys.retained_ends, keys.retained_counted)
        left = [*(key(org).encode() for key in ours), *await self._names(keys.filters(org, "*"))]
        for start in range(0, len(left), TOGETHER):
            await self._store.call(("DEL", *left[start : start + TOGETHER]))

    async def _names(self, pattern: str) -> list[bytes]:
        cursor, found = 0, []
        while True:
            reply = (await self._store.call(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)))[0]
            cursor = int(reply[0])
            found += reply[1]
            if not cursor:
                return found

    async def recount(self, org: str) -> bool:
        """Bring the ledger to what the broker holds, unless another edge does; returns whether this one did."""
        mark = keys.retained_counted(org)
        (mine,) = await self._store.call(("SET", mark, "counting", "EX", COUNTING, "NX"))
        if mine is None:
            return False
        started = int(time.time())
        there = {one.topic: one for one in await self.list_retained(org)}
        reply = (await self._store.call(("HGETALL", keys.retained(org))))[0]
        known = {name: RetainedEntry.read(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
        # The broker may not have given all: what the ledger says is asked for by name. What is younger stays.
        doubtful = [name for name, one in known.items() if name not in there and one.at < started - 1]
        if doubtful:
            there.update({one.topic: one for one in await self.list_retained(org, doubtful)})
        changes: dict[bytes, RetainedEntry | None] = {
            topic: RetainedEntry(one.size, 0, one.ends)
            for topic, one in there.items()
            if topic not in known and len(topic) <= TOPIC_BYTES
        }
        changes.update((name, None) for name in doubtful if name not in there)
        await self._note(org, changes)
        await self._store.call(("SET", mark, DONE))
        return True

    async def recount_while(self, org: str, wanted: Container[str]) -> bool:
        """Recount, again after a failure, while the organization is among ``wanted``."""
        while org in wanted:
            try:
                return await self.recount(org)
            except (HousekeepingError, UnavailableError) as error:
                logger.warning("retained messages of %s could not be counted: %s", org, error)
                await asyncio.sleep(COUNTING)
        return False

    async def _note(self, org: str, changes: Mapping[bytes, RetainedEntry | None]) -> None:
        listed = list(changes.items())
        for start in range(0, len(listed), TOGETHER):
            await self._store.call(note_command(org, listed[start : start + TOGETHER], int(time.time())))

    @asynccontextmanager
    async def _signed_in(self, org: str, client_id: str) -> AsyncIterator[_Connection]:
        """A connection in the organization's name, closed as a client that leaves for good closes it."""
        connection = None
        try:
            connection = await self._sign_in(org, client_id)
            yield connection
            connection.write(disconnect(0))
            await connection.drained()
        except (OSError, TimeoutError, EOFError, ProtocolError) as error:
            raise HousekeepingError(f"{type(error).__name__}: {error}") from error
        finally:
            if connection is not None:
                connection.close()

    async def _sign_in(self, org: str, client_id: str) -> _Connection:
        """A connection to the first node that takes it."""
        await self.pool.nodes()
        nodes = self.pool.choose()
        failure = ""
        for node in nodes:
            within = WITHIN if node is nodes[-1] else NODE_WITHIN
            try:
                connection, code = await self._try(node, org, client_id, within)
            except (OSError, TimeoutError) as error:
                failure = in_words(error, within)
            except (EOFError, ProtocolError) as error:
                failure = f"it does not answer as a broker: {error}"
            else:
                if not code:
                    self.pool.succeeded(node)
                    return connection
                connection.close()
                failure = f"it answered CONNECT with 0x{code:02x}"
                if code not in TRY_ANOTHER[5]:
                    break
                continue  # it is there, and its sessions may go on
            self.pool.failed(node, failure)
        raise HousekeepingError(f"the broker, {node.label}: {failure}")

    async def _try(self, node: BrokerNode, org: str, client_id: str, within: float) -> tuple[_Connection, int]:
        """A connection to a node, and the code of its CONNACK."""
        async with asyncio.timeout(within):
            connection = _Connection(*await self.pool.streams(node))
        try:
            async with asyncio.timeout(within):
                connect = Connect(5, client_id, username=org, password=self.pool.upstream.password.encode() or None)
                connection.write(encode_connect(connect))
                return connection, decode_connack(await connection.expect(Kind.CONNACK), 5).code
        except BaseException:
            connection.close()
            raise


def _began(session: str) -> float:
    """When a session began, from its id (UUIDv7: RFC 9562 s5.7), seconds since the epoch; 0 for what is none."""
    digits = session.replace("-", "")[:12]
    try:
        return int(digits, 16) / 1000
    except ValueError:
        return 0.0


class _Connection:
    """Packets over streams: this is not the data path."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Queue bytes for the broker."""
        self._writer.write(data)

    async def expect(self, kind: Kind) -> bytes:
        """The body of the next packet of this kind; others are passed over."""
        while True:
            async with asyncio.timeout(WITHIN):
                first, body = await self._packet()
            if first & 0xF0 == kind:
                return body
            if first & 0xF0 == Kind.DISCONNECT:
                raise HousekeepingError(f"the broker ended the connection with 0x{(body or bytes(1))[0]:02x}")

    async def retained(self, mount: Mount) -> list[Found]:
        """Retained messages, until nothing comes any more and a ping is answered.

        Mosquitto drops whatever goes beyond its queue, the answer to a ping as well: it is asked again.
        """
        now, heard = int(time.time()), time.monotonic()
        found: list[Found] = []
        while time.monotonic() - heard < WITHIN:
            try:
                async with asyncio.timeout(QUIET):
                    first, body = await self._packet()
            except TimeoutError:
                self.write(PING)
                continue
            heard = time.monotonic()
            if first & 0xF0 == Kind.PUBLISH and first & 1:
                message = decode_publish(first, body, 5, where="DELIVERY")
                left = message.properties.number(Property.MESSAGE_EXPIRY, 0)
                found.append(Found(mount.client_topic(message.topic), len(body) + 2, now + left if left else 0))
            elif first & 0xF0 == Kind.PINGRESP:
                return found
        raise TimeoutError

    async def publish(self, message: Publish) -> int:
        """Publish a message that is already mounted, with its whole handshake; returns the code, 0x80 or more: refused.

        After one of QoS 0 a ping is answered: the broker has read it.
        """
        self.write(encode_publish(message, 5))
        if not message.qos:
            self.write(PING)
            await self.expect(Kind.PINGRESP)
            return 0
        kind = Kind.PUBACK if message.qos == 1 else Kind.PUBREC
        code = decode_acknowledgement(kind, await self.expect(kind), 5).code
        if message.qos == 2 and code < Reason.UNSPECIFIED:
            self.write(acknowledgement(Kind.PUBREL, message.packet_id, 5))
            await self.expect(Kind.PUBCOMP)
        return code

    async def drained(self) -> None:
        """Wait until everything queued is handed to the operating system."""
        await self._writer.drain()

    def close(self) -> None:
        """Close once everything queued is written."""
        with suppress(OSError):
            self._writer.close()

    async def _packet(self) -> tuple[int, bytes]:
        first, length = (await self._reader.readexactly(1))[0], 0
        for shift in (0, 7, 14, 21):
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            if byte < 128:
                break
        return first, await self._reader.readexactly(length)

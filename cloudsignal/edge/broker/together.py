"""Whether the nodes of a broker are one cluster: a client ID that signs in at one of them ends its session at another.

Several brokers that know nothing of each other answer every probe, and half of the clients never hear the other half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool
from cloudsignal.edge.codec import Connect, disconnect, encode_connect
from cloudsignal.ids import PROBE_ORG

ANSWERS_WITHIN = 2.0
"""Seconds a node has for its CONNACK."""

TAKEN_OVER_WITHIN = 3.0
"""Seconds after which a session that the other node took over is still there: the nodes share nothing."""


async def apart(pool: BrokerPool, nodes: Sequence[BrokerNode], *, edge: str) -> BrokerNode | None:
    """The first node that does not share sessions with ``nodes[0]``; ``None`` when all do, or cannot be asked."""
    for number, node in enumerate(nodes[1:]):
        name = f"{PROBE_ORG}:%cluster-{edge}-{number}"
        with suppress(OSError, TimeoutError, EOFError):
            if not await _shared(pool, nodes[0], node, name):
                return node
    return None


async def _shared(pool: BrokerPool, one: BrokerNode, other: BrokerNode, name: str) -> bool:
    reader, writer = await _signed_in(pool, one, name)
    try:
        _, second = await _signed_in(pool, other, name)
        try:
            async with asyncio.timeout(TAKEN_OVER_WITHIN):
                await reader.read(1)  # DISCONNECT, or the end of the connection
        except TimeoutError:
            return False
        except OSError:
            pass
        finally:
            second.write(disconnect(0))
            second.close()
        return True
    finally:
        with suppress(OSError):
            writer.write(disconnect(0))
        writer.close()


async def _taken(reader: asyncio.StreamReader) -> None:
    """Read a CONNACK; raises :class:`OSError` when it refuses."""
    head = await reader.readexactly(2)
    body = await reader.readexactly(head[1] & 127)
    if len(body) < 2 or body[1]:
        raise ConnectionRefusedError(body.hex())


async def _signed_in(
    pool: BrokerPool, node: BrokerNode, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sign in at a node; raises :class:`EOFError` or :class:`OSError` when it does not take the session."""
    password = pool.upstream.password
    connect = Connect(5, name, keep_alive=10, username=PROBE_ORG, password=password.encode() if password else None)
    async with asyncio.timeout(ANSWERS_WITHIN):
        reader, writer = await pool.streams(node)
        try:
            writer.write(encode_connect(connect))
            await _taken(reader)
        except BaseException:
            writer.transport.abort()
            raise
    return reader, writer

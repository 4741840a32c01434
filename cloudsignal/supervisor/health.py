"""Health checks of the parts: each returns true or false and never raises."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import redis.asyncio
from redis.exceptions import RedisError

from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import LOST, REACHED, Heartbeat
from cloudsignal.wire.sealed import unchecked

CLOCK_SLACK = 1.0
"""Seconds by which a process may seem to have started before we started it (coarse process times)."""


TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For parts that are asked by plain HTTP: reading the certificates that browsers trust takes longer than asking."""


async def http_ok(url: str, *, seconds: float = 3.0) -> bool:
    """Whether ``url`` answers 200 in time."""
    try:
        async with httpx.AsyncClient(timeout=seconds, trust_env=False, verify=TRUSTS_NOBODY) as client:
            return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


async def socket_open(path: str) -> bool:
    """Whether something accepts connections on a unix socket."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_unix_connection(path), 2)
    except (TimeoutError, OSError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def edge_lacks(redis_url: str, node: str, started: float) -> str | None:
    """The trouble of the edge ``node`` started at ``started``; empty for none, None while nobody can say."""
    client = redis.asyncio.Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=2)
    try:
        data = await client.get(keys.node(node))
        beat = decode(unchecked(data), Heartbeat) if isinstance(data, bytes) else None
    except (RedisError, OSError, WireError):
        return None
    finally:
        await client.aclose()
    if beat is None or beat.started_at < started - CLOCK_SLACK:
        return None
    return without_broker(beat)


def without_broker(beat: Heartbeat) -> str | None:
    """A sentence when an edge reaches no broker, so that its clients wait. Empty when it does, None before it knows."""
    if any(state.state in REACHED for state in beat.brokers):
        return ""
    lost = [state for state in beat.brokers if state.state in LOST]
    if not lost or len(lost) < len(beat.brokers):
        return None
    return "reaches no broker: " + "; ".join(f"{state.label} is {state.state}: {state.why}" for state in lost)


def steadily(question: Callable[[], Awaitable[bool]]) -> Callable[[float], Awaitable[bool]]:
    """Wrap a health check that does not depend on the start of the process."""

    async def ask(started: float) -> bool:
        return await question()

    return ask


async def always() -> bool:
    """The health check of parts that are healthy while they run."""
    return True


def touched_since(file: Path, started: float) -> bool:
    """Whether a process that touches ``file`` has done so since ``started``."""
    try:
        return file.stat().st_mtime >= started - CLOCK_SLACK
    except OSError:
        return False


def silent_for(file: Path) -> float:
    """Seconds since ``file`` was touched; 0 when it cannot be read."""
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except OSError:
        return 0.0

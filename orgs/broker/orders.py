"""Signed orders to the edges to clear retained messages and discard stored sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import cast

from redis import Redis

from cloudsignal.secrets.keyring import signing_key
from cloudsignal.wire import keys
from cloudsignal.wire.order import HOLDS_SECONDS, NAMES_MAX, Order, sign_order
from cloudsignal.wire.retained import RetainedEntry

SEARCH_BATCH = 1_000


def give_order(redis: Redis, order: Order) -> None:
    """Add an order to the stream; an edge carries it out at once, or when one is connected again."""
    redis.xadd(keys.ORDERS, {keys.FIELD: sign_order(order, signing_key())})


def clear_retained(redis: Redis, org: str, topics: Sequence[str], *, username: str = "") -> int:
    """Order that retained messages on ``topics`` are cleared, and all that ``username`` published (``*``: all).

    Returns how many topics were ordered.
    """
    wanted = list(topics)
    if username:
        entries = cast("Iterator[tuple[bytes, bytes]]", redis.hscan_iter(keys.retained(org), count=SEARCH_BATCH))
        for topic, value in entries:
            if username in {"*", RetainedEntry.read(value).username}:
                wanted.append(topic.decode("utf-8", "replace"))
    now = time.time()
    for start in range(0, len(wanted), NAMES_MAX):
        part = tuple(wanted[start : start + NAMES_MAX])
        give_order(redis, Order("clear_retained", org, issued_at=now, ends_at=now + HOLDS_SECONDS, names=part))
    return len(wanted)


def discard_sessions(
    redis: Redis, org: str, client_ids: Sequence[str], *, username: str = "", issued_at: float
) -> None:
    """Order that stored sessions (of ``username`` if given) that began before ``issued_at`` are discarded."""
    ends_at = time.time() + HOLDS_SECONDS
    for start in range(0, len(client_ids), NAMES_MAX):
        part = tuple(client_ids[start : start + NAMES_MAX])
        give_order(redis, Order("discard_sessions", org, issued_at, ends_at, names=part, username=username))


def discard_sessions_of(redis: Redis, org: str, usernames: Sequence[str], *, issued_at: float) -> int:
    """Order that all stored sessions of these usernames are discarded; returns their number."""
    wanted, found = set(usernames), 0
    for username, client_ids in _held(redis, org).items():
        if username in wanted:
            discard_sessions(redis, org, client_ids, username=username, issued_at=issued_at)
            found += len(client_ids)
    return found


def _held(redis: Redis, org: str) -> dict[str, list[str]]:
    """Client IDs with a stored session, by username."""
    found: dict[str, list[str]] = {}
    for part in _chunks(cast("list[bytes]", redis.zrange(keys.stored(org), 0, -1))):
        client_ids = [name.decode("utf-8", "replace") for name in part]
        holders = cast("list[bytes | None]", redis.mget([keys.client(org, name) for name in client_ids]))
        for client_id, held in zip(client_ids, holders, strict=True):
            owner = (held or b"").decode("utf-8", "replace").partition("\n")[0]
            found.setdefault(owner, []).append(client_id)
    return found


def _chunks(names: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(names), SEARCH_BATCH):
        yield names[start : start + SEARCH_BATCH]

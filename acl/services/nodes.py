"""Register edge nodes, store their heartbeats, and mark nodes offline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from django.utils import timezone
from redis import Redis

from acl.models import Cluster, Node
from acl.models.cluster import DEFAULT_CLUSTER
from acl.services.targets import settle
from audit import kinds
from audit.ingest.lost import Heard
from audit.services.record import record
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import (
    BROKER_STATES,
    BROKERS_MAX,
    CLUSTER_STATES,
    HEARTBEAT_SECONDS,
    BrokerState,
    Heartbeat,
)
from cloudsignal.wire.sealed import Kind, open_record
from orgs.actors import PLATFORM

MISSING_SECONDS = 3 * HEARTBEAT_SECONDS
LOOK_SECONDS = 1.0
SEARCH_SECONDS = 5.0
"""How often to search Redis for nodes nobody knows yet; less often when the search takes long."""
SEARCH_SHARE = 50
"""A search that took a second is done every fifty seconds."""

INCARNATIONS = 100
"""Processes of one node whose latest heartbeat is remembered, so that it is not believed twice."""

MEMBERS_MAX = 64
"""Members of a broker cluster that are kept of what a node sees."""

TEXT_MAX = 300
"""Characters of a text about a broker node."""

_FAR = 253_402_300_799.0
"""The end of the year 9999, in seconds since the epoch."""


class Heartbeats:
    """Reads the heartbeats of all nodes from Redis and keeps the nodes' rows true to them."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: set[str] = set()
        self._seen: dict[str, dict[str, float]] = {}
        """By node and incarnation, when the latest heartbeat was made."""
        self._running: dict[str, tuple[Heartbeat, float]] = {}
        """The process that runs each node, and when by our clock it was heard of."""
        self._looked_at = -math.inf
        self._looking_since = math.inf
        self._search_at = -math.inf

    def look(self, redis: Redis) -> Sequence[Heartbeat]:
        """Once a second, read the heartbeats; returns those that are new.

        A node counts as missing only when heartbeats could be read all the time that it was silent: when Redis or this
        process was away, it gets as long again to be heard of.
        """
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return ()
        if now - self._looked_at > MISSING_SECONDS:
            self._looking_since = now
        self._search(redis, now)
        names = sorted(self._keys)
        blobs = cast("list[bytes | None]", redis.mget(names)) if names else []
        beats = [beat for beat in map(_read, blobs) if beat is not None and self._news(beat, now)]
        note_heartbeats(beats)
        for beat in beats:
            self._remember(beat, now)
        self._looked_at = now
        if now - self._looking_since >= MISSING_SECONDS:
            note_missing(after=MISSING_SECONDS)
        return beats

    def heard(self, *, steady: float) -> dict[str, Heard] | None:
        """The time of each node's last heartbeat; None unless all were readable for the last ``steady`` seconds."""
        if self._clock() - self._looking_since < steady:
            return None
        with platform_scope():
            rows = Node.objects.exclude(last_seen=None).exclude(started_at=None)
            return {
                row.name: Heard(row.incarnation, cast(datetime, row.last_seen), cast(datetime, row.started_at))
                for row in rows
            }

    def _news(self, beat: Heartbeat, now: float) -> bool:
        """Whether a heartbeat is newer than all before it: whoever can write to Redis can replay one.

        Nor does a process that began earlier count while its successor is heard of.
        """
        if beat.at <= self._seen.get(beat.node, {}).get(beat.incarnation, -math.inf):
            return False
        running, heard = self._running.get(beat.node, (beat, now))
        successor = running.incarnation != beat.incarnation and running.started_at > beat.started_at
        return not successor or now - heard >= MISSING_SECONDS

    def _remember(self, beat: Heartbeat, now: float) -> None:
        self._running[beat.node] = beat, now
        seen = self._seen.setdefault(beat.node, {})
        seen.pop(beat.incarnation, None)
        seen[beat.incarnation] = beat.at
        if len(seen) > INCARNATIONS:
            del seen[next(iter(seen))]

    def _search(self, redis: Redis, now: float) -> None:
        if now < self._search_at:
            return
        with platform_scope():
            known = Node.objects.filter(retired_at=None).values_list("name", flat=True)
            found = {keys.node(name) for name in known}
        for key in redis.scan_iter(match=keys.NODE_PATTERN, count=1_000):
            found.add(cast(bytes, key).decode(errors="replace"))
        self._keys = found
        self._search_at = now + max(SEARCH_SECONDS, SEARCH_SHARE * (self._clock() - now))


def note_heartbeats(beats: Sequence[Heartbeat]) -> None:
    """Store the heartbeats of nodes. An unknown node joins the default cluster, and the platform's log says so."""
    if not beats:
        return
    with platform_scope():
        for beat in sorted(beats, key=lambda beat: beat.node):
            Node.objects.filter(pk=known(beat.node).pk).update(**_facts(beat))


def note_heartbeat(beat: Heartbeat) -> Node:
    """Store the heartbeat of one node; returns the updated node."""
    note_heartbeats([beat])
    return Node.objects.get(name=beat.node[:128])


def known(name: str) -> Node:
    """The node of this name, registered if it is new or was retired. Needs the platform's scope."""
    name = name[:128]
    node = Node.objects.filter(name=name).first()
    if node is not None and node.retired_at is None:
        return node
    if node is not None:
        node.retired_at = None
        node.save(update_fields=["retired_at"])
        made = True
    else:
        cluster = Cluster.objects.get(name=DEFAULT_CLUSTER)
        node, made = Node.objects.get_or_create(name=name, defaults={"cluster": cluster})
    if made:
        record(PLATFORM, kinds.NODE_REGISTERED, target=f"node:{node.name}", after={"cluster": node.cluster.name})
    return node


def note_missing(*, after: float = 4 * MISSING_SECONDS) -> int:
    """Mark online nodes offline whose last heartbeat is ``after`` seconds old; returns how many.

    A deployment no longer waits for them. Ingest calls this with the usual patience and only while it can read
    heartbeats; the scheduled task, with more, is for when ingest itself is gone.
    """
    limit = timezone.now() - timedelta(seconds=after)
    with platform_scope():
        missing = Node.objects.select_for_update(no_key=True).filter(online=True, last_seen__lt=limit)
        gone = list(missing.order_by("pk"))
        Node.objects.filter(pk__in=[node.pk for node in gone]).update(online=False)
        settle(gone)
    return len(gone)


def _facts(beat: Heartbeat) -> dict[str, Any]:
    return {
        "address": beat.address.replace("\0", "")[:255],
        "incarnation": beat.incarnation.replace("\0", "")[:36],
        "online": True,
        "sessions": max(0, min(beat.sessions, 2**31 - 1)),
        "sequence": beat.sequence,
        "counters": {name.replace("\0", ""): value for name, value in list(beat.counters.items())[:100]},
        "brokers": [_broker(state) for state in beat.brokers[:BROKERS_MAX]],
        "started_at": datetime.fromtimestamp(beat.started_at, UTC),
        "last_seen": timezone.now(),  # our clock, which is the one that ``note_missing`` compares with
    }


def _broker(state: BrokerState) -> dict[str, Any]:
    """An edge's report of a broker node, within bounds, and with the states that this release knows."""
    return {
        "label": _text(state.label),
        "state": state.state if state.state in BROKER_STATES else "unknown",
        "why": _text(state.why),
        "since": _number(state.since, 0.0, _FAR),
        "at": _number(state.at, 0.0, _FAR),
        "latency_ms": _number(state.latency_ms, -1.0, 1e9),
        "members": [_text(name) for name in state.members[:MEMBERS_MAX]],
        "missing": [_text(name) for name in state.missing[:MEMBERS_MAX]],
        "cluster": state.cluster if state.cluster in CLUSTER_STATES else "unknown",
        "draining": state.draining,
        "drops": max(-1, min(state.drops, 2**53)),
    }


def _text(text: str) -> str:
    return text.replace("\0", "")[:TEXT_MAX]


def _number(value: float, low: float, high: float) -> float:
    return min(max(value, low), high) if math.isfinite(value) else low


def _read(blob: bytes | None) -> Heartbeat | None:
    """The heartbeat read from a value on Redis, or None when it is not valid: Redis is not trusted."""
    if blob is None:
        return None
    try:
        beat = decode(open_record(Kind.HEARTBEAT, blob, node_key()), Heartbeat)
    except WireError:
        return None
    sane = 0 < len(beat.node) <= 128 and "\0" not in beat.node and "\0" not in beat.incarnation
    times = all(math.isfinite(at) and 0 <= at < _FAR for at in (beat.at, beat.started_at))
    return beat if sane and times and 0 <= beat.sequence < 2**63 else None

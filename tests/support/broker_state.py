"""What an organization leaves at the broker: retained messages and stored sessions."""

from __future__ import annotations

from typing import Any

from cloudsignal.wire import keys
from cloudsignal.wire.retained import RetainedEntry
from tests.support.parts import Edge, Issued, wait_for
from tests.support.rig import Rig
from tests.support.wire import Wire


def retain(client: Wire, topic: str, payload: bytes = b"x", **options: Any) -> int:
    """Publish a retained message; 0 when it was taken, whoever is subscribed to it."""
    code = client.publish(topic, payload, retain=True, **options)
    return 0 if code < 0x80 else code


def ledger(rig: Rig, org: str) -> dict[bytes, RetainedEntry]:
    return {name: RetainedEntry.read(value) for name, value in rig.valkey.redis.hgetall(keys.retained(org)).items()}


def total(rig: Rig, org: str) -> int:
    return int(rig.valkey.redis.get(keys.retained_bytes(org)) or 0)


def counted(rig: Rig, org: str, count: int) -> None:
    wait_for(lambda: len(ledger(rig, org)) == count, what=f"{count} retained messages in the ledger")
    assert total(rig, org) == sum(entry.size for entry in ledger(rig, org).values())


def retained_at_broker(client: Wire, *filters: str) -> list[bytes]:
    client.subscribe(*filters)
    client.ping()
    topics = [message.topic for message in client.deliveries if message.retain]
    client.deliveries.clear()
    client.unsubscribe(*filters)
    return sorted(topics)


def second_edge(rig: Rig) -> Edge:
    return Edge(
        rig.edge.folder / "second",
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-2",
    )


def keep(rig: Rig, issued: Issued, client_id: str, version: int, *, clean: bool = False) -> tuple[int, Wire]:
    """Sign in for a session that is kept."""
    wire = rig.dial()
    answer = wire.connect(
        version=version, client_id=client_id, username=issued.username, password=issued.password, clean=clean,
        properties=[(17, 3_600)] if version == 5 and not clean else [],
    )  # fmt: skip
    return answer.code, wire


def stored(rig: Rig, org: str) -> dict[str, float]:
    return {name.decode(): end for name, end in rig.valkey.redis.zrange(keys.stored(org), 0, -1, withscores=True)}

"""Kill -9 of one part after the other under steady traffic: every refusal a client was told of is audited exactly once.

Two clients publish at QoS 1, half of it allowed and half refused, each refused topic exactly once and never again. A
refusal counts as known when its PUBACK (0x87) has arrived; one whose connection died before may or may not have
happened, and must then be there at most once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.support.system import Stack
from tests.support.tenants import Tenant, make_tenant
from tests.support.wire_client import WireClient

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

PARTS = ("worker", "edge-1", "edge-2", "ingest", "valkey", "postgres", "mosquitto")
RATE = 200
"""Messages a second, over both clients."""
POLICY = 'version: "3"\nrules:\n  - {id: open, topic: "open/#"}\n'


@dataclass
class Traffic:
    """What one client sent and was told."""

    name: str
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    allowed: int = 0
    wrong: list[str] = field(default_factory=list)
    sent: int = 0


async def publish_steadily(stack: Stack, issued: dict[str, str], traffic: Traffic, stop: asyncio.Event) -> None:
    """Publish at half of :data:`RATE` until told to stop, signing in again whenever the connection is lost."""
    while not stop.is_set():
        try:
            client = await WireClient.open(stack.host, stack.mqtts_port, stack.ca, level=5)
            if await client.connect(issued["username"], issued["password"], client_id=traffic.name) != 0:
                await client.close(clean=False)
                await asyncio.sleep(0.1)
                continue
        except (OSError, ssl.SSLError, AssertionError):
            await asyncio.sleep(0.1)
            continue
        await publish_on(client, traffic, stop)
        await client.close(clean=stop.is_set())


async def publish_on(client: WireClient, traffic: Traffic, stop: asyncio.Event) -> None:
    """Publish on one connection until it is lost; settles what was answered and what stays unknown."""
    waiting: dict[int, str] = {}
    while not stop.is_set() and not client.closed:
        traffic.sent += 1
        kind = "shut" if traffic.sent % 2 else "open"
        topic = f"{kind}/{traffic.name}/{traffic.sent}"
        try:
            waiting[client.publish(topic)] = topic
        except (OSError, ssl.SSLError, RuntimeError):
            break
        settle(client, waiting, traffic)
        await asyncio.sleep(2 / RATE)
    for _ in range(100):
        if client.closed or not waiting:
            break
        await asyncio.sleep(0.02)
        settle(client, waiting, traffic)
    settle(client, waiting, traffic)
    traffic.unknown |= {topic for topic in waiting.values() if topic.startswith("shut/")}


def settle(client: WireClient, waiting: dict[int, str], traffic: Traffic) -> None:
    """Sort the answers that have come in."""
    for packet_id in [packet_id for packet_id in waiting if packet_id in client.acks]:
        topic, code = waiting.pop(packet_id), client.acks.pop(packet_id)
        if topic.startswith("shut/") and code == 0x87:
            traffic.refused.add(topic)
        elif topic.startswith("open/") and code in {0, 0x10}:
            traffic.allowed += 1
        else:
            traffic.wrong.append(f"{topic}: {code:#x}")


def denials(tenant: Tenant) -> Counter[str]:
    """Topic -> how many refusals the audit holds for it (rows times their count)."""
    with tenant.stack.admin() as admin:
        rows = admin.execute(
            "SELECT topic, sum(count) FROM audit_event WHERE org_id = %s AND kind = 'acl_denied' GROUP BY topic",
            [tenant.org],
        ).fetchall()
    return Counter({str(topic): int(count) for topic, count in rows})


def test_every_known_denial_is_audited_exactly_once_whatever_is_killed(stack: Stack) -> None:
    tenant = make_tenant(stack, "Kill", POLICY)
    issued = tenant.issue("sender", ttl=3600)
    clients = [Traffic("one"), Traffic("two")]

    async def kill_in_turn() -> None:
        stop = asyncio.Event()
        senders = [asyncio.create_task(publish_steadily(stack, issued, traffic, stop)) for traffic in clients]
        try:
            for part in PARTS:
                before = [len(traffic.refused) for traffic in clients]
                await asyncio.sleep(1.5)
                killed = stack.kill(part)
                await asyncio.to_thread(stack.wait_part, part, other_than=killed)
                async with asyncio.timeout(60):
                    while any(len(t.refused) <= b for t, b in zip(clients, before, strict=True)):
                        await asyncio.sleep(0.1)
            await asyncio.sleep(1.5)
        finally:
            stop.set()
            await asyncio.gather(*senders)

    asyncio.run(kill_in_turn())

    known = set.union(*(traffic.refused for traffic in clients))
    unknown = set.union(*(traffic.unknown for traffic in clients))
    assert not [wrong for traffic in clients for wrong in traffic.wrong]
    assert all(traffic.allowed for traffic in clients)
    assert len(known) > len(PARTS) * 50
    stack.eventually(lambda: known <= denials(tenant).keys(), seconds=60, what="every known denial in the audit")
    audited = denials(tenant)
    assert {topic: audited[topic] for topic in known if audited[topic] != 1} == {}
    assert {topic: audited[topic] for topic in unknown if audited[topic] > 1} == {}
    assert set(audited) <= known | unknown

"""Two organizations on one broker never meet, and nothing but the edge can reach that broker."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.support.system import Stack
from tests.support.tenants import Tenant, make_tenant
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.stack

ALLOW_ALL = 'version: "3"\nrules:\n  - topic: "#"\n'


async def sign_in(tenant: Tenant, issued: dict[str, str], client_id: str, level: int) -> WireClient:
    client = await WireClient.open(tenant.stack.host, tenant.stack.mqtts_port, tenant.stack.ca, level=level)
    assert await client.connect(issued["username"], issued["password"], client_id=client_id) == 0
    return client


@pytest.mark.parametrize("level", [4, 5])
def test_the_same_topic_and_client_id_in_two_organizations_never_meet(stack: Stack, level: int) -> None:
    tenants = [make_tenant(stack, name, ALLOW_ALL) for name in ("Left", "Right")]
    issued = [tenant.issue("device") for tenant in tenants]

    async def meet() -> None:
        left, right = [
            await sign_in(tenant, credential, "same-client-id", level)
            for tenant, credential in zip(tenants, issued, strict=True)
        ]
        for client in (left, right):
            assert await client.ack(client.subscribe("#")) < 0x80
        for round_ in range(20):
            await left.ack(left.publish("room/1", f"left {round_}".encode()))
            await right.ack(right.publish("room/1", f"right {round_}".encode()))
        async with asyncio.timeout(10):
            while len(left.messages) < 20 or len(right.messages) < 20:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert left.messages == [("room/1", f"left {round_}".encode()) for round_ in range(20)]
        assert right.messages == [("room/1", f"right {round_}".encode()) for round_ in range(20)]
        assert not left.closed
        assert not right.closed
        await left.close()
        await right.close()

    asyncio.run(meet())


def test_the_upstream_broker_has_no_tcp_port(stack: Stack) -> None:
    pid = stack.pid("mosquitto")
    process = psutil.Process(pid)
    brokers = [process, *process.children(recursive=True)]
    listening = [
        connection
        for broker in brokers
        for connection in broker.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert any("mosquitto" in broker.name() for broker in brokers)
    assert listening == []

"""Random traffic of several organizations over one edge, and the check that nothing ever crosses between them.

Every message carries a number; the number tells who published it, where and with which properties. A delivery is right
only when its organization, topic, response topic, correlation data and user properties are exactly those. Equality
leaves no room for a visible prefix; packets other than deliveries may not contain an organization's id at all.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client, Closed, Endpoint, Transport
from tests.edge.conformance.harness.packets import Packet, Will
from tests.edge.conformance.harness.servers import Edge, Tenant

POLICY = '{"version": "3", "rules": [{"id": "all", "topic": ["#", "$cs/#", "$SYS/#", "$other/#", "$$/#"]}]}'

LEVELS = ["a", "b", "", "t", "s", "é", "中/x", "\U0001f600", "$", "$cs", "org_", "..", ".", "%2F", "A", " ", "a" * 200]

CLIENT_IDS = ["one", "two", "three", "org:one", "é", "one two", "a/b", "%2B", "+", "#", "x" * 64]
"""The same in every organization: a client of one may not disturb its namesake in another."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was published under one number."""

    org: str
    topic: str
    props: dict[str, Any]


@dataclass(slots=True)
class World:
    """The organizations, everything published so far, and every violation found."""

    edge: Edge
    tenants: list[Tenant]
    seed: int
    trials: int = 0
    delivered: int = 0
    wills: int = 0
    """Wills that were left behind by a lost connection."""
    sent: list[Sent] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def number(self, org: str, topic: str, props: dict[str, Any] | None = None) -> bytes:
        """Note a message to be published; returns its payload."""
        kept = {name: value for name, value in (props or {}).items() if name in _CARRIED}
        self.sent.append(Sent(org, topic, kept))
        return b"%d" % (len(self.sent) - 1)

    def check(self, org: str, client: Client, packet: Packet) -> None:
        """Look at one packet that a client of ``org`` received."""
        if packet.kind != mqtt.PUBLISH:
            if b"org_" in packet.raw:
                self.violations.append(f"{org}: {packet.name} shows an organization: {packet.raw!r}")
            return
        self.delivered += 1
        if not packet.payload:
            return
        sent = self.sent[int(packet.payload)]
        topic = packet.topic or client.aliases.get(packet.props.get("topic_alias", 0), "")
        props = {name: value for name, value in packet.props.items() if name in _CARRIED}
        if sent.org != org:
            self.violations.append(f"{org} received {sent} on {packet.topic!r}")
        elif topic != sent.topic or (client.version == 5 and sent.props and props != sent.props):
            self.violations.append(f"{org}: {sent} arrived as {packet.topic!r} {props}")


_CARRIED = {"response_topic", "correlation_data", "user_property", "content_type"}


class Inhabitant:
    """One client id of one organization, doing random things."""

    def __init__(
        self, world: World, tenant: Tenant, client_id: str, login: tuple[str, str], transport: Transport
    ) -> None:
        self.world = world
        self.tenant = tenant
        self.client_id = client_id
        self.login = login
        self.transport = transport
        self.random = random.Random(f"{world.seed}/{tenant.id}/{client_id}")
        self.client: Client | None = None
        self.filters: list[str] = []
        self.alias: dict[int, str] = {}
        self.leaving = False

    def level(self) -> str:
        """One level of a topic; now and then the name of another organization."""
        if self.random.random() < 0.1:
            return self.random.choice(self.world.tenants).id
        return self.random.choice(LEVELS)

    def topic(self) -> str:
        """A topic, often one that looks like a way out."""
        pick = self.random.random()
        other = self.random.choice(self.world.tenants).id
        if pick < 0.15:
            return f"{other}/t/{self.level()}" if self.random.random() < 0.5 else f"../{other}/t/a"
        if pick < 0.25:
            return f"{self.random.choice(['$cs', '$SYS', '$other', '$$'])}/{other}/s/{self.level()}"
        made = "/".join(self.level() for _ in range(self.random.randint(1, 4)))
        return made if made and made != "$" and not made.startswith("$share") and made[0] != "$" else f"a/{made}"

    def filter(self) -> str:
        """A filter, with wildcards and shares."""
        levels = self.topic().split("/")
        levels = ["+" if self.random.random() < 0.3 else level for level in levels]
        if self.random.random() < 0.4:
            levels = [*levels[: self.random.randint(0, len(levels))], "#"]
        made = "/".join(levels) or "#"
        if self.random.random() < 0.2:
            return f"$share/{self.random.choice(['g', 'org_', self.world.tenants[0].id])}/{made}"
        return made

    async def live(self, trials: int) -> None:
        """Do ``trials`` random things."""
        actions = [self.publish] * 8 + [self.subscribe] * 4 + [self.unsubscribe, self.reconnect]
        for _ in range(trials):
            try:
                if self.client is None or self.client.closed:
                    await self.connect()
                await self.random.choice(actions)()
                if self.client is not None:
                    self.client.forget()
            except (Closed, AssertionError, OSError) as error:
                self.world.violations.append(f"{self.tenant.id} {self.client_id}: {type(error).__name__} {error}")
                self.client = None
            self.world.trials += 1

    async def connect(self) -> None:
        """Sign in with the same client id as before, clean or not, with a will or not."""
        end = self.world.edge.endpoint(self.transport)
        source = f"127.0.7.{1 + self.world.tenants.index(self.tenant)}"
        version = self.random.choice((4, 5))
        client = Client(
            Endpoint(end.transport, end.port, end.tls, source=source), version, f"{self.tenant.id} {self.client_id}"
        )
        client.on_packet = lambda packet: self.world.check(self.tenant.id, client, packet)
        await client.open()
        options: dict[str, Any] = {"clean": self.random.random() < 0.7, "will": self.will(version)}
        if version == 5:
            options["props"] = {"session_expiry": self.random.choice((0, 60)), "topic_alias_maximum": 5}
        answer = await client.connect(self.client_id, username=self.login[0], password=self.login[1], **options)
        assert answer.reason == 0, f"CONNACK {answer.reason:#x}"
        self.client, self.alias = client, {}

    def will(self, version: int) -> Will | None:
        """Sometimes a will."""
        if self.random.random() < 0.5:
            return None
        topic, props = self.topic(), self.props() if version == 5 else {}
        payload = self.world.number(self.tenant.id, topic, props)
        return Will(topic, payload, self.random.randint(0, 2), self.random.random() < 0.2, props)

    def props(self) -> dict[str, Any]:
        """Random properties of a message."""
        made: dict[str, Any] = {}
        if self.random.random() < 0.4:
            made["response_topic"] = self.topic()
        if self.random.random() < 0.3:
            made["correlation_data"] = self.random.randbytes(self.random.randint(0, 20))
        if self.random.random() < 0.3:
            made["user_property"] = [(self.level(), self.level()) for _ in range(self.random.randint(1, 3))]
        if self.random.random() < 0.1:
            made["content_type"] = self.level()
        return made

    async def publish(self) -> None:
        """Publish a message, sometimes by an alias."""
        assert self.client is not None
        topic, name = self.topic(), None
        props: dict[str, Any] = {}
        if self.client.version == 5:
            props = self.props()
            if self.random.random() < 0.3:
                number = self.random.randint(1, 5)
                if self.random.random() < 0.6 and number in self.alias:
                    topic, name = self.alias[number], ""
                self.alias[number] = topic
                props["topic_alias"] = number
        payload = self.world.number(self.tenant.id, topic, props)
        if self.random.random() < 0.05:
            payload = b""
        answer = await self.client.publish(
            topic if name is None else name,
            payload,
            qos=self.random.randint(0, 2),
            retain=self.random.random() < 0.15,
            props=props,
        )
        assert answer is None or answer.reason in (0, 0x10), f"publish to {topic!r}: {answer}"

    async def subscribe(self) -> None:
        """Make one to three subscriptions."""
        assert self.client is not None
        wanted = [self.filter() for _ in range(self.random.randint(1, 3))]
        props = {"subscription_id": 7} if self.client.version == 5 and self.random.random() < 0.3 else None
        await self.client.subscribe(*((name, self.random.randint(0, 2)) for name in wanted), props=props)
        self.filters = (self.filters + wanted)[-12:]

    async def unsubscribe(self) -> None:
        """End a subscription that exists, or one that never did."""
        assert self.client is not None
        await self.client.unsubscribe(self.random.choice([*self.filters, self.filter()]))

    async def reconnect(self) -> None:
        """Leave, or vanish and leave a will behind."""
        assert self.client is not None
        if self.random.random() < 0.5:
            await self.client.leave()
        else:
            self.world.wills += 1
            await self.client.drop()
            await asyncio.sleep(0.01)
        self.client = None


async def roam(edge: Edge, *, trials: int, seed: int, orgs: int = 5) -> World:
    """Let clients of several organizations do ``trials`` random things in all; returns what was found."""
    tenants = [edge.org(POLICY) for _ in range(orgs)]
    world = World(edge, tenants, seed)
    people = []
    for tenant in tenants:
        login = edge.user(tenant, "same-name")
        people += [
            Inhabitant(world, tenant, name, login, "wss" if index % 4 == 3 else "tls")
            for index, name in enumerate(CLIENT_IDS)
        ]
    await asyncio.gather(*(one.live(-(-trials // len(people))) for one in people))
    for one in people:
        if one.client is not None and not one.client.closed:
            await one.client.ping()
            await one.client.drop()
    return world

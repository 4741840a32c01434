"""A message's payload, and a client's secret, stay out of everything the edge keeps: a marker is sent through every
path, and every place is searched for it."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import uvloop

from tests.edge.conformance.harness import packets as mqtt
from tests.edge.conformance.harness.client import Client, Closed, Endpoint, Transport, Version
from tests.edge.conformance.harness.packets import Will
from tests.edge.conformance.harness.servers import Edge, wait_for

POLICY = json.dumps(
    {
        "version": "3",
        "rules": [
            {"id": "no-delivery", "effect": "deny", "action": "sub", "topic": "held/#"},
            {"id": "no", "effect": "deny", "topic": "no/#"},
            {"id": "all", "topic": "#"},
        ],
    }
)


class Carrier:
    """Sends the marker wherever a payload can go."""

    def __init__(self, edge: Edge, marker: bytes) -> None:
        self.edge = edge
        self.marker = marker
        self.tenant = edge.org(POLICY)
        self.username, self.password = edge.user(self.tenant)
        self.received = 0

    async def client(self, name: str, version: Version, transport: Transport = "tls", **options: object) -> Client:
        """A signed-in client."""
        end = self.edge.endpoint(transport)
        client = Client(Endpoint(end.transport, end.port, end.tls, source="127.0.6.1"), version, name)
        await client.open()
        await client.connect(name, username=self.username, password=self.password, **options)
        return client

    async def everywhere(self, version: Version, transport: Transport) -> None:
        """Every path that a payload can take, for one protocol version and transport."""
        name = f"{version}-{transport}"
        keep = {"session_expiry": 300} if version == 5 else None
        sub = await self.client(f"sub-{name}", version, transport, clean=False, props=keep)
        pub = await self.client(f"pub-{name}", version, transport)
        await sub.subscribe("#", "$share/g/shared")
        for topic in ("yes/a", "no/a", "held/a", "shared"):
            for qos in range(3):
                for retain in (False, True):
                    await pub.publish(topic, self.marker * 3, qos=qos, retain=retain)
        if version == 5:
            await self.with_properties(pub)
        await sub.drop()
        await pub.publish("yes/queued", self.marker, qos=1)
        again = await self.client(f"sub-{name}", version, transport, clean=False, props=keep)
        await again.ping()
        self.received += sum(self.marker in message.payload for message in [*sub.messages, *again.messages])
        for topic in ("yes/will", "no/will"):
            await self.leave_a_will(f"will-{name}", version, transport, topic)
        await self.break_things(version, transport)
        await pub.leave()

    async def with_properties(self, pub: Client) -> None:
        """The marker in correlation data and user properties, by alias and on a denied topic."""
        props = {"correlation_data": self.marker, "user_property": [("k", self.marker.decode())], "topic_alias": 1}
        for topic in ("yes/p", "", "no/p"):
            await pub.publish(topic, self.marker, qos=1, props=props)

    async def leave_a_will(self, name: str, version: Version, transport: Transport, topic: str) -> None:
        """A will that is published, or refused at CONNECT."""
        client = await self.client(name, version, transport, will=Will(topic, self.marker, 1))
        await client.drop()

    async def break_things(self, version: Version, transport: Transport) -> None:
        """The marker in packets that are malformed, cut short, or too large, before and after CONNECT."""
        good = mqtt.publish(version, "yes/b", self.marker, qos=1, mid=1)
        bad = [
            good[:-4],
            mqtt.publish(version, b"yes/\xff", self.marker),
            mqtt.publish(version, "yes/+", self.marker),
            mqtt.publish(version, "yes/c", self.marker, qos=3, mid=1),
            mqtt.publish(version, "yes/d", self.marker * 20_000),
            b"\x00" + self.marker,
            self.marker * 10,
        ]
        for raw in bad:
            client = await self.client("broken", version, transport)
            await client.send(raw)
            await asyncio.sleep(0.02)
            await client.drop()
        for raw in (self.marker * 4, good, mqtt.connect(version, "x", will=Will("yes/e", self.marker)) + good):
            end = self.edge.endpoint(transport)
            stranger = Client(Endpoint(end.transport, end.port, end.tls, source="127.0.6.2"), version)
            await stranger.open()
            await stranger.send(raw)
            await asyncio.sleep(0.02)
            await stranger.drop()

    async def wrong_secret(self) -> None:
        """Sign-ins that fail: the secret of another organization, and the marker as a secret."""
        other = self.edge.user(self.edge.org(POLICY))
        for username, password in ((self.username, other[1]), (self.username, self.marker), ("x@y", self.password)):
            end = self.edge.endpoint("tls")
            client = Client(Endpoint("tls", end.port, end.tls, source="127.0.6.3"), 5)
            await client.open()
            assert (await client.connect("x", username=username, password=password)).reason >= 0x86


def kept(edge: Edge) -> Iterator[tuple[str, bytes]]:
    """Everything the edge left anywhere: Valkey, its files, its output, its metrics; not the broker's own store."""
    redis = edge.valkey.client
    for key in redis.scan_iter(count=1000):
        kind = redis.type(key)
        if kind == b"hash":
            parts = [part for pair in redis.hgetall(key).items() for part in pair]
        elif kind == b"stream":
            parts = [value for _, fields in redis.xrange(key) for value in fields.values()]
        else:
            parts = [redis.dump(key) or b"", redis.get(key) or b"" if kind == b"string" else b""]
        yield f"valkey {key.decode()}", b"\0".join([key, *parts])
    for path in (edge.folder / "data").rglob("*"):
        if path.is_file():
            yield str(path.relative_to(edge.folder)), path.read_bytes()
    for path in edge.folder.glob("*.log"):
        yield path.name, path.read_bytes()
    if edge.process.popen.poll() is None:
        with urlopen(f"http://127.0.0.1:{edge.metrics}/metrics", timeout=20) as answer:
            yield "metrics", answer.read()


def forms(marker: bytes) -> list[bytes]:
    """How the marker could be written down."""
    plain = [marker, marker[:10], marker.hex().encode(), marker.hex().upper().encode()]
    shifted = [base64.b64encode(b"x" * shift + marker)[4:-4] for shift in range(3)]
    return [*plain, *shifted]


def test_payloads_and_secrets_are_nowhere() -> None:
    marker = b"mrk" + secrets.token_hex(12).encode()
    with Edge() as edge, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        carrier = Carrier(edge, marker)
        for version in (4, 5):
            for transport in ("tls", "wss"):
                runner.run(carrier.everywhere(version, transport))  # type: ignore[arg-type]
        runner.run(carrier.wrong_secret())
        edge.valkey.process.stop()
        # Redis is unavailable: the trail goes to disk and must be as blind there.
        runner.run(silently(carrier))
        assert carrier.received > 50
        places = list(spool(edge))
        assert places, "nothing was spooled, so nothing was tried"
        edge.process.stop()
        places += list(spool(edge))
        searched = [*places, *((path.name, path.read_bytes()) for path in edge.folder.glob("*.log"))]
        check(searched, marker, carrier)


def test_payloads_and_secrets_are_not_on_redis_either() -> None:
    marker = b"mrk" + secrets.token_hex(12).encode()
    with Edge() as edge, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        carrier = Carrier(edge, marker)
        for version in (4, 5):
            runner.run(carrier.everywhere(version, "tls"))  # type: ignore[arg-type]
        runner.run(carrier.wrong_secret())
        wait_for(lambda: any(event.topic == "no/will" for event in edge.events()), "the trail on the stream")
        check(list(kept(edge)), marker, carrier)
        # The search does find what is there: a topic of the trail.
        assert any(b"no/will" in data for name, data in kept(edge) if "audit" in name)


async def silently(carrier: Carrier) -> None:
    """The same once more, when some of it can no longer succeed."""
    try:
        await carrier.everywhere(5, "tls")
    except (Closed, AssertionError):
        assert carrier.received


def spool(edge: Edge) -> Iterator[tuple[str, bytes]]:
    """What lies in the edge's own folder."""
    for path in Path(edge.folder / "data").rglob("*"):
        if path.is_file() and path.stat().st_size:
            yield str(path.relative_to(edge.folder)), path.read_bytes()


def check(places: list[tuple[str, bytes]], marker: bytes, carrier: Carrier) -> None:
    """No place holds the marker or a secret in any form."""
    wanted = [*forms(marker), carrier.password.encode(), carrier.password[4:24].encode()]
    found = [(name, form) for name, data in places for form in wanted if form in data]
    assert not found, found

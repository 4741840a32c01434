"""A session machine without sockets: bytes in, bytes out, events."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from acl.policy import compile_policy, parse
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import Connect, Publish
from cloudsignal.edge.session.context import Grant, Phase
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import ActivePolicy, Organization
from cloudsignal.wire.bundle import Quotas
from tests.support.trail import ListSink

ORG = "org_aaaaaaaaaaaa"
ALL = "version: '3'\nrules: [{id: all, topic: '#'}, {id: app, topic: '$app/#'}]"
BOTH = pytest.mark.parametrize("version", [4, 5])


def active(policy: str, **options: object) -> ActivePolicy:
    parsed = parse(policy)
    assert parsed.policy is not None
    values: dict[str, object] = {"quotas": Quotas(), "suspended": False, "issued_at": 0.0, **options}
    return ActivePolicy(1, "sha256:0", compile_policy(parsed.policy), **values)  # type: ignore[arg-type]


@dataclass
class Bench:
    """A session with its two ends in the test's hands."""

    version: int = 5
    policy: str = ALL
    connect: dict[str, object] = field(default_factory=dict)
    quotas: Quotas = field(default_factory=Quotas)
    levels: int = 128
    answered: bool = True
    """Whether the broker has answered the CONNECT."""

    def __post_init__(self) -> None:
        self.sink = ListSink()
        self.org = Organization(ORG, Mount.of(ORG, self.levels), active(self.policy, quotas=self.quotas))
        self.session = Session(Origin("127.0.0.1", 1, "mqtts"), self.sink)
        self.session.client_received(codec.encode_connect(Connect(self.version, "c1", **self.connect)))  # type: ignore[arg-type]
        assert self.session.phase is Phase.SIGNING_IN
        self.session.welcome(Grant(self.org, "dev", "c1", "tok", 0, {}))
        self.sent_upstream = self.broker()
        if self.answered and self.session.phase is Phase.CONNECTING:
            self.session.broker_received(codec.connack(self.version, 0))
            self.answer = self.client()

    def client(self) -> bytes:
        """What the client would receive now."""
        data = b"".join(self.session.to_client)
        self.session.to_client.clear()
        return data

    def broker(self) -> bytes:
        """What the broker would receive now."""
        data = b"".join(self.session.to_broker)
        self.session.to_broker.clear()
        return data

    def publish(self, topic: str, **options: object) -> tuple[bytes, bytes]:
        """Send a PUBLISH; returns what goes to the client and to the broker."""
        message = Publish(topic.encode(), b"payload", **options)  # type: ignore[arg-type]
        self.session.client_received(codec.encode_publish(message, self.version))
        return self.client(), self.broker()

    def deliver(self, topic: bytes, **options: object) -> tuple[bytes, bytes]:
        """The broker sends a PUBLISH."""
        message = Publish(topic, b"payload", **options)  # type: ignore[arg-type]
        self.session.broker_received(codec.encode_publish(message, self.version))
        return self.client(), self.broker()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.sink.events]


def unpack(data: bytes, version: int = 5) -> Publish:
    """Decode one PUBLISH."""
    start = 2 if data[1] < 128 else 3
    return codec.decode_publish(data[0], data[start:], version, where="DELIVERY")

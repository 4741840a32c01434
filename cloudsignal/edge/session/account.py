"""What a session leaves on the trail: who it is, what it did and how much went through it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping

from acl.policy import Decision
from audit.kinds import ACL_DENIED, LIMIT_REACHED, NO_RULE, SUBSCRIBE, UNSUBSCRIBE
from cloudsignal.edge.audit.events import AuditSink, Origin, make_event, shortened
from cloudsignal.edge.session.authorizer import Authorizer
from cloudsignal.edge.session.organization import Organization
from cloudsignal.wire.audit import AuditEvent, uuid7

VERSIONS = {4: "3.1.1", 5: "5"}
"""The version of MQTT as events name it, by its protocol level."""


class Account(ABC):
    """The part of a session that events tell of, and what makes them."""

    __slots__ = (
        "authorizer",
        "bytes_in",
        "bytes_out",
        "client_id",
        "connected_at",
        "id",
        "messages_in",
        "messages_out",
        "node",
        "noted",
        "org",
        "origin",
        "sink",
        "username",
        "version",
    )

    authorizer: Authorizer
    org: Organization

    def __init__(self, origin: Origin, sink: AuditSink, node: str) -> None:
        self.id = uuid7()
        self.origin = origin
        self.sink = sink
        self.node = node
        self.noted = 0
        """How much the trail had taken with the last thing it took from here."""
        self.version = 0
        self.username = self.client_id = ""
        self.connected_at = time.time()
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    def denied(
        self, action: str, topic: bytes, decision: Decision, *, qos: int = -1, retain: bool = False, size: int = 0
    ) -> None:
        """The policy refused something."""
        rule = decision.rule or NO_RULE
        text, facts = shortened("topic", topic)
        # What is watched for repetition must not fill the memory: of a long topic that is its hash.
        key = (self.id, action, facts.get("topic_sha256", topic), rule)
        if self._again(key):
            return
        event = self.event(
            ACL_DENIED,
            action=action,
            topic=text,
            qos=qos,
            retain=retain,
            size=size,
            rule=rule,
            reason=decision.reason,
            policy_digest=self.authorizer.active.digest,
            details=facts,
        )
        self.sink.fold(key, event)

    def limit_reached(self, limit: str) -> None:
        """A quota turned something away."""
        if not self._again((self.id, limit)):
            self.sink.fold((self.id, limit), self.event(LIMIT_REACHED, reason=limit))

    def subscribed(self, topic_filter: bytes, rule: str, granted: int) -> None:
        """The broker granted a subscription that ``rule`` allows, with this QoS."""
        self.sink.note(
            self.event(
                SUBSCRIBE,
                action="subscribe",
                topic=topic_filter.decode(),
                qos=granted,
                rule=rule,
                policy_digest=self.authorizer.active.digest,
            )
        )

    def unsubscribed(self, topic_filter: bytes) -> None:
        """The broker ended a subscription as the client asked."""
        self.sink.note(self.event(UNSUBSCRIBE, action="unsubscribe", topic=topic_filter.decode()))

    def _again(self, key: Hashable) -> bool:
        repeated = self.sink.again(key)
        self.noted = self.sink.taken
        return repeated

    def event(self, kind: str, **values: object) -> AuditEvent:
        """An event of this session, for the trail to take next."""
        self.noted = self.sink.taken + 1
        values.setdefault("org", self.org_id())
        return make_event(
            kind,
            node=self.node,
            session=self.id,
            username=self.username,
            client_id=self.client_id,
            ip=self.origin.ip,
            port=self.origin.port,
            transport=self.origin.transport,
            mqtt_version=VERSIONS.get(self.version, ""),
            tls_version=self.origin.tls_version,
            tls_cipher=self.origin.tls_cipher,
            **values,
        )

    def closing(self, kind: str, reason: str, details: Mapping[str, str | int | float | bool]) -> AuditEvent:
        """The event of its end, with what went through it."""
        facts = {
            "seconds": round(time.time() - self.connected_at, 3),
            "messages_in": self.messages_in,
            "messages_out": self.messages_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        return self.event(kind, reason=reason, details={**facts, **details})

    @abstractmethod
    def org_id(self) -> str:
        """The organization it has signed in to; empty before."""

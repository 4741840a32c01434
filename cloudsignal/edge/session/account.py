"""Audit events of one session: its identity, what it did, and how many messages and bytes it carried."""

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
    """The facts of a session that its audit events contain, and the methods that make these events."""

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
        """Journal position of this session's last event."""
        self.version = 0
        self.username = self.client_id = ""
        self.connected_at = time.time()
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    def denied(
        self, action: str, topic: bytes, decision: Decision, *, qos: int = -1, retain: bool = False, size: int = 0
    ) -> None:
        """Record that the policy denied a publish, subscription, delivery or will."""
        rule = decision.rule or NO_RULE
        text, facts = shortened("topic", topic)
        # What is watched for repetition must not fill the memory: of a long topic that is its hash.
        # Not the session: a client that reconnects in a storm is one fold too.
        key = (*self._who(), action, facts.get("topic_sha256", topic), rule, decision.reason)
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

    def repeated(self, what: Hashable, kind: str, **values: object) -> None:
        """Record an event, or raise the count of the one of the last minute that is of ``what`` and the same client."""
        key = (*self._who(), what)
        if not self._again(key):
            self.sink.fold(key, self.event(kind, **values))

    def limit_reached(self, limit: str) -> None:
        """Record that a quota was reached."""
        self.repeated(limit, LIMIT_REACHED, reason=limit)

    def subscribed(self, topic_filter: bytes, rule: str, granted: int) -> None:
        """Record that the broker granted a subscription, which ``rule`` allows, with the QoS ``granted``."""
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
        """Record that the broker ended a subscription at the client's request."""
        self.sink.note(self.event(UNSUBSCRIBE, action="unsubscribe", topic=topic_filter.decode()))

    def _who(self) -> tuple[str, str, str]:
        return self.org_id(), self.username, self.origin.ip

    def _again(self, key: Hashable) -> bool:
        repeated = self.sink.again(key)
        self.noted = self.sink.taken
        return repeated

    def event(self, kind: str, **values: object) -> AuditEvent:
        """Make an audit event of this session; the sink must take it next."""
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

    def closing(
        self, kind: str, reason: str, details: Mapping[str, str | int | float | bool], topic: str = ""
    ) -> AuditEvent:
        """Make the event of the session's end, with its duration and counts."""
        facts = {
            "seconds": round(time.time() - self.connected_at, 3),
            "messages_in": self.messages_in,
            "messages_out": self.messages_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        return self.event(kind, reason=reason, topic=topic, details={**facts, **details})

    @abstractmethod
    def org_id(self) -> str:
        """ID of the organization the session has signed in to; empty before sign-in."""

"""What the tests of the audit make: organizations, people with a role, events, batches in the stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

from acl.models import Cluster
from audit.ingest.rows import row_of
from audit.ingest.store import store
from audit.models import Event
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.audit import BATCH_MAX, AuditBatch, AuditEvent, encode_batch, uuid7
from cloudsignal.wire.sealed import Kind, seal_record
from orgs.access.grants import Access
from orgs.models import Organization, User
from orgs.permissions import PERMISSIONS, Role

NODE = "edge-1"
INCARNATION = "0193a6a0-0000-7000-8000-000000000001"

STRANGE: dict[str, dict[str, Any]] = {
    "long topic": {"topic": "ä" * 65_000},
    "long client id": {"client_id": "\U0001f600" * 16_000},
    "long username": {"username": "u" * 65_535},
    "long everything": dict.fromkeys(
        ("node", "session", "transport", "mqtt_version", "tls_version", "tls_cipher", "reason", "action", "rule"),
        "y" * 70_000,
    ),
    "NUL": {"topic": "a\0b", "client_id": "\0", "reason": "\0\0", "details": {"a\0": "b\0"}},
    "numbers": {"port": -1, "qos": 300, "size": 2**64 - 1, "count": 0},
    "negative numbers": {"port": 70_000, "qos": -9, "size": -(2**63), "count": -5},
    "no IP": {"ip": "300.1.2.3; DROP TABLE"},
    "zone": {"ip": "fe80::1%eth0"},
    "bidi and combining": {"topic": "\u202e\u0301\ufeff\u2028\uffff", "client_id": "e\u0301"},
    "floats": {"details": {"a": float("nan"), "b": float("inf"), "c": -0.0, "d": 1e308, "e": "NaN"}},
    "many details": {"details": {f"name {number}": "v" * 2_000 for number in range(500)}},
    "big integers": {"details": {"a": 2**64 - 1, "b": -(2**63)}},
}
"""Huge and strange values of an event's fields, by what is strange about them."""


def make_org(name: str = "Acme") -> Organization:
    """An organization without policy or members."""
    with platform_scope():
        return Organization.objects.create(name=name, cluster=Cluster.objects.get(name="default"))


def access_to(org: Organization, role: Role = Role.OWNER) -> Access:
    """The access of somebody with ``role``, without a membership row."""
    return Access(org, None, role, PERMISSIONS[role], "user:somebody@example.com", "192.0.2.1")


def operator() -> User:
    """A person of the platform's staff."""
    return User.objects.create(email=f"{uuid.uuid4().hex}@example.com", is_operator=True)


def event(
    org: Organization | str = "", *, at: datetime | None = None, kind: str = "acl_denied", **more: Any
) -> AuditEvent:
    """One event at ``at`` (now)."""
    seconds = time.time() if at is None else at.timestamp()
    name = org if isinstance(org, str) else org.pk
    return AuditEvent(id=uuid7(seconds), ts=round(seconds * 1_000_000), kind=kind, org=name, **more)


def events(org: Organization | str, count: int, *, before: datetime, apart: timedelta, **more: Any) -> list[AuditEvent]:
    """``count`` events, the newest at ``before``, ``apart`` from each other."""
    return [event(org, at=before - apart * number, **more) for number in range(count)]


def put(redis: Redis, *found: AuditEvent, node: str = NODE, incarnation: str = INCARNATION) -> None:
    """Add the events to the stream as an edge does."""
    for start in range(0, len(found), BATCH_MAX):
        batch = AuditBatch(node=node, incarnation=incarnation, events=list(found[start : start + BATCH_MAX]))
        redis.xadd(keys.AUDIT, {keys.FIELD: seal_record(Kind.AUDIT, encode_batch(batch), node_key())})


def keep(found: Iterable[AuditEvent]) -> None:
    """Store events without going through the stream."""
    store([row_of(one, node=NODE) for one in found])


def now() -> datetime:
    """The present time."""
    return datetime.now(UTC)


def happened(access: Access, ago: timedelta = timedelta(), **fields: object) -> Event:
    """An event of the organization; by default a denied publish without a rule."""
    values: dict[str, object] = {
        "kind": "acl_denied", "username": "agent-7", "client_id": "c1", "ip": "192.0.2.7", "port": 50000,
        "transport": "mqtts", "mqtt_version": "5", "tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_256_GCM_SHA384",
        "action": "publish", "topic": "agents/agent-8/card", "qos": 1, "rule": "none", "node": "e1", "session": "s1",
    }  # fmt: skip
    with org_scope(access.org_id):
        return Event.objects.create(
            ts=datetime.now(UTC) - ago, org_id=access.org_id, **({"id": uuid.uuid4()} | values | fields)
        )

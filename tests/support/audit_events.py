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

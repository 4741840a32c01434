"""Record an administrative change in the audit log, in the transaction that makes it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from django.db import connection, transaction

from audit.kinds import KINDS
from audit.models import Event
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.wire.audit import uuid7

Json = Mapping[str, object]

_MANY = """
INSERT INTO audit_event (ts, id, org_id, kind, node, session, username, client_id, ip, port, transport, mqtt_version,
                         tls_version, tls_cipher, reason, action, topic, qos, retain, size, rule, policy_digest, count,
                         actor, target, before, after)
SELECT %(ts)s, id, %(org)s, %(kind)s, '', '', username, '', %(ip)s, 0, '', '', '', '', '', '', '', -1, false, 0, '', '',
       1, %(actor)s, target, before, after
FROM jsonb_to_recordset(%(rows)s::jsonb) AS entry (id uuid, username text, target text, before jsonb, after jsonb)
"""


class Actor(Protocol):
    """The actor of a change: ``orgs.access.grants.Access``, or anything else with these three properties."""

    @property
    def org_id(self) -> str | None:
        """The organization whose audit log the event belongs to; None for the platform's own."""

    @property
    def actor(self) -> str:
        """``user:EMAIL``, ``key:sk_...x7m4``, ``operator:EMAIL`` or ``system``."""

    @property
    def ip(self) -> str:
        """The IP address of the request; empty when there was none."""


def record(
    actor: Actor,
    kind: str,
    *,
    target: str,
    username: str = "",
    before: Json | None = None,
    after: Json | None = None,
    reason: str = "",
) -> Event:
    """Write one audit event for a change. ``before`` and ``after`` hold what changed, never a secret.

    Raises ``KeyError`` for a kind that is not in the registry and ``RuntimeError`` outside a transaction: the event
    and the change stand or fall together.
    """
    _in_transaction()
    return Event.objects.create(
        ts=datetime.now(UTC),
        id=uuid.UUID(uuid7()),
        org_id=actor.org_id or PLATFORM_ORG,
        kind=KINDS[kind].name,
        actor=actor.actor,
        ip=actor.ip or None,
        target=target,
        username=username,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class AuditedChange:
    """One change for :func:`record_many`, with the arguments of :func:`record`."""

    target: str
    username: str = ""
    before: Json | None = None
    after: Json | None = None


def record_many(actor: Actor, kind: str, changes: Sequence[AuditedChange]) -> None:
    """Write an event for each of ``changes``, as :func:`record` does, in one statement."""
    _in_transaction()
    if not changes:
        return
    values: dict[str, Any] = {
        "ts": datetime.now(UTC),
        "org": actor.org_id or PLATFORM_ORG,
        "kind": KINDS[kind].name,
        "ip": actor.ip or None,
        "actor": actor.actor,
        "rows": msgspec.json.encode(
            [
                {
                    "id": uuid7(),
                    "username": change.username,
                    "target": change.target,
                    "before": change.before,
                    "after": change.after,
                }
                for change in changes
            ]
        ).decode(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_MANY, values)


def _in_transaction() -> None:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event is written in the transaction of the change it describes")

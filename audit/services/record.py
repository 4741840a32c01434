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
from audit.services.commitments import commit_rows
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.wire.audit import uuid7

Json = Mapping[str, object]

_MANY = """
INSERT INTO audit_event (ts, id, org_id, kind, node, session, username, client_id, ip, port, transport, mqtt_version,
                         tls_version, tls_cipher, reason, action, topic, qos, retain, size, rule, policy_digest, count,
                         actor, target, before, after, log_leaf, salt)
SELECT %(ts)s, id, %(org)s, %(kind)s, '', '', username, '', %(ip)s, 0, '', '', '', '', '', '', '', -1, false, 0, '', '',
       1, %(actor)s, target, before, after, leaf, decode(salt, 'hex')
FROM jsonb_to_recordset(%(rows)s::jsonb)
     AS entry (id uuid, username text, target text, before jsonb, after jsonb, leaf bigint, salt text)
"""


_DEFAULTS: dict[str, Any] = {"port": 0, "qos": -1, "retain": False, "size": 0, "count": 1}
"""Values of the columns that only MQTT events fill, in a row that records a change."""


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
    event = Event(
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
    with connection.cursor() as cursor:
        [(event.log_leaf, event.salt)] = commit_rows(cursor, [_stored(vars(event))])
    event.save(force_insert=True)
    return event


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
    }
    rows: list[dict[str, Any]] = [
        {
            "id": uuid7(),
            "username": change.username,
            "target": change.target,
            "before": change.before,
            "after": change.after,
        }
        for change in changes
    ]
    fixed = _DEFAULTS | values | {"org_id": values["org"]}
    with connection.cursor() as cursor:
        leaves = commit_rows(cursor, [_stored(fixed | row) for row in rows])
        for row, (leaf, salt) in zip(rows, leaves, strict=True):
            row |= {"leaf": leaf, "salt": salt.hex()}
        cursor.execute(_MANY, values | {"rows": msgspec.json.encode(rows).decode()})


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they are read back: of ``before`` and ``after`` what JSON keeps of them."""
    kept = {name: msgspec.json.decode(msgspec.json.encode(values[name])) for name in ("before", "after")}
    return {**values, **kept}


def _in_transaction() -> None:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event is written in the transaction of the change it describes")

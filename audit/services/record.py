"""Writing down an administrative change, in the transaction that makes it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from django.db import transaction

from audit.kinds import KINDS
from audit.models import Event
from cloudsignal.wire.audit import uuid7

Json = Mapping[str, object]


class Actor(Protocol):
    """Who does something: ``orgs.access.grants.Access``, or anything else with these three."""

    @property
    def org_id(self) -> str | None:
        """The organization whose audit it belongs to; None for the platform's own."""

    @property
    def actor(self) -> str:
        """``user:EMAIL``, ``key:sk_...x7m4``, ``operator:EMAIL`` or ``system``."""

    @property
    def ip(self) -> str:
        """Where the request came from; empty when there was none."""


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
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event is written in the transaction of the change it describes")
    return Event.objects.create(
        ts=datetime.now(UTC),
        id=uuid.UUID(uuid7()),
        org_id=actor.org_id,
        kind=KINDS[kind].name,
        actor=actor.actor,
        ip=actor.ip or None,
        target=target,
        username=username,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        reason=reason,
    )

"""Bringing credential records to Redis: sealed, under a compare-revision script, safe to run twice or late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from django.db.models import Q
from django.utils import timezone
from redis import Redis

from cloudsignal.keyring import pepper
from cloudsignal.redis import revision_of, write_state
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import Credential as Record
from cloudsignal.wire.credential import Secret, open_credential, seal_credential
from orgs.models import Credential, MqttIdentity
from orgs.tenancy import org_scope

KEPT_AFTER_EXPIRY = timedelta(days=7)
"""How long Redis keeps an expired record, so that its use is reported as ``expired`` and not as ``unknown``."""
SECRETS_MAX = 50
"""Secrets in one record, newest first."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record ready for Redis. ``expires_at`` None means that it stays."""

    revision: int
    record: bytes
    committed_at: float
    expires_at: int | None


def push_credential(redis: Redis, org: str, username: str) -> bool:
    """Write the present state of one username to Redis; False when there is none or a newer one stands there."""
    sealed = seal(org, username)
    if sealed is None:
        return False
    return write_state(
        redis,
        keys.credential(org, username),
        revision=sealed.revision,
        record=sealed.record,
        change=Change(kind="credential", org=org, username=username, committed_at=sealed.committed_at),
        expires_at=sealed.expires_at,
    )


def catch_up(redis: Redis, org: str, username: str) -> bool:
    """Redis claims a revision that the database never reached: set that right and push. False when it has reached it.

    The same as ``acl.services.push.catch_up``: our own record means a restored database, another one is thrown away.
    """
    claimed, blob = cast("list[bytes | None]", redis.hmget(keys.credential(org, username), ["rev", "b"]))
    there = revision_of(claimed)
    try:
        genuine = open_credential(blob or b"", pepper(), org=org, username=username).revision
    except WireError:
        genuine = 0
    with org_scope(org):
        identity = MqttIdentity.objects.select_for_update().filter(org_id=org, username=username).first()
        if identity is None or identity.revision >= there:
            return False
        if genuine > identity.revision:
            identity.revision = genuine + 1
            identity.revised_at = timezone.now()
            identity.save(update_fields=["revision", "revised_at"])
    if genuine != there:
        redis.delete(keys.credential(org, username))
    return push_credential(redis, org, username)


def seal(org: str, username: str) -> Sealed | None:
    """The record of one username as it stands in the database; None when there is no such username."""
    with org_scope(org):
        identity = MqttIdentity.objects.filter(org_id=org, username=username).first()
        if identity is None:
            return None
        kept = Q(expires_at=None) | Q(expires_at__gt=timezone.now() - KEPT_AFTER_EXPIRY)
        found = Credential.objects.filter(kept, org_id=org, identity_id=identity.pk)
        rows = list(found.order_by("-issued_at", "-id")[:SECRETS_MAX])
    record = Record(
        org=org,
        username=username,
        revision=identity.revision,
        secrets=tuple(_secret(row) for row in rows),
        claims=identity.claims,
        revoked=identity.revoked_at is not None,
    )
    return Sealed(
        identity.revision, seal_credential(record, pepper()), identity.revised_at.timestamp(), _forget_at(rows)
    )


def _secret(row: Credential) -> Secret:
    return Secret(
        token_id=row.token_id,
        mac=bytes(row.mac),
        expires_at=int(row.expires_at.timestamp()) if row.expires_at else 0,
        revoked=row.revoked_at is not None,
    )


def _forget_at(rows: Sequence[Credential]) -> int | None:
    """When Redis may forget the record: a while after its last secret has expired."""
    ends = [row.expires_at for row in rows if row.revoked_at is None or row.expires_at is not None]
    if any(end is None for end in ends):
        return None
    latest = max((end for end in ends if end is not None), default=timezone.now())
    return int((latest + KEPT_AFTER_EXPIRY).timestamp())

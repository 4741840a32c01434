"""Push of sealed credential records to Redis: compares revisions, safe to run twice or late."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Case, F, Q, When
from django.utils import timezone
from redis import Redis

from cloudsignal.redis import State, records, write_state, write_states
from cloudsignal.secrets.keyring import pepper
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import Credential as Record
from cloudsignal.wire.credential import Secret, open_credential, seal_credential
from orgs.models import Credential, MqttIdentity
from orgs.models.credential import signing_in, unended

KEPT_AFTER_EXPIRY = timedelta(days=7)
"""How long Redis keeps an expired record, so that its use is reported as ``expired`` and not as ``unknown``."""
SECRETS_MAX = 50
"""Maximum number of credentials in a record: active ones first, then expired and revoked ones for their reason."""


def push_credential(redis: Redis, org: str, username: str) -> bool:
    """Write the present record of a username to Redis; False if it is unknown or Redis has a newer record."""
    with org_scope(org):
        identity = MqttIdentity.objects.filter(org_id=org, username=username).first()
        states = _states([identity]) if identity is not None else []
    return bool(states) and write_state(redis, states[0])


def push_many(redis: Redis, identities: Sequence[int]) -> int:
    """Write the records of many identities by primary key in one round trip; returns the number written."""
    with platform_scope():
        states = _states(list(MqttIdentity.objects.filter(pk__in=identities)))
    return sum(write_states(redis, states)) if states else 0


def push_batch(redis: Redis, org: str, usernames: Sequence[str]) -> int:
    """Write the records of many usernames of one organization."""
    with org_scope(org):
        found = list(MqttIdentity.objects.filter(org_id=org, username__in=usernames).values_list("pk", flat=True))
    return push_many(redis, found)


def catch_up(redis: Redis, org: str, username: str) -> bool:
    """Redis claims a revision that the database never reached: set that right and push. False when it has reached it.

    The same as ``acl.services.push.catch_up``: our own record means a restored database, another one is thrown away.
    """
    there, blob = records(redis, [keys.credential(org, username)])[0]
    genuine = sealed_revision(blob, org, username)
    with org_scope(org):
        identity = MqttIdentity.objects.select_for_update().filter(org_id=org, username=username).first()
        if identity is None or identity.revision >= max(there, genuine):
            return False
        if genuine > identity.revision:
            identity.revision = genuine + 1
            identity.revised_at = timezone.now()
            identity.save(update_fields=["revision", "revised_at"])
    if genuine != there:
        redis.delete(keys.credential(org, username))
    return push_credential(redis, org, username)


def sealed_revision(blob: bytes | None, org: str, username: str) -> int:
    """The revision under a record's seal; 0 if the seal is not ours or is for another username."""
    try:
        return open_credential(blob or b"", pepper(), org=org, username=username).revision
    except WireError:
        return 0


def _states(identities: Sequence[MqttIdentity]) -> list[State]:
    """Build the sealed records of ``identities`` from the database.

    The identities were read first: a change in between can only make the content newer than the revision it is written
    under, and the next push says so.
    """
    now = timezone.now()
    kept = Q(expires_at=None) | Q(expires_at__gt=now - KEPT_AFTER_EXPIRY)
    found = Credential.objects.filter(
        kept,
        org__in={identity.org_id for identity in identities},
        identity__in=[identity.pk for identity in identities],
    )
    secrets: dict[int, list[Credential]] = {}
    # Those that sign in come first, then what sessions may have to hear of: the bound cuts away neither.
    turn = Case(When(signing_in(now), then=0), When(unended(now), then=1), When(~Q(revoked_at=None), then=2), default=3)
    newest = F("revoked_at").desc(nulls_last=True), F("expires_at").desc(nulls_first=True)
    ordered = found.order_by(turn, *newest)
    for row in ordered[:SECRETS_MAX] if len(identities) == 1 else ordered:
        secrets.setdefault(row.identity_id, []).append(row)
    return [_state(identity, secrets.get(identity.pk, [])[:SECRETS_MAX]) for identity in identities]


def _state(identity: MqttIdentity, rows: Sequence[Credential]) -> State:
    record = Record(
        org=identity.org_id,
        username=identity.username,
        revision=identity.revision,
        secrets=tuple(_secret(row) for row in rows),
        claims=identity.claims,
        revoked=identity.revoked_at is not None,
    )
    change = Change(
        kind="credential",
        org=identity.org_id,
        username=identity.username,
        committed_at=identity.revised_at.timestamp(),
    )
    return State(
        key=keys.credential(identity.org_id, identity.username),
        revision=identity.revision,
        record=seal_credential(record, pepper()),
        change=change,
        expires_at=_forget_at(rows),
    )


def _secret(row: Credential) -> Secret:
    return Secret(
        token_id=row.token_id,
        mac=bytes(row.mac),
        expires_at=int(row.expires_at.timestamp()) if row.expires_at else 0,
        revoked=row.revoked_at is not None,
        until=int(row.renewed_until.timestamp()) if row.renewed_until else 0,
        retired=row.retired_at is not None,
    )


def _forget_at(rows: Sequence[Credential]) -> int | None:
    """When Redis may drop the record: some time after its last credential has expired."""
    ends = [row.ends_at for row in rows if row.revoked_at is None or row.expires_at is not None]
    if any(end is None for end in ends):
        return None
    latest = max((end for end in ends if end is not None), default=timezone.now())
    return int((latest + KEPT_AFTER_EXPIRY).timestamp())

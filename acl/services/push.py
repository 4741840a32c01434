"""Building an organization's signed bundle from the database and bringing it to Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from redis import Redis

from acl.services.deployments import in_force
from cloudsignal.keyring import signing_key
from cloudsignal.redis import State, revision_of, write_state
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, Quotas, open_bundle, sign_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError
from orgs.models import Organization
from orgs.tenancy import org_scope


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: the revision it built, and whether Redis took it (False: a newer one was there)."""

    revision: int
    written: bool


def build_bundle(org_id: str) -> Bundle | None:
    """The organization's desired state as it stands in the database; None when there is no such organization.

    The same rows give the same bytes: a bundle that is built twice is announced once.
    """
    with org_scope(org_id):
        deployment = in_force(org_id)
    if deployment is None:
        return None
    org = deployment.org
    return Bundle(
        org=org_id,
        revision=org.revision,
        digest=deployment.version.digest,
        policy=bytes(deployment.version.document),
        status="active" if org.status == Organization.Status.ACTIVE else "suspended",
        issued_at=org.revised_at.timestamp(),
        deployment=deployment.pk,
        quotas=Quotas(
            connections=org.connections,
            messages_per_minute=org.messages_per_minute,
            packet_bytes=org.packet_bytes,
            subscriptions_per_session=org.subscriptions_per_session,
            retained_messages=org.retained_messages,
            retained_bytes=org.retained_bytes,
            stored_sessions=org.stored_sessions,
        ),
    )


def push_bundle(redis: Redis, org_id: str) -> Pushed | None:
    """Build, sign, write and announce; None when the organization is gone."""
    bundle = build_bundle(org_id)
    if bundle is None:
        return None
    state = State(
        key=keys.bundle(org_id),
        revision=bundle.revision,
        record=sign_bundle(bundle, signing_key()),
        change=Change(kind="bundle", org=org_id, committed_at=bundle.issued_at),
    )
    written = write_state(redis, state)
    return Pushed(bundle.revision, written)


def catch_up(redis: Redis, org_id: str) -> bool:
    """Redis claims a revision that the database never reached: set that right and push. False when it has reached it.

    When the bundle there is our own, the database was restored from a backup: it goes on above that revision, because
    edges never go back. When it is not, somebody wrote to Redis to keep newer bundles out: the record is thrown away.
    """
    claimed, blob = cast("list[bytes | None]", redis.hmget(keys.bundle(org_id), ["rev", "b"]))
    there = revision_of(claimed)
    try:
        genuine = open_bundle(blob or b"", signing_key().public_key(), org=org_id).revision
    except WireError:
        genuine = 0
    with org_scope(org_id):
        org = Organization.objects.select_for_update().filter(pk=org_id).first()
        if org is None or org.revision >= there:
            return False
        if genuine > org.revision:
            org.revision = genuine
            org.bump()
            org.save(update_fields=["revision", "revised_at"])
    if genuine != there:
        redis.delete(keys.bundle(org_id))
    return push_bundle(redis, org_id) is not None

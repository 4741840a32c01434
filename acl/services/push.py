"""Building an organization's signed bundle from the database and bringing it to Redis."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from acl.services.deployments import in_force
from cloudsignal.keyring import signing_key
from cloudsignal.redis import write_state
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, Quotas, sign_bundle
from cloudsignal.wire.change import Change
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
        org = Organization.objects.filter(pk=org_id).first()
        deployment = in_force(org_id)
    if org is None or deployment is None:
        return None
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
        ),
    )


def push_bundle(redis: Redis, org_id: str) -> Pushed | None:
    """Build, sign, write and announce; None when the organization is gone."""
    bundle = build_bundle(org_id)
    if bundle is None:
        return None
    written = write_state(
        redis,
        keys.bundle(org_id),
        revision=bundle.revision,
        record=sign_bundle(bundle, signing_key()),
        change=Change(kind="bundle", org=org_id, committed_at=bundle.issued_at),
    )
    return Pushed(bundle.revision, written)

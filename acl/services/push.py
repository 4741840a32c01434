"""Build an organization's signed bundle from the database and write it to Redis."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection
from django.db.models import OuterRef, Subquery
from redis import Redis

from acl.models import Deployment
from acl.models.deployment import in_force
from cloudsignal.redis import State, records, write_state
from cloudsignal.secrets.keyring import signing_key
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, Quotas, open_bundle, sign_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.heads import Heads, digest_bytes, sign_heads
from orgs.models import Organization
from orgs.publishing import next_revision


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of a push: the revision, and whether Redis stored it (False: a newer one was there)."""

    revision: int
    written: bool


def build_bundle(org_id: str) -> Bundle | None:
    """Build the organization's bundle from the database; None when there is no such organization.

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
        publish_while_split=org.publish_while_split,
    )


def push_bundle(redis: Redis, org_id: str) -> Pushed | None:
    """Build, sign, write and announce the bundle of an organization; None when the organization is gone."""
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
    """Compare the bundle on Redis byte by byte with the database and replace it when it differs; False if equal.

    A genuine bundle that is newer than the database, or another one of the same revision, means that the database was
    restored from a backup: it goes on above that revision, because edges never go back. What else is found there was
    put there by somebody (an old bundle, a revision that nobody reached) and is thrown away.
    """
    claimed, blob = records(redis, [keys.bundle(org_id)])[0]
    if _stands(claimed, blob, build_bundle(org_id)):
        return False
    found = _genuine(blob, org_id)
    with org_scope(org_id):
        org = Organization.objects.select_for_update().filter(pk=org_id).first()
        wanted = build_bundle(org_id) if org is not None else None
        if org is None or wanted is None or _stands(claimed, blob, wanted):
            return False
        if found and (found.revision > org.revision or (found.revision == org.revision and _differ(found, wanted))):
            org.revision = found.revision
            next_revision(org)
    if claimed > org.revision:
        redis.delete(keys.bundle(org_id))
    return push_bundle(redis, org_id) is not None


def write_heads(redis: Redis) -> None:
    """Sign the list of every organization's newest bundle and put it on Redis, whatever stands there."""
    newest = Deployment.objects.filter(org=OuterRef("pk")).order_by("-revision").values("version__digest")[:1]
    with platform_scope():
        with connection.cursor() as cursor:
            cursor.execute("SELECT floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint")
            now = int(cursor.fetchone()[0])
        found = Organization.objects.annotate(digest=Subquery(newest)).exclude(digest=None)
        rows = list(found.values_list("pk", "revision", "digest"))
    heads = Heads(now, {org: (revision, digest_bytes(digest)) for org, revision, digest in rows})
    redis.set(keys.HEADS, sign_heads(heads, signing_key()))


def _genuine(blob: bytes | None, org_id: str) -> Bundle | None:
    try:
        return open_bundle(blob or b"", signing_key().public_key(), org=org_id)
    except WireError:
        return None


def _stands(claimed: int, blob: bytes | None, wanted: Bundle | None) -> bool:
    return wanted is not None and claimed == wanted.revision and blob == sign_bundle(wanted, signing_key())


def _differ(one: Bundle, other: Bundle) -> bool:
    return (one.digest, one.status, one.deployment) != (other.digest, other.status, other.deployment)

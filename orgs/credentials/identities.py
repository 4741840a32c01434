"""MQTT identities: their claims, and bulk revocation by issuer or of the whole organization."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet
from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import NotFound, Unavailable
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.credential import ClaimValue
from orgs.access.grants import Access
from orgs.credentials.claims import bounded, clean_claims
from orgs.credentials.edges import discard_sessions, tell_edges, tell_edges_of_many
from orgs.credentials.issuing import find_identity, record_claims
from orgs.models import Credential, MqttIdentity
from orgs.models.credential import unended
from orgs.permissions import Permission
from orgs.sessions.reads import live_sessions

BATCH = 500
"""Maximum number of identities that one transaction revokes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The numbers of what a revocation ended."""

    identities: int
    credentials: int


def get_identity(access: Access, username: str) -> MqttIdentity:
    """Get an identity by the local part of its username; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return find_identity(access, username)


def merge_claims(
    access: Access, username: str, claims: Mapping[str, object], *, without: Collection[str] = ()
) -> MqttIdentity:
    """Set these claims, take those of ``without`` away and keep the others; they apply to live sessions at once.

    Raises :class:`Invalid`.
    """
    access.require(Permission.CREDENTIALS_MANAGE)

    def merged(present: dict[str, ClaimValue]) -> dict[str, ClaimValue]:
        kept = {name: value for name, value in present.items() if name not in without}
        return {**kept, **clean_claims(claims)}

    return _set_claims(access, username, merged)


def remove_claim(access: Access, username: str, name: str) -> MqttIdentity:
    """Remove a claim; raises :class:`NotFound` when the identity has no such claim."""
    access.require(Permission.CREDENTIALS_MANAGE)

    def without(present: dict[str, ClaimValue]) -> dict[str, ClaimValue]:
        if name not in present:
            raise NotFound("The claim", code="claim_not_found")
        return {key: value for key, value in present.items() if key != name}

    return _set_claims(access, username, without)


@dataclass(frozen=True, slots=True)
class Reach:
    """The impact of a revocation. ``sessions`` is None without permission to read them, or if Redis is unavailable."""

    identities: int
    credentials: int
    sessions: int | None


def reach_of(access: Access, *, issued_by: Collection[str] = ()) -> Reach:
    """Compute the impact of :func:`revoke_issued_by`, or of :func:`revoke_everything` without ``issued_by``."""
    access.require(Permission.CREDENTIALS_MANAGE)
    tokens: list[str] | None = None
    if access.may(Permission.ORG_READ):
        with suppress(Unavailable):
            tokens = [session.token_id for session in live_sessions(access)]
    with org_scope(access.org_id):
        live = _live_of(access, issued_by, timezone.now())
        found = live.aggregate(identities=Count("identity_id", distinct=True), credentials=Count("id"))
        if tokens and issued_by:
            theirs = set(live.filter(token_id__in=tokens).values_list("token_id", flat=True))
            tokens = [token for token in tokens if token in theirs]
    return Reach(found["identities"], found["credentials"], None if tokens is None else len(tokens))


def revoke_issued_by(access: Access, actors: Sequence[str]) -> Ended:
    """Revoke every live credential that these actors (``key:sk_...x7m4``) issued; the audit log names the first."""
    access.require(Permission.CREDENTIALS_MANAGE)
    if not actors:
        return Ended(0, 0)
    return _revoke(access, target=f"actor:{actors[0]}", issued_by=actors)


def revoke_everything(access: Access) -> Ended:
    """Revoke every live credential of the organization, which closes every live session."""
    access.require(Permission.CREDENTIALS_MANAGE)
    return _revoke(access, target=f"org:{access.org_id}", issued_by=())


def _set_claims(
    access: Access, username: str, change: Callable[[dict[str, ClaimValue]], dict[str, ClaimValue]]
) -> MqttIdentity:
    with org_scope(access.org_id):
        identity = find_identity(access, username, lock=True)
        before = dict(identity.claims)
        after = bounded(change(before))
        if after != before:
            identity.claims = after
            tell_edges(identity)
            record_claims(access, identity, before)
    return identity


def _revoke(access: Access, *, target: str, issued_by: Collection[str]) -> Ended:
    """Revoke credentials in batches with an audit event each, so that no transaction grows with the organization.

    Identities are locked in the order of their IDs, as everywhere, so that two revocations cannot deadlock.
    """
    now = timezone.now()
    identities = credentials = 0
    while True:
        with org_scope(access.org_id):
            live = _live_of(access, issued_by, now)
            ids = list(live.order_by("identity_id").values_list("identity_id", flat=True).distinct()[:BATCH])
            if not ids:
                return Ended(identities, credentials)
            locked = list(MqttIdentity.objects.select_for_update().filter(pk__in=ids).order_by("pk"))
            ended = live.filter(identity_id__in=ids).update(revoked_at=now)
            tell_edges_of_many(locked)
            rest = Credential.objects.filter(unended(now), org=access.org, identity_id__in=ids)
            left = set(rest.values_list("identity_id", flat=True))
            if gone := [identity for identity in locked if identity.pk not in left]:
                discard_sessions(gone)
            after = {"revoked": True, "identities": len(locked), "credentials": ended}
            record(access, kinds.CREDENTIAL_REVOKED, target=target, before={"revoked": False}, after=after)
        identities += len(locked)
        credentials += ended


def _live_of(access: Access, issued_by: Collection[str], now: datetime) -> QuerySet[Credential]:
    live = Credential.objects.filter(unended(now), org=access.org)
    return live.filter(created_by__in=issued_by) if issued_by else live

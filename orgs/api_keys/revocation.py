"""Revocation of an API key with all it has created: keys, providers, invitations, credentials and sessions.

Whoever held a leaked key may have made themselves something that lasts, directly or by a key that they made with it.
What was made is found by its maker's name in the audit (``key:sk_...x7m4``), which no two keys of an organization
share. What a later version lets keys make (webhooks) belongs into :func:`made_by`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.db.models import Q
from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.api_keys.keys import end_key, locked_key, may_revoke
from orgs.api_keys.reads import get_api_key
from orgs.credentials.identities import Ended, Reach, reach_of, revoke_issued_by
from orgs.models import ApiKey, IdentityProvider, Invitation
from orgs.permissions import Permission


@dataclass(frozen=True, slots=True)
class Made:
    """Everything still active that a key has created, directly or through keys it created."""

    keys: tuple[ApiKey, ...]
    providers: tuple[IdentityProvider, ...]
    """Identity providers that the key created or changed: it chose whose tokens are trusted."""
    invitations: tuple[Invitation, ...]
    issuers: tuple[str, ...]
    """Values of ``created_by`` of credentials: the keys, and the providers whose tokens were exchanged."""
    joined: int
    """People who accepted an invitation of the key. They stay members; an administrator has to check them."""


NOTHING = Made((), (), (), (), 0)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revoked key, and what was revoked with it."""

    key: ApiKey
    made: Made
    ended: Ended


def ends_all(access: Access, key: ApiKey) -> bool:
    """Whether revoking the key also revokes what it has created.

    Not for a person who ends their own CLI session and no longer has permission to manage credentials.
    """
    return access.may(Permission.API_KEYS_MANAGE) or access.may(Permission.CREDENTIALS_MANAGE)


def foresee(access: Access, key_id: int) -> tuple[ApiKey, Made, Reach]:
    """Get a key, and what :func:`revoke_api_key` would revoke now."""
    key = get_api_key(_entitled(access), key_id)
    if not may_revoke(access, key):
        access.require(Permission.API_KEYS_MANAGE)
    if not ends_all(access, key):
        return key, NOTHING, Reach(0, 0, 0)
    with org_scope(access.org_id):
        made = made_by(access, key)
    return key, made, reach_of(_entitled(access), issued_by=made.issuers)


def revoke_api_key(access: Access, key_id: int) -> Revoked:
    """Revoke a key and all it has created; members can revoke the keys of their own CLI sessions.

    The key ends first, in the transaction of the keys, providers and invitations it made; then its credentials, batch
    by batch. Doing it again ends what an interrupted one has left.
    """
    with org_scope(access.org_id):
        key = locked_key(access, key_id)
        if not may_revoke(access, key):
            access.require(Permission.API_KEYS_MANAGE)
        end_key(access, key)
        if not ends_all(access, key):
            return Revoked(key, NOTHING, Ended(0, 0))
        made = made_by(access, key)
        for child in made.keys:
            end_key(access, child, because=key)
        for provider in made.providers:
            _switch_off(access, provider, key)
        for invitation in made.invitations:
            _withdraw(access, invitation, key)
    return Revoked(key, made, revoke_issued_by(_entitled(access), made.issuers))


def made_by(access: Access, key: ApiKey) -> Made:
    """Collect what ``key`` and the keys below it have created; what an inactive key created may still be active."""
    now = timezone.now()
    below, actors = list[ApiKey](), {key.actor}
    known = list(ApiKey.objects.filter(org=access.org).select_related("person").order_by("pk"))
    for each in known:  # a key is made before its children, so one pass in the order of making finds all
        if each.created_by in actors and each.pk != key.pk:
            below.append(each)
            actors.add(each.actor)
    by_them = Q(created_by__in=actors) | Q(changed_by__in=actors)
    providers = tuple(IdentityProvider.objects.filter(by_them, org=access.org).order_by("name"))
    invited = Invitation.objects.filter(org=access.org, invited_by__in=actors)
    working = [each for each in below if each.revoked_at is None and (each.expires_at is None or each.expires_at > now)]
    issuers = (*sorted(actors), *(f"provider:{one.name}" for one in providers))
    return Made(
        tuple(working),
        tuple(one for one in providers if one.enabled),
        tuple(invited.filter(accepted_at=None, revoked_at=None, expires_at__gt=now).order_by("email")),
        issuers,
        invited.exclude(accepted_at=None).count(),
    )


def _entitled(access: Access) -> Access:
    """The access that revokes what a key has created: the permission to revoke the key suffices."""
    beyond = {Permission.CREDENTIALS_MANAGE, Permission.ORG_READ}
    return replace(access, permissions=access.permissions | beyond)


def _switch_off(access: Access, provider: IdentityProvider, key: ApiKey) -> None:
    provider.enabled = False
    provider.save(update_fields=["enabled"])
    record(
        access, kinds.PROVIDER_CHANGED, target=f"provider:{provider.name}", before={"id": provider.pk, "enabled": True},
        after={"id": provider.pk, "enabled": False, "because": str(key)},
    )  # fmt: skip


def _withdraw(access: Access, invitation: Invitation, key: ApiKey) -> None:
    invitation.revoked_at = timezone.now()
    invitation.save(update_fields=["revoked_at"])
    before = {"id": invitation.pk, "email": invitation.email, "role": str(invitation.role)}
    target = f"invitation:{invitation.email}"
    record(access, kinds.INVITATION_REVOKED, target=target, before=before, after={"because": str(key)})

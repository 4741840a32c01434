"""Learning which API key a request carries, and what it may do."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from cloudsignal.errors import Forbidden, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import api_key_scope, org_scope
from orgs.access.grants import Access, access_org, way_is_open
from orgs.models import ApiKey, Organization, Through
from orgs.permissions import PERMISSIONS, Permission, Role

SECRET = PERMISSIONS[Role.ADMIN]
"""What an ``sk_`` key may do: everything of the organization but deleting it or giving it away."""
USED_EVERY = timedelta(minutes=1)
"""``last_used_at`` is written at most this often."""


@dataclass(frozen=True, slots=True)
class AuthenticatedKey:
    """A request that carries a valid key."""

    key: ApiKey
    access: Access


def use_api_key(secret: str, *, ip: str) -> AuthenticatedKey:
    """Whose key this is and what it may do. Raises :class:`Unauthenticated` when it is none, expired or revoked, and
    :class:`Forbidden` when it may not be used from ``ip``, or its person would not be let in either."""
    digest = digest_of(secret)
    with api_key_scope(digest):
        key = ApiKey.objects.filter(digest=digest).select_related("person").first()
    now = timezone.now()
    if key is None:
        raise Unauthenticated("unauthorized", "The API key is not valid.")
    if (found := state(key, now)) != "active":
        raise Unauthenticated("unauthorized", f"The API key is {found}.")
    if key.ip_allow and not _within(ip, key.ip_allow):
        raise Forbidden("ip_not_allowed", f"This API key may not be used from {ip or 'an unknown address'}.")
    with org_scope(key.org_id):
        org = Organization.objects.filter(pk=key.org_id).first()
        if org is None:
            raise Unauthenticated("unauthorized", "The API key is not valid.")
        access = (
            _of_person(key, ip) if key.person else Access(org, None, None, permissions_held(key), key.actor, ip, key)
        )
        if key.last_used_at is None or now - key.last_used_at > USED_EVERY:
            ApiKey.objects.filter(org=org, pk=key.pk).update(last_used_at=now)
    return AuthenticatedKey(key, access)


def permissions_held(key: ApiKey) -> frozenset[Permission]:
    """What a key may do. ``pk`` holds no permission: it may exchange tokens and read public facts, nothing else."""
    match ApiKey.Kind(key.kind):
        case ApiKey.Kind.SECRET:
            return SECRET
        case ApiKey.Kind.RESTRICTED:
            return frozenset(scope for scope in SECRET if scope.value in key.scopes)
        case ApiKey.Kind.PUBLISHABLE:
            return frozenset()


def state(key: ApiKey, now: datetime) -> str:
    """``active``, ``expired`` or ``revoked``."""
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= now else "active"


def _of_person(key: ApiKey, ip: str) -> Access:
    """What a command line may do: what its person may at this moment, within the scopes of the key."""
    assert key.person is not None  # noqa: S101 - the caller has looked
    if key.sign_on:
        key.person.through = Through(key.org_id, key.sign_on)
        if not way_is_open(key.person.through, key.person):
            raise Unauthenticated("unauthorized", "The SSO connection of this key is disabled or removed.")
    try:
        found = access_org(key.person, key.org_id, ip)
    except NotFound:
        found = None
    if found is None or found.role is None or not key.person.is_active:
        raise Unauthenticated("unauthorized", "The person of this key is no longer a member of the organization.")
    if found.org.status != Organization.Status.ACTIVE:
        raise Forbidden("org_not_active", f"{found.org.name} is {found.org.status}; CLI sessions cannot use it.")
    return Access(found.org, None, found.role, found.permissions & permissions_held(key), key.actor, ip, key)


def digest_of(secret: str) -> str:
    """The SHA-256 that is stored of a key."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _within(ip: str, networks: Sequence[str]) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ipaddress.ip_network(network) for network in networks)

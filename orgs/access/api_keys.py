"""Authentication of API keys, and their permissions."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from cloudsignal.errors import Forbidden, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import api_key_scope, org_scope
from orgs.access.grants import Access, access_org, sso_session_valid
from orgs.models import ApiKey, Organization, SsoSession
from orgs.permissions import PERMISSIONS, Permission, Role

SECRET = PERMISSIONS[Role.ADMIN]
"""The permissions of an ``sk_`` key: all of the organization except deleting it and transferring ownership."""
USED_EVERY = timedelta(minutes=1)
"""Minimum interval between writes of ``last_used_at``."""


@dataclass(frozen=True, slots=True)
class AuthenticatedKey:
    """An authenticated API key and its access."""

    key: ApiKey
    access: Access


def use_api_key(secret: str, *, ip: str) -> AuthenticatedKey:
    """Authenticate an API key and resolve its access.

    Raises :class:`Unauthenticated` for an unknown, expired or revoked key, and :class:`Forbidden` when ``ip`` is not
    allowed or the person of a CLI session has no access.
    """
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
    """The permissions of an API key. A ``pk_`` key has none: it can exchange tokens and read public data only."""
    match ApiKey.Kind(key.kind):
        case ApiKey.Kind.SECRET:
            return SECRET
        case ApiKey.Kind.RESTRICTED:
            return frozenset(scope for scope in SECRET if scope.value in key.scopes)
        case ApiKey.Kind.PUBLISHABLE:
            return frozenset()


def state(key: ApiKey, now: datetime) -> str:
    """The state of an API key: ``active``, ``expired`` or ``revoked``."""
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= now else "active"


def _of_person(key: ApiKey, ip: str) -> Access:
    """Resolve the access of a CLI session: the person's present permissions, limited to the key's scopes."""
    assert key.person is not None  # noqa: S101 - the caller has looked
    if key.sign_on:
        key.person.sso_session = SsoSession(key.org_id, key.sign_on)
        if not sso_session_valid(key.person.sso_session, key.person):
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
    """The SHA-256 digest that is stored instead of an API key."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _within(ip: str, networks: Sequence[str]) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ipaddress.ip_network(network) for network in networks)

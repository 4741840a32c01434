"""API keys: create, rotate with overlap, revoke, and learn whose key a request carries.

A key is ``sk_``, ``rk_`` or ``pk_`` and 27 base62 characters (160 bits). It leaves here once; only its SHA-256 is
stored. Nobody can make a key that may do more than they may themselves.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, NotFound, Unauthenticated
from orgs.access import Access, permissions_of
from orgs.models import ApiKey, Organization
from orgs.permissions import PERMISSIONS, Permission, Role
from orgs.services.organizations import clean_name
from orgs.tenancy import api_key_scope, org_scope

SECRET = PERMISSIONS[Role.ADMIN]
"""What an ``sk_`` key may do: everything of the organization but deleting it or giving it away."""
RANDOM = 27
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEYS_MAX = 100
"""Keys of one organization that work at the same time."""
NETWORKS_MAX = 50
OVERLAP_DEFAULT = 24 * 3600
OVERLAP_MAX = 30 * 24 * 3600
"""Seconds that the old key works beside its successor."""
USED_EVERY = timedelta(minutes=1)
"""``last_used_at`` is written at most this often."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only place it is ever in the clear."""

    key: ApiKey
    secret: str


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A request that carries a valid key."""

    key: ApiKey
    access: Access


def create_api_key(
    access: Access,
    *,
    kind: str,
    name: str,
    scopes: Sequence[str] = (),
    ip_allow: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key. ``scopes`` are values of :class:`Permission`, for ``rk`` only; ``ip_allow`` holds networks (CIDR).

    Raises :class:`Invalid` for wrong input, :class:`Forbidden` when the key could do more than its maker, and
    :class:`Limit` at :data:`KEYS_MAX` keys.
    """
    access.require(Permission.API_KEYS_MANAGE)
    made = _checked(kind, clean_name(name), scopes, ip_allow, expires_at)
    _not_beyond(access, made)
    with org_scope(access.org_id):
        return _store(access, made, kind=kinds.API_KEY_CREATED, before=None)


def rotate_api_key(access: Access, key_id: int, *, overlap: int = OVERLAP_DEFAULT) -> NewKey:
    """Make a successor with the same rights; the old key works ``overlap`` seconds longer, or until its own expiry.

    Raises :class:`Conflict` for a key that does not work any more.
    """
    access.require(Permission.API_KEYS_MANAGE)
    if not 0 <= overlap <= OVERLAP_MAX:
        raise Invalid("bad_overlap", f"The overlap is 0 to {OVERLAP_MAX} seconds.", field="overlap")
    now = timezone.now()
    with org_scope(access.org_id):
        old = _locked(access, key_id)
        if state(old, now) != "active":
            raise Conflict("key_not_active", f"This key is {state(old, now)}; create a new one.")
        _not_beyond(access, old)
        lifetime = old.expires_at - old.created_at if old.expires_at else None
        successor = ApiKey(kind=old.kind, name=old.name, scopes=old.scopes, ip_allow=old.ip_allow)
        successor.expires_at = now + lifetime if lifetime else None
        end = now + timedelta(seconds=overlap)
        old.expires_at = min(old.expires_at, end) if old.expires_at else end
        old.save(update_fields=["expires_at"])
        before = {"key": str(old), "id": old.pk, "expires_at": old.expires_at.isoformat()}
        return _store(access, successor, kind=kinds.API_KEY_ROTATED, before=before)


def revoke_api_key(access: Access, key_id: int) -> ApiKey:
    """End a key at once. Revoking twice changes nothing."""
    access.require(Permission.API_KEYS_MANAGE)
    with org_scope(access.org_id):
        key = _locked(access, key_id)
        if key.revoked_at is None:
            key.revoked_at = timezone.now()
            key.save(update_fields=["revoked_at"])
            record(
                access,
                kinds.API_KEY_REVOKED,
                target=f"api_key:{key}",
                before={"id": key.pk, "revoked": False},
                after={"id": key.pk, "revoked": True},
            )
    return key


def list_api_keys(access: Access) -> tuple[ApiKey, ...]:
    """Every key of the organization, newest first, masked."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return tuple(ApiKey.objects.filter(org=access.org).order_by("-created_at", "-id"))


def get_api_key(access: Access, key_id: int) -> ApiKey:
    """One key, masked; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = ApiKey.objects.filter(org=access.org, pk=key_id).first()
    if found is None:
        raise NotFound("The API key")
    return found


def use_api_key(secret: str, *, ip: str) -> KeyUse:
    """Whose key this is and what it may do. Raises :class:`Unauthenticated` when it is none, expired or revoked, and
    :class:`Forbidden` when it may not be used from ``ip``."""
    digest = _digest(secret)
    with api_key_scope(digest):
        key = ApiKey.objects.filter(digest=digest).first()
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
        if key.last_used_at is None or now - key.last_used_at > USED_EVERY:
            ApiKey.objects.filter(org=org, pk=key.pk).update(last_used_at=now)
    return KeyUse(key, Access(org, None, None, permissions_held(key), f"key:{key}", ip))


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


def _checked(
    kind: str, name: str, scopes: Sequence[str], ip_allow: Sequence[str], expires_at: datetime | None
) -> ApiKey:
    if kind not in ApiKey.Kind.values:
        raise Invalid("bad_kind", f"The kind is one of {', '.join(ApiKey.Kind.values)}.", field="kind")
    if kind == ApiKey.Kind.RESTRICTED and not scopes:
        raise Invalid("scopes_missing", "A restricted key needs at least one scope.", field="scopes")
    if kind != ApiKey.Kind.RESTRICTED and scopes:
        raise Invalid("scopes_not_taken", "Only restricted keys take scopes.", field="scopes")
    if beyond := sorted(permissions_of(scopes) - SECRET):
        raise Invalid("scope_not_for_keys", f"No key can hold {beyond[0]}: it needs a person.", field="scopes")
    if expires_at is not None and expires_at <= timezone.now():
        raise Invalid("expiry_past", "The expiry lies in the past.", field="expires_at")
    return ApiKey(kind=kind, name=name, scopes=sorted(set(scopes)), ip_allow=_networks(ip_allow), expires_at=expires_at)


def _not_beyond(access: Access, key: ApiKey) -> None:
    if beyond := sorted(permissions_held(key) - access.permissions):
        raise Forbidden("beyond_own_rights", f"The key would include {beyond[0]}, which you do not hold yourself.")


def _store(access: Access, key: ApiKey, *, kind: str, before: dict[str, object] | None) -> NewKey:
    Organization.objects.select_for_update().get(pk=access.org_id)
    known = list(ApiKey.objects.filter(org=access.org))
    if sum(state(each, timezone.now()) == "active" for each in known) >= KEYS_MAX:
        raise Limit("too_many_keys", f"An organization has at most {KEYS_MAX} working keys; revoke one first.")
    secret = _new_secret(key.kind, {str(each) for each in known})
    key.org, key.created_by = access.org, access.actor
    key.digest, key.hint = _digest(secret), secret[-4:]
    key.save(force_insert=True)
    after = {
        "id": key.pk,
        "key": str(key),
        "name": key.name,
        "scopes": key.scopes,
        "ip_allow": key.ip_allow,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }
    record(access, kind, target=f"api_key:{key}", before=before, after=after)
    return NewKey(key, secret)


def _new_secret(kind: str, masks: Collection[str]) -> str:
    """A key whose mask (``sk_...x7m4``) no other key of the organization has had: the audit names keys by it, and all
    that one key has issued is found by it."""
    while True:
        secret = f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
        if f"{kind}_...{secret[-4:]}" not in masks:
            return secret


def _locked(access: Access, key_id: int) -> ApiKey:
    found = ApiKey.objects.select_for_update().filter(org=access.org, pk=key_id).first()
    if found is None:
        raise NotFound("The API key")
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _networks(ip_allow: Sequence[str]) -> list[str]:
    if len(ip_allow) > NETWORKS_MAX:
        raise Invalid("too_many_networks", f"An allow list has at most {NETWORKS_MAX} networks.", field="ip_allow")
    found = []
    for text in ip_allow:
        try:
            found.append(str(ipaddress.ip_network(text.strip(), strict=False)))
        except ValueError:
            raise Invalid(
                "bad_network", f"{text[:64]!r} is not a network; write 203.0.113.7 or 203.0.113.0/24.", field="ip_allow"
            ) from None
    return found


def _within(ip: str, networks: Sequence[str]) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ipaddress.ip_network(network) for network in networks)

"""API keys: create, rotate with overlap, revoke.

A key is ``sk_``, ``rk_`` or ``pk_`` and 27 base62 characters (160 bits). It leaves here once; only its SHA-256 is
stored. Nobody can make a key that may do more than they may themselves.

A person's command line holds a key of its own (``ApiKey.person``): it acts with their role as of each use.
"""

from __future__ import annotations

import ipaddress
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from audit import kinds
from audit.services.record import Actor, record
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, quoted
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.acting_key import hold_acting_key
from orgs.access.api_keys import SECRET, AuthenticatedKey, digest_of, permissions_held, state
from orgs.access.grants import SSO_SESSION_LIFETIME, Access, permissions_of
from orgs.access.rows import get_or_404
from orgs.actors import SystemActor
from orgs.api_keys.reads import cli_sessions_of
from orgs.models import ApiKey, Organization, User
from orgs.names import NAME_MAX, clean_name
from orgs.permissions import CLI_SESSION, Permission

RANDOM = 27
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEYS_MAX = 100
"""Maximum number of active keys of an organization; those of CLI sessions are counted separately."""
PERSONAL_MAX = 20
"""Maximum number of CLI sessions of a person in an organization."""
PERSONAL_LIFETIME = timedelta(days=30)
NETWORKS_MAX = 50
OVERLAP_DEFAULT = 24 * 3600
OVERLAP_MAX = 30 * 24 * 3600
"""How long the old key stays active beside its successor, in seconds."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created, with its secret, which is not stored."""

    key: ApiKey
    secret: str


def create_api_key(
    access: Access,
    *,
    kind: str,
    name: str,
    scopes: Sequence[str] = (),
    ip_allow: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewKey:
    """Create a key. ``scopes`` are values of :class:`Permission`, for ``rk`` only; ``ip_allow`` holds CIDR networks.

    Raises :class:`Invalid` for wrong input, :class:`Forbidden` when the key could do more than its maker, and
    :class:`Limit` at :data:`KEYS_MAX` keys.
    """
    access.require(Permission.API_KEYS_MANAGE)
    made = _checked(kind, clean_name(name), scopes, ip_allow, expires_at)
    _not_beyond(access, made)
    with org_scope(access.org_id):
        return _store(access, made, kind=kinds.API_KEY_CREATED)


def create_personal_key(access: Access, *, machine: str) -> NewKey:
    """Create the key of a CLI session; ``machine`` is the name that the CLI sends.

    Raises :class:`Limit` at :data:`PERSONAL_MAX` of them and :class:`Forbidden` for who is no member.
    """
    if access.user is None or access.role is None:
        raise Forbidden("needs_member", "Only a member of the organization can authorize the CLI.")
    whose = f"CLI of {access.user.email}"
    made = ApiKey(
        kind=ApiKey.Kind.RESTRICTED,
        person=access.user,
        name=clean_name(f"{whose} on {machine}"[:NAME_MAX] if machine else whose[:NAME_MAX]),
        scopes=sorted(CLI_SESSION),
        sign_on=access.user.sso_session.sign_on_id if access.user.sso_session else "",
        expires_at=timezone.now() + personal_lifetime(access.user),
    )
    with org_scope(access.org_id):
        return _store(access, made, kind=kinds.API_KEY_CREATED)


def personal_lifetime(person: User) -> timedelta:
    """The lifetime of a CLI session's key: shorter if its person signed in through SSO."""
    return PERSONAL_LIFETIME if person.sso_session is None else SSO_SESSION_LIFETIME


def rotate_api_key(access: Access, key_id: int, *, overlap: int = OVERLAP_DEFAULT) -> NewKey:
    """Replace a key by one with the same scopes; the old key stays active for ``overlap`` seconds or until its expiry.

    Raises :class:`Conflict` for a key that does not work any more or has a successor already.
    """
    access.require(Permission.API_KEYS_MANAGE)
    if not 0 <= overlap <= OVERLAP_MAX:
        raise Invalid("bad_overlap", f"The overlap is 0 to {OVERLAP_MAX} seconds.", field="overlap")
    now = timezone.now()
    with org_scope(access.org_id):
        old = locked_key(access, key_id)
        check_rotatable(old, now)
        lifetime = old.expires_at - old.created_at if old.expires_at else None
        successor = ApiKey(kind=old.kind, name=old.name, scopes=old.scopes, ip_allow=old.ip_allow)
        successor.expires_at = now + lifetime if lifetime else None
        _not_beyond(access, successor)
        end = now + timedelta(seconds=overlap)
        before = {"key": str(old), "id": old.pk, "expires_at": old.expires_at.isoformat() if old.expires_at else None}
        old.expires_at = min(old.expires_at, end) if old.expires_at else end
        old.rotated_at = now
        old.save(update_fields=["expires_at", "rotated_at"])
        after = {"former_expires_at": old.expires_at.isoformat()}
        return _store(access, successor, kind=kinds.API_KEY_ROTATED, before=before, after=after)


def check_rotatable(key: ApiKey, now: datetime) -> None:
    """Raise :class:`Conflict` unless the key can be rotated."""
    if key.person_id is not None:
        raise Conflict(
            "personal_key", "The key of a CLI session cannot be rotated; run `cloudsignal login` to get a new one."
        )
    if (found := state(key, now)) != "active":
        raise Conflict("key_not_active", f"This key is {found}; create a new one.")
    if key.rotated_at is not None:
        raise Conflict("rotated_already", "This key is already replaced; rotate the newer key.")


def may_revoke(access: Access, key: ApiKey) -> bool:
    """Whether ``access`` may revoke the key: with permission to manage keys, or as the person of its CLI session."""
    own = access.user is not None and key.person_id == access.user.pk
    return own or access.may(Permission.API_KEYS_MANAGE)


def end_own_key(use: AuthenticatedKey) -> ApiKey:
    """Sign a CLI session out by revoking the key that calls. Raises :class:`Forbidden` for keys of programs."""
    if use.key.person_id is None:
        raise Forbidden("needs_command_line", "Only the key of a CLI session can sign itself out; revoke this key.")
    with org_scope(use.access.org_id):
        key = locked_key(use.access, use.key.pk)
        end_key(use.access, key)
    return key


def end_personal_keys(actor: Actor, person: User, *, key_id: int | None = None) -> None:
    """Revoke the CLI sessions of a person in the organization of ``actor``, or only ``key_id``. Needs its scope."""
    found = ApiKey.objects.select_for_update().filter(org=actor.org_id, person=person, revoked_at=None)
    for key in found.filter(pk=key_id) if key_id is not None else found:
        end_key(actor, key)


def end_cli_sessions(person: User, *, ip: str = "") -> None:
    """Revoke the CLI sessions of a person in every organization."""
    for org_id in sorted({key.org_id for key in cli_sessions_of(person)}):
        with org_scope(org_id):
            end_personal_keys(SystemActor(org_id, f"user:{person.email}", ip), person)


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
        raise Invalid(
            "scope_not_for_keys", f"No key can have the scope {beyond[0]}: it needs a person.", field="scopes"
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise Invalid("expiry_past", "The expiry is in the past; choose a later day.", field="expires_at")
    return ApiKey(kind=kind, name=name, scopes=sorted(set(scopes)), ip_allow=_networks(ip_allow), expires_at=expires_at)


def _not_beyond(access: Access, key: ApiKey) -> None:
    """Refuse a key with more permissions than its creator; of a key, also a longer lifetime or wider networks."""
    if beyond := sorted(permissions_held(key) - access.permissions):
        raise Forbidden("beyond_own_rights", f"The key would include {beyond[0]}, which you do not hold yourself.")
    maker = access.key
    if maker is None:
        return
    if maker.expires_at and (key.expires_at is None or key.expires_at > maker.expires_at):
        until = f"{maker.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        raise Forbidden(
            "outlives_maker",
            f"{maker} expires at {until}, so a key it creates must expire by then.",
            field="expires_at",
        )
    if maker.ip_allow and not (key.ip_allow and all(_covered(each, maker.ip_allow) for each in key.ip_allow)):
        allowed = ", ".join(maker.ip_allow)
        raise Forbidden(
            "beyond_own_networks",
            f"{maker} is limited to {allowed}, so a key it creates must be too.",
            field="ip_allow",
        )


def _covered(network: str, allowed: Sequence[str]) -> bool:
    inner = ipaddress.ip_network(network)
    outer = [ipaddress.ip_network(each) for each in allowed]
    return any(one.version == inner.version and inner.subnet_of(one) for one in outer)  # type: ignore[arg-type]


def _store(
    access: Access,
    key: ApiKey,
    *,
    kind: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> NewKey:
    hold_acting_key(access)
    Organization.objects.select_for_update().get(pk=access.org_id)
    known = list(ApiKey.objects.filter(org=access.org))
    alike = [each for each in known if (each.person_id is None) == (key.person is None)]
    working = [each.person_id for each in alike if state(each, timezone.now()) == "active"]
    if key.person is not None and working.count(key.person.pk) >= PERSONAL_MAX:
        raise Limit("too_many_keys", f"You have {PERSONAL_MAX} CLI sessions; revoke one of their keys.")
    if key.person is None and len(working) >= KEYS_MAX:
        raise Limit("too_many_keys", f"An organization has at most {KEYS_MAX} active keys; revoke one first.")
    secret = _new_secret(key.kind, {str(each) for each in known})
    key.org, key.created_by = access.org, access.actor
    key.digest, key.hint = digest_of(secret), secret[-4:]
    key.save(force_insert=True)
    facts: dict[str, object] = {
        "id": key.pk,
        "key": str(key),
        "name": key.name,
        "person": key.person.email if key.person else None,
        "scopes": key.scopes,
        "ip_allow": key.ip_allow,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }
    record(access, kind, target=f"api_key:{key}", before=before, after={**facts, **(after or {})})
    return NewKey(key, secret)


def _new_secret(kind: str, masks: Collection[str]) -> str:
    """Generate a key whose mask (``sk_...x7m4``) is unique in the organization: the audit log names keys by it, and
    what a key has issued is found by it."""
    while True:
        secret = f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
        if f"{kind}_...{secret[-4:]}" not in masks:
            return secret


def end_key(actor: Actor, key: ApiKey, *, because: ApiKey | None = None) -> None:
    """Revoke a locked key alone; ``because`` is the key that created it. Revoking twice changes nothing."""
    if key.revoked_at is not None:
        return
    key.revoked_at = timezone.now()
    key.save(update_fields=["revoked_at"])
    before = {"id": key.pk, "revoked": False}
    after = {"id": key.pk, "revoked": True, **({"because": str(because)} if because else {})}
    record(actor, kinds.API_KEY_REVOKED, target=f"api_key:{key}", before=before, after=after)


def locked_key(access: Access, key_id: int) -> ApiKey:
    """Get a key of the organization and lock it; raises :class:`NotFound`."""
    return get_or_404(ApiKey, access.org_id, "The API key", lock=True, pk=key_id)


def _networks(ip_allow: Sequence[str]) -> list[str]:
    if len(ip_allow) > NETWORKS_MAX:
        raise Invalid("too_many_networks", f"An allow list has at most {NETWORKS_MAX} networks.", field="ip_allow")
    found = []
    for text in ip_allow:
        try:
            found.append(str(ipaddress.ip_network(text.strip(), strict=False)))
        except ValueError:
            raise Invalid(
                "bad_network",
                f"{quoted(text[:64])} is not a network; write 203.0.113.7 or 203.0.113.0/24.",
                field="ip_allow",
            ) from None
    return found

"""MQTT credentials: issue, refresh, revoke. A password is returned once and stored only as a keyed hash.

Pushing to the edges: the change commits first, then the sealed record is written to Redis before the answer goes out
(``outbox.enqueue(immediate=True)``), so a secret works the moment somebody reads it. When Redis does not answer within
half a second, a worker delivers it instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from math import ceil

from django.db.models import F, QuerySet, Value
from django.db.models.functions import Coalesce, Least
from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal import ids
from cloudsignal.errors import Conflict, Invalid, Limit, Unauthenticated
from cloudsignal.secrets.keyring import pepper
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.credential import ClaimValue, make_secret, secret_mac
from orgs.access.acting_key import hold_acting_key
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.credentials.claims import bounded, clean_claims
from orgs.credentials.edges import discard_sessions, tell_edges
from orgs.models import Credential, MqttIdentity, Organization
from orgs.models.credential import RENEWED_AT_MOST, signing_in, unended
from orgs.permissions import Permission

TTL_DEFAULT = 3600
TTL_MIN = 60
TTL_MAX = 86_400
"""Bounds and default of the lifetime of a short-lived credential, in seconds."""
LIVE_SECRETS_MAX = 20
"""Maximum number of active credentials of a username: one more retires the short-lived one that was issued or refreshed
longest ago."""
LOCAL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential that was just issued, with its password, which is not stored."""

    username: str
    """Full MQTT username, ``local@org``."""
    local: str
    password: str
    token_id: str
    issued_at: datetime
    expires_at: datetime | None
    """None for a static credential."""
    email: str
    provider: str

    @property
    def static(self) -> bool:
        """Whether the credential is static: it never expires."""
        return self.expires_at is None

    @property
    def expires_in(self) -> int | None:
        """The lifetime in seconds, from its issue."""
        return None if self.expires_at is None else round((self.expires_at - self.issued_at).total_seconds())

    @property
    def refresh_recommended_at(self) -> datetime | None:
        """When to refresh the credential: at 90 % of its lifetime."""
        return None if self.expires_at is None else self.issued_at + (self.expires_at - self.issued_at) * 0.9


@dataclass(frozen=True, slots=True)
class External:
    """The user's identity at a provider; the same identity always gets the same username."""

    provider: str
    external_id: str
    email: str = ""


def issue_credential(
    access: Access,
    *,
    username: str | None = None,
    ttl: int = TTL_DEFAULT,
    claims: Mapping[str, ClaimValue] | None = None,
    static: bool = False,
    note: str = "",
    external: External | None = None,
    replace_existing: bool = False,
    keep_claims: bool = False,
    revive: bool = True,
) -> Issued:
    """Issue a credential for ``username``, or for a new opaque username if none is given.

    ``ttl`` is in seconds and is ignored for ``static``; ``claims`` are merged into the identity's, and those it has
    already win with ``keep_claims``; ``replace_existing`` revokes its other secrets, which closes their sessions. A
    revoked username comes back with this secret alone, or without ``revive`` not at all (:class:`Unauthenticated`).
    Raises :class:`Invalid` for a bad name, ttl or claims, and :class:`Limit` when the username has
    :data:`LIVE_SECRETS_MAX` static secrets, which never make room.
    """
    access.require(Permission.CREDENTIALS_MANAGE)
    _check_name(username, static=static)
    if not static:
        check_ttl(ttl)
    if len(note) > 200:
        raise Invalid("note_too_long", "A note has at most 200 characters.", field="note")
    wanted = clean_claims(claims or {})
    with org_scope(access.org_id):
        hold_acting_key(access)
        identity = _identity(access, username, external)
        if identity.revoked_at is not None and not revive:
            raise Unauthenticated("unauthorized", "The organization has revoked this user.")
        before, known = identity.claims, identity.revision > 0
        if wanted:
            identity.claims = bounded({**wanted, **before} if keep_claims else {**before, **wanted})
        identity.static = identity.static or static
        identity.note = note or identity.note
        identity.revoked_at = None
        ended = _unended(identity).update(revoked_at=timezone.now()) if replace_existing else 0
        issued, retired = _add_secret(access, identity, ttl=None if static else ttl)
        if known:
            record_claims(access, identity, before)
        if ended:
            _record_revoked(access, identity, ended)
        _record(access, kinds.CREDENTIAL_ISSUED, issued, identity, retired)
    return issued


def refresh_credential(access: Access, token_id: str, *, ttl: int | None = None) -> Issued:
    """Issue a further credential for the identity of ``token_id``, which stays active until its own expiry.

    The first one of the client stays valid longer, while it refreshes without a break, but no longer than
    :data:`~orgs.models.credential.RENEWED_AT_MOST`. A retired one can be refreshed too. The new one lives as long as
    the old one did, unless ``ttl`` says otherwise. Refused with :class:`Conflict` for static, expired or revoked
    credentials. ``access`` needs no permission here: the caller has shown the current secret (:func:`check_secret`) or
    holds ``credentials.manage``.
    """
    with org_scope(access.org_id):
        named = get_or_404(Credential, access.org_id, "The credential", token_id=token_id)
        identity = MqttIdentity.objects.select_for_update().get(org=access.org, pk=named.identity_id)
        found = Credential.objects.get(org=access.org, pk=named.pk)  # it may have been revoked before the lock
        if not found.refreshable:
            raise Conflict(f"credential_{found.state}", f"This credential is {found.state}; request a new one.")
        assert found.expires_at is not None  # noqa: S101 - a static one cannot be refreshed
        lifetime = ceil((found.expires_at - found.issued_at).total_seconds())
        issued, retired = _add_secret(access, identity, ttl=check_ttl(ttl or lifetime), refreshed=found)
        _record(access, kinds.CREDENTIAL_REFRESHED, issued, identity, retired)
    return issued


def check_secret(org: Organization, token_id: str, secret: str) -> Credential:
    """Verify a token ID and its password; raises :class:`Unauthenticated` if they do not match."""
    with org_scope(org.pk):
        found = Credential.objects.filter(org=org, token_id=token_id).select_related("identity").first()
    mac = bytes(found.mac) if found else bytes(32)
    expires = int(found.expires_at.timestamp()) if found and found.expires_at else 0
    username = found.identity.username if found else ""
    offered = secret_mac(pepper(), org=org.pk, username=username, secret=secret, expires_at=expires)
    if not compare_digest(mac, offered) or found is None:
        raise Unauthenticated("unauthorized", "The token and the password do not match.")
    return found


def revoke_credential(access: Access, token_id: str) -> Credential:
    """Revoke a credential and close the sessions that signed in with it. Revoking twice changes nothing."""
    access.require(Permission.CREDENTIALS_MANAGE)
    with org_scope(access.org_id):
        named = get_or_404(Credential, access.org_id, "The credential", token_id=token_id)
        identity = MqttIdentity.objects.select_for_update().get(org=access.org, pk=named.identity_id)
        found = Credential.objects.select_for_update().select_related("identity").get(org=access.org, pk=named.pk)
        if found.revoked_at is None:
            found.revoked_at = timezone.now()
            found.save(update_fields=["revoked_at"])
            # The chain of refreshes ends here: its first password goes back to its own expiry.
            Credential.objects.filter(org=access.org, token_id=found.first).update(renewed_until=None)
            tell_edges(identity)
            record(
                access,
                kinds.CREDENTIAL_REVOKED,
                target=f"credential:{token_id}",
                username=identity.username,
                before={"revoked": False},
                after={"revoked": True, "token_id": token_id},
            )
    return found


def revoke_identity(access: Access, username: str) -> MqttIdentity:
    """Revoke a username with all of its credentials and sessions; only a new credential reactivates it."""
    access.require(Permission.CREDENTIALS_MANAGE)
    with org_scope(access.org_id):
        identity = find_identity(access, username, lock=True)
        if identity.revoked_at is None:
            identity.revoked_at = timezone.now()
            ended = _unended(identity).update(revoked_at=identity.revoked_at)
            tell_edges(identity)
            discard_sessions([identity])
            _record_revoked(access, identity, ended)
    return identity


def find_identity(access: Access, username: str, *, lock: bool = False) -> MqttIdentity:
    """Get the identity of a username's local part, locked if ``lock``; raises :class:`NotFound`. Needs the scope."""
    local = local_name(access, username)
    return get_or_404(MqttIdentity, access.org_id, "The user", code="user_not_found", lock=lock, username=local)


def local_name(access: Access, username: str) -> str:
    """The local part of a username, given with or without ``@ORG``."""
    return username.removesuffix(f"@{access.org_id}")


def check_ttl(ttl: int) -> int:
    """Validate ``ttl`` against its bounds, in seconds; raises :class:`Invalid`."""
    if isinstance(ttl, bool) or not isinstance(ttl, int) or not TTL_MIN <= ttl <= TTL_MAX:
        raise Invalid("bad_ttl", f"The time to live is {TTL_MIN} to {TTL_MAX} seconds.", field="ttl")
    return ttl


def _check_name(username: str | None, *, static: bool) -> None:
    if static and username is None:
        raise Invalid("username_missing", "A static credential needs a name, such as press-line-4.", field="username")
    if username is not None and not LOCAL_NAME.match(username):
        raise Invalid(
            "bad_username",
            "A name has up to 63 of a-z, 0-9, - and _, and begins with a letter or digit.",
            field="username",
        )


def _identity(access: Access, username: str | None, external: External | None) -> MqttIdentity:
    """Get or create the identity row, and lock it."""
    defaults = {"created_by": access.actor, "email": external.email if external else ""}
    rows = MqttIdentity.objects.select_for_update()
    if external is not None and username is None:
        identity, _ = rows.get_or_create(
            org=access.org,
            provider=external.provider,
            external_id=external.external_id,
            defaults={**defaults, "username": ids.local_username()},
        )
    else:
        identity, _ = rows.get_or_create(org=access.org, username=username or ids.local_username(), defaults=defaults)
    if external is not None and external.email:
        identity.email = external.email
    return identity


def _add_secret(
    access: Access, identity: MqttIdentity, *, ttl: int | None, refreshed: Credential | None = None
) -> tuple[Issued, Sequence[str]]:
    """Add a credential to an identity; returns it with the token IDs of those it retired.

    One that is ``refreshed`` passes its issuer on, so that revoking all that a key has issued reaches what has been
    fetched with it since.
    """
    issued_at = datetime.now(UTC).replace(microsecond=0)
    expires_at = None if ttl is None else issued_at + timedelta(seconds=ttl)
    secret = make_secret(pepper(), access.org_id)
    mac = secret_mac(
        pepper(),
        org=access.org_id,
        username=identity.username,
        secret=secret,
        expires_at=int(expires_at.timestamp()) if expires_at else 0,
    )
    credential = Credential.objects.create(
        org=access.org,
        identity=identity,
        token_id=ids.token_id(access.org_id),
        mac=mac,
        hint=secret[-4:],
        issued_at=timezone.now(),
        expires_at=expires_at,
        refreshed_from=refreshed.token_id if refreshed else "",
        first=(refreshed.first or refreshed.token_id) if refreshed else "",
        created_by=refreshed.created_by if refreshed else access.actor,
    )
    if refreshed is not None and expires_at is not None:
        _renew_first(credential, expires_at)
    retired = _make_room(identity, credential)
    tell_edges(identity)
    issued = Issued(
        username=f"{identity.username}@{access.org_id}",
        local=identity.username,
        password=secret,
        token_id=credential.token_id,
        issued_at=issued_at,
        expires_at=expires_at,
        email=identity.email,
        provider=identity.provider,
    )
    return issued, retired


def _renew_first(credential: Credential, until: datetime) -> None:
    """Extend the client's first password to the new expiry, within its bound, after a refresh."""
    first = Credential.objects.filter(org=credential.org_id, token_id=credential.first, revoked_at=None)
    bound = F("issued_at") + RENEWED_AT_MOST
    first.update(renewed_at=credential.issued_at, renewed_until=Least(Value(until), bound))


def _make_room(identity: MqttIdentity, newest: Credential) -> Sequence[str]:
    """Retire the credentials issued or refreshed longest ago that exceed the maximum; returns their token IDs."""
    now = timezone.now()
    live = Credential.objects.filter(signing_in(now), org=identity.org_id, identity=identity)
    beyond = live.count() - LIVE_SECRETS_MAX
    if beyond <= 0:
        return ()
    short = live.exclude(expires_at=None).exclude(pk=newest.pk)
    oldest = list(short.order_by(Coalesce("renewed_at", "issued_at"), "pk").values_list("token_id", flat=True)[:beyond])
    if len(oldest) < beyond:
        raise Limit(
            "too_many_secrets",
            f"{identity.username} has {LIVE_SECRETS_MAX} static credentials; revoke one first.",
            field="username",
            retry_after=60,
        )
    Credential.objects.filter(org=identity.org_id, token_id__in=oldest).update(retired_at=now)
    return oldest


def _unended(identity: MqttIdentity) -> QuerySet[Credential]:
    return Credential.objects.filter(unended(timezone.now()), org=identity.org_id, identity=identity)


def record_claims(access: Access, identity: MqttIdentity, before: Mapping[str, ClaimValue]) -> None:
    """Record changed claims in the audit log: policies decide by them."""
    if identity.claims != before:
        record(
            access,
            kinds.CLAIMS_CHANGED,
            target=f"identity:{identity.username}",
            username=identity.username,
            before={"claims": before},
            after={"claims": identity.claims},
        )


def _record_revoked(access: Access, identity: MqttIdentity, credentials: int) -> None:
    """Record the revocation of a username with the number of its credentials."""
    record(
        access,
        kinds.CREDENTIAL_REVOKED,
        target=f"identity:{identity.username}",
        username=identity.username,
        before={"revoked": False},
        after={"revoked": True, "credentials": credentials},
    )


def issued_facts(issued: Issued, claims: Mapping[str, ClaimValue]) -> dict[str, object]:
    """The audited fields of a credential: all but its password."""
    return {
        "token_id": issued.token_id,
        "expires_at": issued.expires_at.isoformat() if issued.expires_at else None,
        "static": issued.static,
        "hint": issued.password[-4:],
        "claims": claims,
    }


def _record(access: Access, kind: str, issued: Issued, identity: MqttIdentity, retired: Sequence[str]) -> None:
    """Record an issued credential, and those it retired."""
    after = issued_facts(issued, identity.claims) | ({"retired": list(retired)} if retired else {})
    record(access, kind, target=f"credential:{issued.token_id}", username=identity.username, after=after)

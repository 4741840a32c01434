"""Identity providers of an organization: add, change, remove, test a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, quoted
from cloudsignal.fetch import FetchError, check_url
from cloudsignal.secrets.sealing import seal
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.acting_key import hold_acting_key
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import IdentityProvider, Organization
from orgs.permissions import Permission
from orgs.providers.id_tokens import SECRET_PURPOSE, Verdict, judge

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
PROVIDERS_MAX = 20
SECRET_BYTES_MIN = 32
PUBLIC_KEY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SHARED_SECRET = ("HS256", "HS384", "HS512")
RESERVED = frozenset({"email"})
"""Reserved names, which mark identities without a provider."""
FIREBASE_KEYS = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted settings of a provider; empty ones get the kind's default. ``jwks_url`` or ``secret``, never both."""

    name: str
    kind: str
    issuer: str
    audience: str
    jwks_url: str = ""
    secret: str = ""
    algorithms: Sequence[str] = ()
    enabled: bool = True


def add_provider(access: Access, wanted: Wanted) -> IdentityProvider:
    """Add a provider. Raises :class:`Invalid`, :class:`Conflict` for a name that is taken, :class:`Limit`, and
    :class:`Forbidden` for a key that a provider would outlive or surpass."""
    access.require(Permission.PROVIDERS_MANAGE)
    _not_beyond(access)
    if not NAME.match(wanted.name) or wanted.name in RESERVED:
        raise Invalid("bad_name", "A name has up to 63 of a-z, 0-9, - and _, and is not `email`.", field="name")
    with org_scope(access.org_id):
        hold_acting_key(access)
        Organization.objects.select_for_update().get(pk=access.org_id)
        found = IdentityProvider.objects.filter(org=access.org)
        if found.filter(name=wanted.name).exists():
            raise Conflict("name_taken", f"A provider named {wanted.name} already exists.", field="name")
        if found.count() >= PROVIDERS_MAX:
            raise Limit("too_many_providers", f"An organization has at most {PROVIDERS_MAX} providers.")
        provider = IdentityProvider(org=access.org, name=wanted.name, created_by=access.actor)
        _apply(provider, wanted)
        provider.save(force_insert=True)
        record(access, kinds.PROVIDER_CHANGED, target=f"provider:{provider.name}", after=_facts(provider))
    return provider


def change_provider(access: Access, provider_id: str, wanted: Wanted) -> IdentityProvider:
    """Replace the settings of a provider, except its name.

    An empty ``secret`` keeps the present one unless a JWKS URL is given.
    """
    access.require(Permission.PROVIDERS_MANAGE)
    _not_beyond(access)
    with org_scope(access.org_id):
        hold_acting_key(access)
        provider = _found(access, provider_id, lock=True)
        if wanted.name != provider.name:
            raise Invalid(
                "name_is_fixed", "A provider's name is part of its users' names and cannot be changed.", field="name"
            )
        before = _facts(provider)
        _apply(provider, wanted)
        provider.updated_at, provider.changed_by = timezone.now(), access.actor
        provider.save()
        after = _facts(provider)
        record(access, kinds.PROVIDER_CHANGED, target=f"provider:{provider.name}", before=before, after=after)
    return provider


def remove_provider(access: Access, provider_id: str) -> None:
    """Remove a provider. Identities that it authenticated stay, with their credentials."""
    access.require(Permission.PROVIDERS_MANAGE)
    with org_scope(access.org_id):
        provider = _found(access, provider_id, lock=True)
        record(access, kinds.PROVIDER_CHANGED, target=f"provider:{provider.name}", before=_facts(provider))
        provider.delete()


def list_providers(access: Access) -> tuple[IdentityProvider, ...]:
    """List the providers by name."""
    access.require(Permission.ORG_READ)
    return enabled_providers(access.org_id, all_of_them=True)


def get_provider(access: Access, provider_id: str) -> IdentityProvider:
    """Get a provider; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return _found(access, provider_id)


def enabled_providers(org_id: str, *, all_of_them: bool = False) -> tuple[IdentityProvider, ...]:
    """List the enabled providers by name; they are public."""
    with org_scope(org_id):
        found = IdentityProvider.objects.filter(org_id=org_id).order_by("name")
        return tuple(found if all_of_them else found.filter(enabled=True))


def try_token(access: Access, provider_id: str, token: str) -> Verdict:
    """Test a token with every check of the exchange, without issuing anything. Fetches keys: outside transactions."""
    access.require(Permission.PROVIDERS_MANAGE)
    with org_scope(access.org_id):
        provider = _found(access, provider_id)
    return judge(provider, token.strip())


def _not_beyond(access: Access) -> None:
    """A provider lets its users in from anywhere, without end: a key that may not issue credentials itself, ends, or is
    bound to networks would make something that may do more than it."""
    key = access.key
    if key is None:
        return
    access.require(Permission.CREDENTIALS_MANAGE)
    if key.expires_at is not None or key.ip_allow:
        bound = "ends" if key.expires_at is not None else "is bound to networks"
        raise Forbidden(
            "outlives_maker",
            f"{key} {bound}, and a provider does not; use a key without an end and networks, or the dashboard.",
        )


def _found(access: Access, provider_id: str, *, lock: bool = False) -> IdentityProvider:
    what, code = "The identity provider", "provider_not_found"
    return get_or_404(IdentityProvider, access.org_id, what, code=code, lock=lock, pk=provider_id)


def _apply(provider: IdentityProvider, wanted: Wanted) -> None:
    if wanted.kind not in IdentityProvider.Kind.values:
        raise Invalid("bad_kind", f"The kind is one of {', '.join(IdentityProvider.Kind.values)}.", field="kind")
    if not wanted.audience.strip():
        raise Invalid(
            "audience_missing", "Enter the audience: tokens issued for other audiences are refused.", field="audience"
        )
    if wanted.secret and wanted.jwks_url:
        raise Invalid("two_keys", "Enter a JWKS URL or a shared secret, not both.", field="secret")
    _check(wanted.issuer, "issuer")
    provider.kind, provider.issuer, provider.audience = wanted.kind, wanted.issuer, wanted.audience.strip()
    provider.enabled = wanted.enabled
    if wanted.secret:
        if len(wanted.secret.encode()) < SECRET_BYTES_MIN:
            raise Invalid("weak_secret", f"A shared secret has at least {SECRET_BYTES_MIN} bytes.", field="secret")
        context = f"{provider.org_id} {provider.pk}"
        provider.secret, provider.jwks_url = seal(SECRET_PURPOSE, context, wanted.secret.encode()), ""
    elif wanted.jwks_url or provider.secret is None:
        provider.secret, provider.jwks_url = None, wanted.jwks_url or _default_url(wanted)
        if provider.jwks_url:
            _check(provider.jwks_url, "jwks_url")
    provider.algorithms = _algorithms(provider, wanted.algorithms)


def _algorithms(provider: IdentityProvider, wanted: Sequence[str]) -> list[str]:
    """Validate the pinned algorithms: of one family, so that no public key is used as a shared secret (RFC 8725)."""
    family = PUBLIC_KEY if provider.secret is None else SHARED_SECRET
    if wrong := [name for name in wanted if name not in family]:
        raise Invalid(
            "bad_algorithm", f"{quoted(wrong[0][:20])} does not match this kind of key: {', '.join(family)}.",
            field="algorithms",
        )  # fmt: skip
    if wanted:
        return sorted(set(wanted))
    if provider.secret is not None:
        return ["HS256"]
    only_rsa = {IdentityProvider.Kind.FIREBASE, IdentityProvider.Kind.AUTH0, IdentityProvider.Kind.CLERK}
    return ["RS256"] if provider.kind in only_rsa else ["ES256", "RS256"]


def _default_url(wanted: Wanted) -> str:
    match IdentityProvider.Kind(wanted.kind):
        case IdentityProvider.Kind.FIREBASE:
            return FIREBASE_KEYS
        case IdentityProvider.Kind.OIDC:
            return ""  # discovered from the issuer when it is needed
        case IdentityProvider.Kind.SUPABASE | IdentityProvider.Kind.AUTH0 | IdentityProvider.Kind.CLERK:
            return wanted.issuer.rstrip("/") + "/.well-known/jwks.json"


def _check(url: str, field: str) -> None:
    try:
        check_url(url)
    except FetchError as error:
        raise Invalid("bad_url", str(error), field=field) from None


def _facts(provider: IdentityProvider) -> dict[str, object]:
    """The audited fields of a provider: all but its secret."""
    return {
        "id": provider.pk,
        "kind": provider.kind,
        "issuer": provider.issuer,
        "audience": provider.audience,
        "jwks_url": provider.jwks_url,
        "algorithms": provider.algorithms,
        "shared_secret": provider.secret is not None,
        "enabled": provider.enabled,
    }

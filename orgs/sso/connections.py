"""SSO connections: add, change and remove them, and approve their email domains."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, NotFound, quoted
from cloudsignal.fetch import FetchError, check_url
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.access.second_factor import has_second_factor
from orgs.models import Membership, Organization, SignOnAccount, SingleSignOn, User
from orgs.names import clean_name
from orgs.people.members import clean_role
from orgs.permissions import Permission, Role
from orgs.providers.providers import PUBLIC_KEY
from orgs.sso import saml
from orgs.sso.protocol import seal_secret

SIGN_ONS_MAX = 5
DOMAINS_MAX = 20
NAME_MAX = 63
DOMAIN = re.compile(r"(?=.{4,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])\Z")


@dataclass(frozen=True, slots=True)
class WantedSignOn:
    """The wanted settings of an SSO connection.

    ``issuer``, ``client_id``, ``secret`` and ``algorithms`` are for OIDC, ``metadata`` is for SAML; an empty ``secret``
    keeps the present one.
    """

    name: str
    issuer: str = ""
    client_id: str = ""
    secret: str = ""
    drop_secret: bool = False
    algorithms: Sequence[str] = ()
    metadata: str = ""
    domains: Sequence[str] = ()
    role: str = ""
    required: bool = False
    enabled: bool = False


def add_sign_on(access: Access, kind: str, wanted: WantedSignOn) -> SingleSignOn:
    """Add an SSO connection. Raises :class:`Invalid`, :class:`Conflict` for a name that is taken, :class:`Limit`."""
    access.require(Permission.PROVIDERS_MANAGE)
    if kind not in SingleSignOn.Kind.values:
        raise Invalid("bad_kind", f"The kind is one of {', '.join(SingleSignOn.Kind.values)}.", field="kind")
    with org_scope(access.org_id):
        Organization.objects.select_for_update().get(pk=access.org_id)
        if SingleSignOn.objects.filter(org=access.org).count() >= SIGN_ONS_MAX:
            raise Limit("too_many_sign_ons", f"An organization has at most {SIGN_ONS_MAX} SSO connections.")
        sign_on = SingleSignOn(org=access.org, kind=kind, created_by=access.actor)
        _apply(access, sign_on, wanted)
        sign_on.save(force_insert=True)
        record(access, kinds.SIGN_ON_CHANGED, target=target_of(sign_on), after=_facts(sign_on))
    return sign_on


def change_sign_on(access: Access, sign_on_id: str, wanted: WantedSignOn) -> SingleSignOn:
    """Replace the settings of an SSO connection, except its kind. Domains that are still named stay approved."""
    access.require(Permission.PROVIDERS_MANAGE)
    with org_scope(access.org_id):
        Organization.objects.select_for_update().get(pk=access.org_id)
        sign_on = _locked(access.org_id, sign_on_id)
        before = _facts(sign_on)
        issuer = sign_on.issuer
        _apply(access, sign_on, wanted)
        sign_on.updated_at = timezone.now()
        sign_on.save()
        if sign_on.issuer != issuer:
            # Another provider's subjects are other people, even where they are spelled alike.
            SignOnAccount.objects.filter(org=access.org, sign_on=sign_on).delete()
        record(access, kinds.SIGN_ON_CHANGED, target=target_of(sign_on), before=before, after=_facts(sign_on))
    return sign_on


def remove_sign_on(access: Access, sign_on_id: str) -> None:
    """Remove an SSO connection. Its sessions end; people and memberships stay."""
    access.require(Permission.PROVIDERS_MANAGE)
    with org_scope(access.org_id):
        sign_on = _locked(access.org_id, sign_on_id)
        record(access, kinds.SIGN_ON_CHANGED, target=target_of(sign_on), before=_facts(sign_on))
        sign_on.delete()


def list_sign_ons(access: Access) -> tuple[SingleSignOn, ...]:
    """List the SSO connections by name."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return tuple(SingleSignOn.objects.filter(org=access.org).order_by("name"))


def get_sign_on(access: Access, sign_on_id: str) -> SingleSignOn:
    """Get one SSO connection; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(SingleSignOn, access.org_id, "The SSO connection", pk=sign_on_id)


def count_people(access: Access, sign_on: SingleSignOn) -> int:
    """Count the people who are linked to an SSO connection."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return SignOnAccount.objects.filter(org=access.org, sign_on=sign_on).count()


def waiting_domains(operator: User) -> tuple[SingleSignOn, ...]:
    """List all SSO connections that name email domains, with their organizations. For operators."""
    if not operator.is_operator:
        raise NotFound
    with platform_scope():
        rows = SingleSignOn.objects.exclude(domains=[]).select_related("org").order_by("org__name", "name")
        return tuple(rows)


def approve_domains(
    operator: User, org_id: str, sign_on_id: str, *, domains: Sequence[str], ip: str = ""
) -> SingleSignOn:
    """Approve exactly ``domains``, of those that the connection names. For operators.

    An operator's word is the proof of ownership: they have checked it outside CloudSignal. Raises :class:`Invalid` for
    a domain that was not named and :class:`Conflict` for one that is approved for another organization.
    """
    if not operator.is_operator:
        raise NotFound
    with platform_scope():
        # All that name a domain are locked, so that one who approves it elsewhere meanwhile is waited for.
        naming = SingleSignOn.objects.select_for_update().exclude(domains=[]).order_by("pk")
        taken = {domain for other in naming if other.org_id != org_id for domain in other.approved_domains}
        with org_scope(org_id):
            sign_on = _locked(org_id, sign_on_id)
            if unknown := set(domains) - set(sign_on.domains):
                raise Invalid("unknown_domain", f"The organization did not name {min(unknown)}.", field="domains")
            if foreign := set(domains) & taken:
                raise Conflict("domain_taken", f"{min(foreign)} is already approved for another organization.")
            before = {"approved_domains": sign_on.approved_domains}
            sign_on.approved_domains = sorted(set(domains))
            sign_on.save(update_fields=["approved_domains"])
            access = Access(sign_on.org, operator, None, frozenset(), f"operator:{operator.email}", ip)
            after = {"approved_domains": sign_on.approved_domains}
            record(access, kinds.SIGN_ON_CHANGED, target=target_of(sign_on), before=before, after=after)
    return sign_on


def target_of(sign_on: SingleSignOn) -> str:
    """The audit target of an SSO connection."""
    return f"sign_on:{sign_on.name}"


def _locked(org_id: str, sign_on_id: str) -> SingleSignOn:
    return get_or_404(SingleSignOn, org_id, "The SSO connection", lock=True, related=["org"], pk=sign_on_id)


def _apply(access: Access, sign_on: SingleSignOn, wanted: WantedSignOn) -> None:
    sign_on.name = _name(access, sign_on, wanted.name)
    if sign_on.kind == SingleSignOn.Kind.SAML:
        _apply_saml(sign_on, wanted)
    else:
        _apply_oidc(sign_on, wanted)
    sign_on.domains = _domains(wanted.domains)
    sign_on.approved_domains = [domain for domain in sign_on.approved_domains if domain in sign_on.domains]
    sign_on.role = _role(wanted.role)
    sign_on.enabled = wanted.enabled
    if wanted.required and not sign_on.required:
        _keep_a_way_in(access)
    sign_on.required = wanted.required


def _apply_oidc(sign_on: SingleSignOn, wanted: WantedSignOn) -> None:
    try:
        check_url(wanted.issuer)
    except FetchError as error:
        raise Invalid("bad_url", str(error), field="issuer") from None
    client_id = wanted.client_id.strip()
    if not client_id or not client_id.isprintable():
        raise Invalid("client_id_missing", "Enter the client ID from the provider.", field="client_id")
    if wrong := [name for name in wanted.algorithms if name not in PUBLIC_KEY]:
        raise Invalid(
            "bad_algorithm", f"{quoted(wrong[0][:20])} is none of {', '.join(PUBLIC_KEY)}.", field="algorithms"
        )
    moved = sign_on.issuer and sign_on.issuer != wanted.issuer
    if moved and sign_on.secret is not None and not wanted.secret and not wanted.drop_secret:
        raise Invalid(
            "secret_of_another", "The issuer has changed: enter the secret from the new issuer.", field="secret"
        )
    sign_on.issuer, sign_on.client_id = wanted.issuer, client_id
    sign_on.algorithms = sorted(set(wanted.algorithms)) or ["ES256", "RS256"]
    if wanted.secret:
        sign_on.secret = seal_secret(sign_on, wanted.secret)
    elif wanted.drop_secret:
        sign_on.secret = None


def _apply_saml(sign_on: SingleSignOn, wanted: WantedSignOn) -> None:
    provider = saml.read_metadata(wanted.metadata)
    sign_on.metadata, sign_on.issuer = wanted.metadata, provider.entity_id


def _name(access: Access, sign_on: SingleSignOn, name: str) -> str:
    name = clean_name(name)
    if len(name) > NAME_MAX:
        raise Invalid("name_too_long", f"A name has at most {NAME_MAX} characters.", field="name")
    if SingleSignOn.objects.filter(org=access.org, name=name).exclude(pk=sign_on.pk).exists():
        raise Conflict("name_taken", f"An SSO connection named {name} already exists.", field="name")
    return name


def _domains(wanted: Sequence[str]) -> list[str]:
    found = sorted({domain.strip().lower().removeprefix("@") for domain in wanted if domain.strip()})
    if len(found) > DOMAINS_MAX:
        raise Invalid("too_many_domains", f"At most {DOMAINS_MAX} domains.", field="domains")
    for domain in found:
        if not DOMAIN.match(domain):
            raise Invalid(
                "bad_domain", f"{quoted(domain[:80])} is not an email domain such as example.com.", field="domains"
            )
    return found


def _role(role: str) -> str:
    if not role:
        return ""
    wanted = clean_role(role)
    if wanted is Role.OWNER:
        raise Invalid("no_owners", "SSO cannot make somebody an owner; only an owner can.", field="role")
    return str(wanted)


def _keep_a_way_in(access: Access) -> None:
    """Refuse to require SSO unless an owner has a second factor and can sign in while the provider is unavailable."""
    owners = Membership.objects.filter(org=access.org, role=Role.OWNER).select_related("user")
    if not any(owner.user.is_active and has_second_factor(owner.user) for owner in owners):
        raise Forbidden(
            "no_way_in",
            "First, an owner must set up two-factor authentication, to sign in if the provider is unavailable.",
            field="required",
        )


def _facts(sign_on: SingleSignOn) -> dict[str, object]:
    """The audited fields of an SSO connection: all but its secret."""
    return {
        "id": sign_on.pk,
        "name": sign_on.name,
        "kind": sign_on.kind,
        "issuer": sign_on.issuer,
        "client_id": sign_on.client_id,
        "has_secret": sign_on.secret is not None,
        "algorithms": sign_on.algorithms,
        "metadata_sha256": hashlib.sha256(sign_on.metadata.encode()).hexdigest() if sign_on.metadata else "",
        "domains": sign_on.domains,
        "approved_domains": sign_on.approved_domains,
        "role": sign_on.role,
        "required": sign_on.required,
        "enabled": sign_on.enabled,
    }

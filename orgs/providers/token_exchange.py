"""The token service: short-lived MQTT credentials for users, by an API key or by an identity provider's token.

The identity is (organization, provider, the provider's user id): asking again for the same one reissues on the same
username and keeps its claims. What is issued here works at every edge before the answer goes out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from cloudsignal import ids
from cloudsignal.addresses import fold_address
from cloudsignal.errors import Invalid, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.credential import ClaimValue
from orgs.access.grants import Access, known_organization
from orgs.credentials.issuing import (
    TTL_DEFAULT,
    External,
    Issued,
    check_secret,
    issue_credential,
    refresh_credential,
    revoke_credential,
)
from orgs.models import Credential, IdentityProvider, MqttIdentity, Organization
from orgs.permissions import Permission
from orgs.providers.id_tokens import judge, unverified_issuer
from orgs.providers.providers import enabled_providers

BY_EMAIL = "email"
"""The provider name of identities that API keys issue by email address alone."""
EMAIL_MAX = 254


def find_organization(org_id: str) -> Organization:
    """The organization; raises :class:`NotFound` with the code ``org_not_found``."""
    found = known_organization(org_id)
    if found is None:
        raise NotFound("The organization", code="org_not_found")
    return found


def create_token(
    access: Access,
    *,
    email: str,
    integration: str = "",
    ttl: int = TTL_DEFAULT,
    claims: Mapping[str, ClaimValue] | None = None,
) -> Issued:
    """Issue a credential for the user with this email address; ``integration`` names the provider the user comes from.

    A user whom that provider has signed in before under the address is the same user. ``claims`` are added to those
    the user has and never change one. Nothing of the user's ends: another instance may be using it. Raises
    :class:`Invalid` and, for an unknown integration, :class:`NotFound`.
    """
    access.require(Permission.CREDENTIALS_MANAGE)
    _must_be_active(access.org)
    address = clean_email(email)
    external = External(BY_EMAIL, fold_address(address), address)
    if integration:
        external = _known(access.org_id, named_provider(access.org_id, integration).name, address)
    return issue_credential(access, ttl=ttl, claims=claims, external=external, keep_claims=True)


def exchange_token(
    org: Organization, *, token: str, provider: str = "", ttl: int = TTL_DEFAULT, ip: str = "", actor: str = ""
) -> Issued:
    """Issue a credential for the subject of a provider's JSON Web Token. May fetch keys: call it outside transactions.

    Without ``provider`` the token's issuer chooses it, and its audience where several have one issuer. Raises
    :class:`NotFound` (``provider_not_found``), :class:`Unauthenticated` (``token_expired``, ``unauthorized``) and
    :class:`Invalid` (``email_claim_required``).
    """
    _must_be_active(org)
    candidates = _named_providers(org.pk, provider, token) if provider else _issuing_providers(org.pk, token)
    verdicts = [(candidate, judge(candidate, token)) for candidate in candidates]
    chosen, verdict = next((found for found in verdicts if found[1].subject), verdicts[0])
    if verdict.subject is None:
        failed = verdict.failed
        if failed is None:
            raise Unauthenticated("unauthorized", "The token is not valid.")
        if failed.name == "email":
            raise Invalid("email_claim_required", failed.detail, field="token")
        raise Unauthenticated("token_expired" if failed.expired else "unauthorized", failed.detail)
    subject = verdict.subject
    allowed = frozenset({Permission.CREDENTIALS_MANAGE})
    access = Access(org, None, None, allowed, actor or f"provider:{chosen.name}", ip)
    external = External(chosen.name, subject.external_id, clean_email(subject.email))
    return issue_credential(access, ttl=ttl, external=external, revive=False)


def refresh_token(token_id: str, password: str, *, ip: str = "") -> Issued:
    """Refresh a credential by its password, which stays active until its own expiry.

    Raises :class:`Unauthenticated`: ``token_expired`` past its expiry, else ``unauthorized``.
    """
    org_id = ids.org_of_token(token_id)
    if org_id is None:
        raise Unauthenticated("unauthorized", "The token and the password do not match.")
    org = find_organization(org_id)
    _must_be_active(org)
    found = check_secret(org, token_id, password)
    if not found.refreshable:
        state = found.state
        code = "token_expired" if state == "expired" else "unauthorized"
        raise Unauthenticated(code, f"This token is {state}; request a new one.")
    access = Access(org, None, None, frozenset(), f"token:{token_id}", ip)
    return refresh_credential(access, token_id)


def revoke_token(access: Access, token_id: str) -> Credential:
    """Revoke a token of the organization; raises :class:`Invalid` for an unknown one."""
    try:
        return revoke_credential(access, token_id)
    except NotFound:
        raise Invalid("invalid_request", "This organization has no such token.", field="token_id") from None


def named_provider(org_id: str, name: str) -> IdentityProvider:
    """An enabled provider by id, by name, or by kind where only one is of it; raises ``provider_not_found``."""
    found = enabled_providers(org_id)
    for provider in found:
        if name in {provider.pk, provider.name}:
            return provider
    of_kind = [provider for provider in found if provider.kind == name]
    if len(of_kind) == 1:
        return of_kind[0]
    raise NotFound("The identity provider", code="provider_not_found")


def _named_providers(org_id: str, name: str, token: str) -> Sequence[IdentityProvider]:
    """The provider of that id or name, or those of that kind: the token's issuer chooses among several of one."""
    of_kind = [one for one in enabled_providers(org_id) if one.kind == name]
    if len(of_kind) > 1 and not any(one.name == name for one in of_kind):
        issuer = unverified_issuer(token)
        return [one for one in of_kind if one.issuer == issuer] or of_kind
    return [named_provider(org_id, name)]


def clean_email(email: str) -> str:
    """Normalize an email address that names a user: NFC, one ``@``, no spaces. No email is sent to it."""
    address = unicodedata.normalize("NFC", email.strip())
    local, _, domain = address.rpartition("@")
    if not local or not domain or "@" in local or len(address) > EMAIL_MAX or not address.isprintable():
        raise Invalid("invalid_request", "This is not an email address.", field="user_email")
    if any(character.isspace() for character in address):
        raise Invalid("invalid_request", "An email address has no spaces.", field="user_email")
    return address


def _issuing_providers(org_id: str, token: str) -> Sequence[IdentityProvider]:
    """Select the providers that may have issued the token; at least one."""
    found = enabled_providers(org_id)
    if not found:
        raise NotFound("The identity provider", code="provider_not_found")
    issuer = unverified_issuer(token)
    matching = [provider for provider in found if provider.issuer == issuer]
    if matching or len(found) == 1:
        return matching or found
    raise Unauthenticated("unauthorized", "The token's issuer is not an identity provider of this organization.")


def _known(org_id: str, provider: str, address: str) -> External:
    """Get the provider's identity of an email address, or name a new one by the address."""
    name = fold_address(address)
    with org_scope(org_id):
        alike = MqttIdentity.objects.filter(org_id=org_id, provider=provider, email__iexact=address).order_by("pk")
        found = next((one for one in alike if fold_address(one.email) == name), None)
    return External(provider, found.external_id if found else name, address)


def _must_be_active(org: Organization) -> None:
    if org.status != Organization.Status.ACTIVE:
        raise Unauthenticated("unauthorized", "The organization is suspended; no tokens are issued.")

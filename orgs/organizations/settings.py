"""Settings of an organization: allowed CORS origins, required second factor, publishing during a split, quotas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Invalid, NotFound, quoted
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.access.second_factor import has_second_factor
from orgs.models import Organization
from orgs.organizations.lifecycle import rename_organization
from orgs.permissions import Permission
from orgs.publishing import publish_organization

ORIGINS_MAX = 50
SETTINGS = ("allowed_origins", "mfa_required", "publish_while_split")
"""The settings that are one column each."""
QUOTAS: Mapping[str, tuple[int, int]] = {
    "connections": (1, 1_000_000),
    "messages_per_minute": (1, 100_000_000),
    "packet_bytes": (1024, 1_048_576),
    "subscriptions_per_session": (1, 10_000),
    "retained_messages": (1, 100_000),
    "retained_bytes": (1024, 1_073_741_824),
    "stored_sessions": (1, 1_000_000),
}
"""The quotas with their bounds (minimum, maximum)."""


def change_settings(
    access: Access,
    *,
    name: str | None = None,
    allowed_origins: Sequence[str] | None = None,
    mfa_required: bool | None = None,
    publish_while_split: str | None = None,
) -> Organization:
    """Change the given settings, all or none; None keeps a setting. Raises :class:`Invalid`."""
    access.require(Permission.ORG_UPDATE)
    asker = access.user  # who came through single sign-on is never asked for a second factor here
    if mfa_required and asker is not None and asker.sso_session is None and not has_second_factor(asker):
        raise Conflict(
            "mfa_first", "Set up a second factor for your own account first, or you would lock yourself out."
        )
    if publish_while_split is not None and publish_while_split not in Organization.PublishWhileSplit.values:
        raise Invalid("bad_publish_while_split", "Write accept or refuse.", field="publish_while_split")
    origins = None if allowed_origins is None else clean_origins(allowed_origins)
    with org_scope(access.org_id):
        if name is not None:
            rename_organization(access, name=name)
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        before = {name: getattr(org, name) for name in SETTINGS}
        if origins is not None:
            org.allowed_origins = origins
        if mfa_required is not None:
            org.mfa_required = mfa_required
        if publish_while_split is not None:
            org.publish_while_split = publish_while_split
        after = {name: getattr(org, name) for name in SETTINGS}
        if after != before:
            if after["publish_while_split"] != before["publish_while_split"]:
                publish_organization(org, *SETTINGS)  # the edges enforce it
            else:
                org.save(update_fields=SETTINGS)
            record(access, kinds.ORG_UPDATED, target=f"org:{org.pk}", before=before, after=after)
    return org


def change_quotas(access: Access, quotas: Mapping[str, int]) -> Organization:
    """Set quotas; the edges enforce them at once. For operators; others get :class:`NotFound`."""
    if access.user is None or not access.user.is_operator:
        raise NotFound("This address")
    for name, value in quotas.items():
        low, high = QUOTAS[name]
        if not low <= value <= high:
            raise Invalid("bad_quota", f"{name} is a whole number from {low} to {high}.", field=name)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        before = {name: getattr(org, name) for name in quotas}
        if before != dict(quotas):
            for name, value in quotas.items():
                setattr(org, name, value)
            publish_organization(org, *quotas)
            record(access, kinds.ORG_UPDATED, target=f"org:{org.pk}", before=before, after=dict(quotas))
    return org


def clean_origins(origins: Sequence[str]) -> list[str]:
    """Validate origins as browsers send them (RFC 6454 s6.2): https, or http on localhost for development."""
    if len(origins) > ORIGINS_MAX:
        raise Invalid("too_many_origins", f"At most {ORIGINS_MAX} origins.", field="allowed_origins")
    return sorted({_origin(text.strip().rstrip("/").lower()) for text in origins})


def _origin(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    local = parts.hostname in {"localhost", "127.0.0.1"}
    fine = parts.scheme == "https" or (parts.scheme == "http" and local)
    host = parts.hostname or ""
    whole = f"{parts.scheme}://{host}{f':{port}' if port else ''}"
    if not fine or whole != text or not text.isascii() or len(text) > 255 or not host.strip(".-") or " " in text:
        raise Invalid(
            "bad_origin",
            f"{quoted(text[:80])} is not an origin; write https://app.example.com.",
            field="allowed_origins",
        )
    return text

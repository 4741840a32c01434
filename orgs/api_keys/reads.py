"""Reading the API keys of an organization, and the CLI sessions of a person."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import ApiKey, User
from orgs.permissions import Permission

LISTED = timedelta(days=7)
"""How long the expired or revoked key of a CLI session stays in the list."""


def cli_sessions_of(person: User) -> tuple[ApiKey, ...]:
    """List the active CLI sessions of a person with their organizations, newest first."""
    with platform_scope():
        found = ApiKey.objects.filter(_active_at(timezone.now()), person=person).select_related("org")
        return tuple(found.order_by("-created_at", "-id"))


def list_api_keys(access: Access) -> tuple[ApiKey, ...]:
    """List the API keys of the organization, newest first, masked.

    Command lines make one at each sign-in: those that are over are left out after :data:`LISTED`. Their rows stay, so
    that no other key ever gets their name.
    """
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = ApiKey.objects.filter(org=access.org).select_related("person")
        shown = Q(person=None) | _active_at(timezone.now() - LISTED)
        return tuple(found.filter(shown).order_by("-created_at", "-id"))


def get_api_key(access: Access, key_id: int) -> ApiKey:
    """Get an API key, masked; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(ApiKey, access.org_id, "The API key", related=["person"], pk=key_id)


def _active_at(moment: datetime) -> Q:
    """Filter for keys that were neither expired nor revoked at ``moment``."""
    return (Q(expires_at=None) | Q(expires_at__gt=moment)) & (Q(revoked_at=None) | Q(revoked_at__gt=moment))

"""Reading the members of an organization."""

from __future__ import annotations

from django.utils import timezone

from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.models import Membership
from orgs.permissions import Permission


def list_members(access: Access) -> tuple[Membership, ...]:
    """List the memberships of an organization with their users, by email; expired ones included."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return tuple(Membership.objects.filter(org=access.org).select_related("user").order_by("user__email"))


def has_ended(member: Membership) -> bool:
    """Whether the membership has expired."""
    return member.ends_at is not None and member.ends_at <= timezone.now()

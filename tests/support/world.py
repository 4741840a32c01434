"""People and organizations for tests, made through the services that make them in life."""

from __future__ import annotations

from itertools import count

from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org
from orgs.models import Membership, Organization, User
from orgs.organizations.lifecycle import create_organization
from orgs.permissions import Role

_numbers = count(1)


def person(email: str = "", *, operator: bool = False) -> User:
    """A person who cannot sign in by password (hashing one costs a tenth of a second)."""
    return User.objects.create_user(email or f"person-{next(_numbers)}@example.com", is_operator=operator)


def organization(name: str = "Acme", *, owner: User | None = None) -> Access:
    """A new organization, seen by its owner."""
    owner = owner or person()
    return access_org(owner, create_organization(owner, name=name).pk)


def member(org: Organization, role: Role) -> Access:
    """A further member with ``role``."""
    user = person()
    with org_scope(org.pk):
        Membership.objects.create(org=org, user=user, role=role)
    return access_org(user, org.pk)

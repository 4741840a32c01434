"""Who may act in which organization, and as what.

Every page and API call begins with :func:`access_org`, the tenancy gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from cloudsignal import ids
from cloudsignal.errors import DomainError, Forbidden, Invalid, NotFound, quoted
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from orgs.access.second_factor import has_second_factor
from orgs.models import ApiKey, Membership, Organization, SignOnAccount, SingleSignOn, Through, User
from orgs.permissions import OPERATOR, PERMISSIONS, TITLES, Permission, Role, roles_with

THROUGH_LIFETIME = timedelta(hours=12)
"""How long what came through single sign-on lasts at most: whoever leaves the directory is out by the next day."""
SIGN_ON_REQUIRED = "sign_on_required"
"""The code of the refusal that signing in through the organization's own provider lifts."""


@dataclass(frozen=True, slots=True)
class Access:
    """Proof that somebody may act in one organization, and as what. Services and access functions take it first."""

    org: Organization
    user: User | None
    role: Role | None
    """None for an operator, and for an API key that is not a person's command line."""
    permissions: frozenset[Permission]
    actor: str
    """How the audit names them: ``user:EMAIL``, ``operator:EMAIL``, ``ApiKey.actor`` or ``system``."""
    ip: str = ""
    key: ApiKey | None = None
    """The API key that asks, if one does: what it makes is bounded by it."""

    @property
    def org_id(self) -> str:
        """Id of the organization."""
        return self.org.pk

    def may(self, permission: Permission) -> bool:
        """Whether this access includes ``permission``."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise :class:`Forbidden`, naming who may, unless this access includes ``permission``."""
        if self.may(permission):
            return
        if self.role and permission in PERMISSIONS[self.role]:
            raise Forbidden("forbidden", f"The CLI cannot be granted {permission}: use the dashboard or an API key.")
        if self.role is None and self.user is None:
            raise Forbidden("forbidden", f"The API key lacks the scope {permission}: use a key that has it.")
        who = f"The role {self.role}" if self.role else "An operator"
        what = TITLES[permission][0].lower() + TITLES[permission][1:]
        *most, last = roles_with(permission)
        holders = f"{', '.join(most)} or {last}" if most else last
        raise Forbidden("forbidden", f"{who} cannot {what}. Ask an {holders}.")


@dataclass(frozen=True, slots=True)
class OrganizationEntry:
    """One line of the organization switcher."""

    org: Organization
    role: Role


def access_org(user: User, org_id: str, ip: str = "") -> Access:
    """What ``user`` may do in the organization. Strangers and ended memberships get :class:`NotFound`, never a hint,
    and so does a session that came through another organization's single sign-on."""
    if not ids.ORG.match(org_id) or not user.reaches(org_id):
        raise NotFound("The organization")
    required = SingleSignOn.objects.filter(org=OuterRef("pk"), required=True, enabled=True)
    with org_scope(org_id):
        org = Organization.objects.annotate(sign_on_required=Exists(required)).filter(pk=org_id).first()
        if org is None:
            raise NotFound("The organization")
        membership = Membership.objects.filter(_current(), org=org, user=user).first()
    refused: DomainError = NotFound("The organization")
    if membership is not None:
        role = _role(user, membership)
        missing = _way_in_missing(user, org, role, sign_on_required=org.sign_on_required)
        if missing is None:
            return Access(org, user, role, PERMISSIONS[role], f"user:{user.email}", ip)
        refused = missing
    if user.is_operator:  # a membership leaves them with no less
        return Access(org, user, None, OPERATOR, f"operator:{user.email}", ip)
    raise refused


def _way_in_missing(user: User, org: Organization, role: Role, *, sign_on_required: bool) -> DomainError | None:
    """What an organization asks of members who sign in by themselves and this one does not meet. For those who come
    through its single sign-on its identity provider answers, second factor included.

    Owners are never shut out by a provider that is down or misconfigured: a second factor is what it takes them.
    """
    if user.through is not None:
        return None
    if sign_on_required and role is not Role.OWNER:
        return Forbidden(SIGN_ON_REQUIRED, f"{org.name} requires its members to sign in through SSO.")
    if (org.mfa_required or sign_on_required) and not has_second_factor(user):
        return Forbidden("mfa_required", f"{org.name} requires a second factor. Set one up in your account first.")
    return None


def way_is_open(through: Through, user: User) -> bool:
    """Whether what came through a single sign-on may go on: it is enabled, and the person is known there."""
    if user.is_operator or not ids.ORG.match(through.org_id):
        return False
    with org_scope(through.org_id):
        known = SignOnAccount.objects.filter(org_id=through.org_id, sign_on=through.sign_on_id, user=user)
        return known.filter(sign_on__enabled=True).exists()


def _role(user: User, membership: Membership) -> Role:
    """What a member is, the way they came in. Administrators choose the identity provider, and it can say that anybody
    is at the door: so an owner who comes through it is an administrator there."""
    role = Role(membership.role)
    return Role.ADMIN if user.through is not None and role is Role.OWNER else role


def list_organizations(user: User) -> tuple[OrganizationEntry, ...]:
    """The organizations ``user`` is a member of now and can reach the way they came in, by name."""
    with user_scope(user.pk):
        memberships = Membership.objects.filter(_current(), user=user).select_related("org").order_by("org__name", "id")
        return tuple(OrganizationEntry(row.org, _role(user, row)) for row in memberships if user.reaches(row.org_id))


def all_organizations(operator: User) -> tuple[Organization, ...]:
    """Every organization there is, by name. For operators; others get :class:`NotFound`."""
    if not operator.is_operator:
        raise NotFound()
    with platform_scope():
        return tuple(Organization.objects.order_by("name", "id"))


def _current() -> Q:
    return Q(ends_at=None) | Q(ends_at__gt=timezone.now())


def permissions_of(names: Sequence[str]) -> frozenset[Permission]:
    """The permissions with these values; raises :class:`Invalid` for an unknown one."""
    known = {permission.value: permission for permission in Permission}
    for name in names:
        if name not in known:
            raise Invalid("unknown_scope", f"Unknown scope {quoted(name)}. Known: {', '.join(known)}.", field="scopes")
    return frozenset(known[name] for name in names)


def known_organization(org_id: str) -> Organization | None:
    """The organization with this id, for a caller who is nobody yet (the token service)."""
    if not ids.ORG.match(org_id):
        return None
    with org_scope(org_id):
        return Organization.objects.filter(pk=org_id).first()


def origin_allowed(origin: str, org: Organization | None) -> bool:
    """Whether pages of ``origin`` may read answers about ``org``; None asks about any organization."""
    if org is not None:
        return origin in org.allowed_origins
    with platform_scope():
        return Organization.objects.filter(allowed_origins__contains=[origin]).exists()

"""Access of users to organizations: membership, role, permissions.

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
from orgs.models import ApiKey, Membership, Organization, SignOnAccount, SingleSignOn, SsoSession, User
from orgs.permissions import OPERATOR, PERMISSIONS, TITLES, Permission, Role, roles_with

SSO_SESSION_LIFETIME = timedelta(hours=12)
"""Maximum lifetime of SSO sessions and their API keys: it bounds how long a person removed at the provider stays."""
SIGN_ON_REQUIRED = "sign_on_required"
"""The error code for members who must sign in through SSO."""


@dataclass(frozen=True, slots=True)
class Access:
    """A resolved caller in one organization with role and permissions; the first argument of every service."""

    org: Organization
    user: User | None
    role: Role | None
    """None for an operator, and for an API key that is not of a CLI session."""
    permissions: frozenset[Permission]
    actor: str
    """The actor in the audit log: ``user:EMAIL``, ``operator:EMAIL``, ``ApiKey.actor`` or ``system``."""
    ip: str = ""
    key: ApiKey | None = None
    """The API key that acts, if any: what it creates is bounded by it."""

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
    """An organization of a user with their role, for the organization switcher."""

    org: Organization
    role: Role


def access_org(user: User, org_id: str, ip: str = "") -> Access:
    """Resolve the access of ``user`` to an organization.

    Raises :class:`NotFound`, which reveals nothing, for non-members, expired memberships and SSO sessions of another
    organization.
    """
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
        missing = _missing_requirement(user, org, role, sign_on_required=org.sign_on_required)
        if missing is None:
            return Access(org, user, role, PERMISSIONS[role], f"user:{user.email}", ip)
        refused = missing
    if user.is_operator:  # a membership leaves them with no less
        return Access(org, user, None, OPERATOR, f"operator:{user.email}", ip)
    raise refused


def _missing_requirement(user: User, org: Organization, role: Role, *, sign_on_required: bool) -> DomainError | None:
    """Return the refusal if the organization requires SSO or a second factor that this session lacks, else None.

    For SSO sessions the identity provider is responsible, second factor included. Owners need a second factor instead
    of SSO: a provider that is down or misconfigured never locks them out.
    """
    if user.sso_session is not None:
        return None
    if sign_on_required and role is not Role.OWNER:
        return Forbidden(SIGN_ON_REQUIRED, f"{org.name} requires its members to sign in through SSO.")
    if (org.mfa_required or sign_on_required) and not has_second_factor(user):
        return Forbidden("mfa_required", f"{org.name} requires a second factor. Set one up in your account first.")
    return None


def sso_session_valid(session: SsoSession, user: User) -> bool:
    """Whether an SSO session is still valid: its connection is enabled and linked to the user."""
    if user.is_operator or not ids.ORG.match(session.org_id):
        return False
    with org_scope(session.org_id):
        known = SignOnAccount.objects.filter(org_id=session.org_id, sign_on=session.sign_on_id, user=user)
        return known.filter(sign_on__enabled=True).exists()


def _role(user: User, membership: Membership) -> Role:
    """The effective role of a member: an owner is an administrator in an SSO session.

    Administrators choose the identity provider, and it can assert any identity, so it must not make an owner.
    """
    role = Role(membership.role)
    return Role.ADMIN if user.sso_session is not None and role is Role.OWNER else role


def list_organizations(user: User) -> tuple[OrganizationEntry, ...]:
    """List the organizations that ``user`` is a member of and can reach in this session, by name."""
    with user_scope(user.pk):
        memberships = Membership.objects.filter(_current(), user=user).select_related("org").order_by("org__name", "id")
        return tuple(OrganizationEntry(row.org, _role(user, row)) for row in memberships if user.reaches(row.org_id))


def all_organizations(operator: User) -> tuple[Organization, ...]:
    """List all organizations by name. For operators; others get :class:`NotFound`."""
    if not operator.is_operator:
        raise NotFound()
    with platform_scope():
        return tuple(Organization.objects.order_by("name", "id"))


def _current() -> Q:
    return Q(ends_at=None) | Q(ends_at__gt=timezone.now())


def permissions_of(names: Sequence[str]) -> frozenset[Permission]:
    """Parse the names of permissions; raises :class:`Invalid` for an unknown one."""
    known = {permission.value: permission for permission in Permission}
    for name in names:
        if name not in known:
            raise Invalid("unknown_scope", f"Unknown scope {quoted(name)}. Known: {', '.join(known)}.", field="scopes")
    return frozenset(known[name] for name in names)


def known_organization(org_id: str) -> Organization | None:
    """Get an organization by ID for an anonymous caller of the token service; None if it is unknown."""
    if not ids.ORG.match(org_id):
        return None
    with org_scope(org_id):
        return Organization.objects.filter(pk=org_id).first()


def origin_allowed(origin: str, org: Organization | None) -> bool:
    """Whether CORS allows ``origin`` to read responses of ``org``; with None, of any organization."""
    if org is not None:
        return origin in org.allowed_origins
    with platform_scope():
        return Organization.objects.filter(allowed_origins__contains=[origin]).exists()

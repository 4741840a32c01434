"""Organizations: create, rename, suspend, resume."""

from __future__ import annotations

from django.utils import timezone

from acl.models import Cluster
from acl.models.cluster import DEFAULT_CLUSTER
from acl.services.deployments import begin_with_deny_all
from audit import kinds
from audit.services.record import record
from cloudsignal import ids
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, NotFound
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from orgs.access.grants import Access
from orgs.models import Membership, Organization, User
from orgs.names import clean_name
from orgs.permissions import PERMISSIONS, Permission, Role
from orgs.publishing import publish_organization

OWNED_MAX = 25
"""Maximum number of organizations that one person owns."""


def create_organization(user: User, *, name: str, ip: str = "") -> Organization:
    """Create an organization owned by ``user`` with an empty active policy: clients connect, everything is denied.

    Raises :class:`Invalid` for a bad name, :class:`Limit` when the person owns too many, and :class:`Forbidden` for a
    session that came through an organization's single sign-on.
    """
    if user.sso_session is not None:
        raise Forbidden(
            "came_through",
            "You are signed in through the SSO of one organization. Sign out and sign in to your own account first.",
        )
    name = clean_name(name)
    with user_scope(user.pk):
        owned = Membership.objects.filter(user=user, role=Role.OWNER).count()
    if owned >= OWNED_MAX:
        raise Limit("too_many_organizations", f"A person can own {OWNED_MAX} organizations.", field="name")
    org_id = ids.org_id()
    with org_scope(org_id):
        org = Organization.objects.create(pk=org_id, name=name, cluster=Cluster.objects.get(name=DEFAULT_CLUSTER))
        Membership.objects.create(org=org, user=user, role=Role.OWNER)
        access = Access(org, user, Role.OWNER, PERMISSIONS[Role.OWNER], f"user:{user.email}", ip)
        record(access, kinds.ORG_CREATED, target=f"org:{org.pk}", after={"name": name})
        begin_with_deny_all(access)
    return org


def rename_organization(access: Access, *, name: str) -> Organization:
    """Rename the organization; its ID does not change."""
    access.require(Permission.ORG_UPDATE)
    name = clean_name(name)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        before = org.name
        org.name = name
        org.save(update_fields=["name"])
        record(access, kinds.ORG_UPDATED, target=f"org:{org.pk}", before={"name": before}, after={"name": name})
    return org


def suspend_organization(operator: User, org_id: str, *, reason: str = "", ip: str = "") -> Organization:
    """Suspend the organization: disconnect every client, keep the data. For operators; others get :class:`NotFound`."""
    return _set_status(operator, org_id, Organization.Status.SUSPENDED, reason=reason, ip=ip)


def resume_organization(operator: User, org_id: str, *, ip: str = "") -> Organization:
    """Resume a suspended organization: its clients can connect again. For operators; others get :class:`NotFound`."""
    return _set_status(operator, org_id, Organization.Status.ACTIVE, reason="", ip=ip)


def _set_status(operator: User, org_id: str, status: Organization.Status, *, reason: str, ip: str) -> Organization:
    """Suspend or resume. A scheduled deletion continues; the suspension applies if the deletion is canceled."""
    if not operator.is_operator or not ids.ORG.match(org_id):
        raise NotFound("The organization")
    if len(reason) > 200:
        raise Invalid("reason_too_long", "A reason has at most 200 characters.", field="reason")
    with org_scope(org_id):
        org = Organization.objects.select_for_update().filter(pk=org_id).first()
        if org is None:
            raise NotFound("The organization")
        suspend = status == Organization.Status.SUSPENDED
        if suspend == (org.suspended_at is not None):
            raise Conflict("status_unchanged", f"The organization is {'already suspended' if suspend else org.status}.")
        before = org.status
        org.suspended_at, org.suspended_reason = timezone.now() if suspend else None, reason
        if org.status != Organization.Status.DELETING:
            org.status = status
        publish_organization(org, "status", "suspended_at", "suspended_reason")
        access = Access(org, operator, None, frozenset(), f"operator:{operator.email}", ip)
        kind = kinds.ORG_SUSPENDED if suspend else kinds.ORG_RESUMED
        after = {"status": str(org.status), "suspended": suspend, "reason": reason}
        record(access, kind, target=f"org:{org_id}", before={"status": before}, after=after)
    return org


def organization_count() -> int:
    """Count all organizations, for the metrics of the installation."""
    with platform_scope():
        return Organization.objects.count()

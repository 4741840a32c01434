"""Members of an organization: change the role or expiry, leave, transfer ownership.

An organization always has an owner. Only owners make, change or remove owners; nobody changes their own role.
"""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Forbidden, Invalid
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org
from orgs.access.rows import get_or_404
from orgs.api_keys.keys import end_personal_keys
from orgs.models import Membership, Organization, User
from orgs.permissions import PERMISSIONS, Permission, Role


def change_member(
    access: Access, member_id: int, *, role: str | None = None, ends_at: datetime | None = None, keep_end: bool = True
) -> Membership:
    """Change a member's role, or with ``keep_end=False`` the expiry of the membership (None: it does not expire).

    Raises :class:`Forbidden` where owners are concerned and ``access`` is none, :class:`Conflict` for one's own role
    or end and for the last owner, :class:`Invalid` for an unknown role or an end in the past.
    """
    access.require(Permission.MEMBERS_MANAGE)
    wanted = clean_role(role) if role is not None else None
    if not keep_end:
        check_end(wanted, ends_at)
    with org_scope(access.org_id):
        membership = _locked(access, member_id)
        _may_touch(access, membership, wanted)
        before = _facts(membership)
        changes = wanted not in (None, membership.role) or not (keep_end or ends_at == membership.ends_at)
        if changes and access.user is not None and membership.user_id == access.user.pk:
            raise Conflict(
                "own_role", "You cannot change your own role or its expiry; ask another owner or administrator."
            )
        if wanted is not None and wanted != membership.role:
            _another_owner(membership)
            membership.role = wanted
        if not keep_end:
            membership.ends_at = ends_at
        check_end(Role(membership.role), membership.ends_at, stored=keep_end)
        after = _facts(membership)
        if after != before:
            membership.save(update_fields=["role", "ends_at"])
            record(access, kinds.MEMBER_CHANGED, target=_target(membership), before=before, after=after)
    return membership


def remove_member(access: Access, member_id: int) -> None:
    """Remove a member and their CLI sessions; members can remove themselves.

    The last owner stays.
    """
    with org_scope(access.org_id):
        own = Membership.objects.filter(org=access.org, pk=member_id, user=access.user) if access.user else None
        leaving = own is not None and own.exists()
        if not leaving:
            access.require(Permission.MEMBERS_MANAGE)
        membership = _locked(access, member_id)
        if not leaving:
            _may_touch(access, membership, None)
        _another_owner(membership)
        record(access, kinds.MEMBER_REMOVED, target=_target(membership), before=_facts(membership))
        end_personal_keys(access, membership.user)
        membership.delete()


def transfer_ownership(access: Access, member_id: int) -> Membership:
    """Transfer ownership to another member; the former owner becomes an administrator. For owners."""
    access.require(Permission.ORG_TRANSFER)
    if access.user is None:
        raise Forbidden("needs_person", "Only a person can transfer ownership, not an API key.")
    with org_scope(access.org_id):
        heir = _locked(access, member_id)
        if heir.user_id == access.user.pk:
            raise Conflict("own_role", "You already own this organization.")
        if heir.ends_at is not None and heir.ends_at <= timezone.now():
            raise Conflict("membership_ended", "This membership has expired; invite the person again first.")
        mine = Membership.objects.select_for_update().get(org=access.org, user=access.user)
        changed = [(mine, _facts(mine)), (heir, _facts(heir))]
        heir.role, heir.ends_at = Role.OWNER, None
        mine.role = Role.ADMIN
        heir.save(update_fields=["role", "ends_at"])
        mine.save(update_fields=["role"])
        for each, before in changed:
            record(access, kinds.MEMBER_CHANGED, target=_target(each), before=before, after=_facts(each))
    return heir


def get_member(access: Access, member_id: int) -> Membership:
    """Get a membership with its user; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(Membership, access.org_id, "The member", related=["user"], pk=member_id)


def add_member(access: Access, user: User, *, role: Role, ends_at: datetime | None) -> Membership:
    """Create a membership, or renew an expired one. Called in the scope of the organization."""
    membership, made = Membership.objects.get_or_create(
        org=access.org, user=user, defaults={"role": role, "ends_at": ends_at}
    )
    before = None if made else _facts(membership)
    if not made:
        if membership.ends_at is None or membership.ends_at > timezone.now():
            raise Conflict("member_already", "You are already a member of this organization.")
        membership.role, membership.ends_at = role, ends_at
        membership.save(update_fields=["role", "ends_at"])
        end_personal_keys(access, user)
    record(access, kinds.MEMBER_ADDED, target=_target(membership), before=before, after=_facts(membership))
    return membership


def clean_role(role: str) -> Role:
    """Parse the name of a role; raises :class:`Invalid`."""
    try:
        return Role(role)
    except ValueError:
        raise Invalid("bad_role", f"The role is one of {', '.join(Role)}.", field="role") from None


def check_end(role: Role | None, ends_at: datetime | None, *, stored: bool = False) -> None:
    """Raise :class:`Invalid` for an expiry in the past (unless it is ``stored`` already), or for an owner's expiry."""
    if ends_at is None:
        return
    if role is Role.OWNER:
        raise Invalid("owner_without_end", "An owner's membership cannot have an expiry.", field="ends_at")
    if not stored and ends_at <= timezone.now():
        raise Invalid("end_past", "The expiry is in the past; remove the member instead.", field="ends_at")


def check_grant(access: Access, role: Role) -> None:
    """Raise :class:`Forbidden` unless ``access`` may assign ``role``: only owners make owners."""
    if role is Role.OWNER and access.role is not Role.OWNER:
        raise Forbidden("owners_only", "Only an owner can make another member an owner.")
    if beyond := sorted(PERMISSIONS[role] - access.permissions):
        raise Forbidden("beyond_own_rights", f"The role {role} includes {beyond[0]}, which you do not hold yourself.")


def _may_touch(access: Access, membership: Membership, wanted: Role | None) -> None:
    if access.role is not Role.OWNER and (membership.role == Role.OWNER or wanted is Role.OWNER):
        raise Forbidden("owners_only", "Only an owner can make, change or remove an owner.")
    if wanted is not None:
        check_grant(access, wanted)


def _another_owner(membership: Membership) -> None:
    """Refuse to remove the last owner. The locked row of the organization keeps two owners from leaving at once."""
    if membership.role != Role.OWNER:
        return
    others = Membership.objects.filter(org=membership.org_id, role=Role.OWNER).exclude(pk=membership.pk)
    if not others.exists():
        raise Conflict("last_owner", "This is the last owner; transfer ownership first.")


def _locked(access: Access, member_id: int) -> Membership:
    """Lock the organization, then a membership: changes of members are serialized."""
    Organization.objects.select_for_update().get(pk=access.org_id)
    if access.user is not None and access_org(access.user, access.org_id).role is not access.role:
        raise Conflict("own_role_changed", "Your own role was changed in the meantime; reload the page.")
    return get_or_404(Membership, access.org_id, "The member", lock=True, related=["user"], pk=member_id)


def _target(membership: Membership) -> str:
    return f"member:{membership.user.email}"


def _facts(membership: Membership) -> dict[str, object]:
    return {
        "email": membership.user.email,
        "role": str(membership.role),
        "ends_at": membership.ends_at.isoformat() if membership.ends_at else None,
    }

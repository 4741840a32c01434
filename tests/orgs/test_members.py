"""Members as services: who changes whom, who leaves, who owns, and what each change leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.utils import timezone

from cloudsignal.errors import Conflict, DomainError, Invalid, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access, access_org
from orgs.api_keys.keys import create_api_key, create_personal_key
from orgs.models import Membership
from orgs.people.members import change_member, get_member, remove_member, transfer_ownership
from orgs.people.reads import list_members
from orgs.permissions import Role
from tests.support.races import meanwhile
from tests.support.traces import events
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db

IP = "192.0.2.7"


@pytest.fixture
def acme() -> Access:
    return organization()


def membership(access: Access) -> int:
    """The id of the membership that ``access`` comes from."""
    with org_scope(access.org_id):
        return int(Membership.objects.get(user=access.user).pk)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(DomainError) as refused:
        call()
    return refused.value.code


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.AUDITOR, Role.VIEWER])
def test_who_does_not_manage_members_changes_and_removes_none(acme: Access, role: Role) -> None:
    other = membership(member(acme.org, Role.VIEWER))
    asking = member(acme.org, role)
    assert code(lambda: change_member(asking, other, role="auditor")) == "forbidden"
    assert code(lambda: remove_member(asking, other)) == "forbidden"
    assert get_member(acme, other).role == Role.VIEWER
    assert change_member(member(acme.org, Role.ADMIN), other, role="auditor").role == Role.AUDITOR


def test_a_change_is_in_the_audit_with_before_and_after_and_no_change_is_not(acme: Access) -> None:
    other = member(acme.org, Role.VIEWER)
    until = timezone.now() + timedelta(days=3)
    change_member(acme, membership(other), role="auditor", ends_at=until, keep_end=False)
    change_member(acme, membership(other), role="auditor")
    change_member(acme, membership(other), ends_at=until, keep_end=False)
    (event,) = events(acme, "member.changed")
    assert other.user is not None
    assert (event.target, event.actor) == (f"member:{other.user.email}", acme.actor)
    assert event.before == {"email": other.user.email, "role": "viewer", "ends_at": None}
    assert event.after == {"email": other.user.email, "role": "auditor", "ends_at": until.isoformat()}


def test_only_owners_make_change_and_remove_owners(acme: Access) -> None:
    admin, other = member(acme.org, Role.ADMIN), membership(member(acme.org, Role.VIEWER))
    assert code(lambda: change_member(admin, membership(acme), role="viewer")) == "owners_only"
    assert code(lambda: remove_member(admin, membership(acme))) == "owners_only"
    assert code(lambda: change_member(admin, other, role="owner")) == "owners_only"
    assert events(acme, "member.changed,member.removed") == ()
    assert change_member(acme, other, role="owner").role == Role.OWNER


def test_nobody_changes_their_own_role_or_its_end(acme: Access) -> None:
    admin = member(acme.org, Role.ADMIN)
    later = timezone.now() + timedelta(days=400)
    assert code(lambda: change_member(admin, membership(admin), role="viewer")) == "own_role"
    assert code(lambda: change_member(admin, membership(admin), ends_at=later, keep_end=False)) == "own_role"
    assert code(lambda: transfer_ownership(acme, membership(acme))) == "own_role"


def test_an_end_lies_ahead_and_an_owner_has_none(acme: Access) -> None:
    other, now = membership(member(acme.org, Role.VIEWER)), timezone.now()

    def end(**wanted: object) -> str:
        return code(lambda: change_member(acme, other, keep_end=False, **wanted))  # type: ignore[arg-type]

    assert end(ends_at=now - timedelta(seconds=1)) == "end_past"
    assert end(ends_at=now + timedelta(days=1), role="owner") == "owner_without_end"
    assert end(ends_at=None, role="king") == "bad_role"
    change_member(acme, other, ends_at=now + timedelta(days=1), keep_end=False)
    assert code(lambda: change_member(acme, other, role="owner")) == "owner_without_end"
    assert change_member(acme, other, role="owner", ends_at=None, keep_end=False).role == Role.OWNER


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
def test_anybody_leaves_by_themselves_and_their_command_lines_end(acme: Access, role: Role) -> None:
    leaving = member(acme.org, role)
    key = create_personal_key(leaving, machine="laptop")
    use_api_key(key.secret, ip=IP)
    remove_member(leaving, membership(leaving))
    assert leaving.user is not None
    with pytest.raises(NotFound):
        access_org(leaving.user, acme.org_id)
    with pytest.raises(Unauthenticated):
        use_api_key(key.secret, ip=IP)
    (event,) = events(acme, "member.removed")
    assert (event.actor, event.before["role"]) == (leaving.actor, role)  # type: ignore[index]
    (ended,) = events(acme, "api_key.revoked")
    assert ended.target == f"api_key:{key.key}"


def test_the_last_owner_stays_and_a_second_one_may_go(acme: Access) -> None:
    assert code(lambda: remove_member(acme, membership(acme))) == "last_owner"
    second = member(acme.org, Role.OWNER)
    remove_member(acme, membership(acme))
    assert code(lambda: remove_member(second, membership(second))) == "last_owner"
    assert [row.user for row in list_members(second)] == [second.user]


def test_ownership_goes_over_and_the_former_owner_stays_as_administrator(acme: Access) -> None:
    admin, heir = member(acme.org, Role.ADMIN), member(acme.org, Role.VIEWER)
    assert code(lambda: transfer_ownership(admin, membership(heir))) == "forbidden"
    key = use_api_key(create_api_key(acme, kind="sk", name="ci").secret, ip=IP).access
    assert code(lambda: transfer_ownership(key, membership(heir))) == "forbidden"
    transfer_ownership(acme, membership(heir))
    assert acme.user is not None
    assert heir.user is not None
    now = access_org(heir.user, acme.org_id)
    assert (now.role, access_org(acme.user, acme.org_id).role) == (Role.OWNER, Role.ADMIN)
    changed = {event.target: (event.before["role"], event.after["role"]) for event in events(now, "member.changed")}  # type: ignore[index]
    assert changed == {
        f"member:{acme.user.email}": ("owner", "admin"),
        f"member:{heir.user.email}": ("viewer", "owner"),
    }


def test_an_ended_membership_inherits_nothing(acme: Access) -> None:
    ended = membership(member(acme.org, Role.AUDITOR))
    with org_scope(acme.org_id):
        Membership.objects.filter(pk=ended).update(ends_at=timezone.now() - timedelta(seconds=1))
    assert code(lambda: transfer_ownership(acme, ended)) == "membership_ended"


def test_members_of_another_organization_do_not_exist_here(acme: Access) -> None:
    rival = organization("Rival")
    theirs = membership(member(rival.org, Role.VIEWER))
    for call in (
        lambda: get_member(acme, theirs),
        lambda: change_member(acme, theirs, role="auditor"),
        lambda: remove_member(acme, theirs),
        lambda: transfer_ownership(acme, theirs),
    ):
        assert code(call) == "not_found"
    assert get_member(rival, theirs).role == Role.VIEWER


@pytest.mark.django_db(transaction=True)
def test_of_two_owners_who_leave_at_once_one_stays(acme: Access) -> None:
    second = member(acme.org, Role.OWNER)
    first, other = membership(acme), membership(second)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            remove_member(acme, first)
            leaving = meanwhile(lambda: remove_member(second, other), pool)
        with pytest.raises(Conflict) as refused:
            leaving.result(60)
    assert refused.value.code == "last_owner"
    assert [row.user for row in list_members(second)] == [second.user]


@pytest.mark.django_db(transaction=True)
def test_who_is_demoted_meanwhile_changes_nobody(acme: Access) -> None:
    admin = member(acme.org, Role.ADMIN)
    mine, other = membership(admin), membership(member(acme.org, Role.VIEWER))
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            change_member(acme, mine, role="viewer")
            changing = meanwhile(lambda: change_member(admin, other, role="admin"), pool)
        with pytest.raises(Conflict) as refused:
            changing.result(60)
    assert refused.value.code == "own_role_changed"
    assert get_member(acme, other).role == Role.VIEWER


def test_an_unknown_role_is_named_with_those_there_are(acme: Access) -> None:
    with pytest.raises(Invalid) as refused:
        change_member(acme, membership(member(acme.org, Role.VIEWER)), role="king")
    assert (refused.value.field, "owner, admin, developer" in refused.value.message) == ("role", True)

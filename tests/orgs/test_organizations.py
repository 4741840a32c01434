"""Organizations: create, rename, suspend, and who may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from acl.access import current_deployment, get_draft
from acl.policy import parse
from audit.access import AuditQuery, search
from cloudsignal import ids
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, NotFound
from cloudsignal.models import OutboxRow
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import access_org, all_organizations, list_organizations
from orgs.models import Membership, Organization
from orgs.organizations import lifecycle
from orgs.organizations.lifecycle import (
    create_organization,
    rename_organization,
    resume_organization,
    suspend_organization,
)
from orgs.organizations.settings import change_settings
from orgs.people.members import add_member, transfer_ownership
from orgs.people.reads import list_members
from orgs.permissions import Permission, Role
from tests.support.world import member, organization, person

pytestmark = pytest.mark.django_db


def kinds(access) -> list[str]:  # type: ignore[no-untyped-def]
    return [event.kind for event in search(access, AuditQuery()).events]


def outbox_tasks(org_id: str) -> list[str]:
    with org_scope(org_id):
        return list(OutboxRow.objects.order_by("id").values_list("task", flat=True))


# --- create ----------------------------------------------------------------------------------------------------------


def test_a_new_organization_denies_everything_and_is_on_its_way_to_the_nodes() -> None:
    user = person()
    org = create_organization(user, name="  Blue   Harbour ", ip="192.0.2.7")
    assert ids.ORG.match(org.pk)
    assert org.name == "Blue Harbour"
    access = access_org(user, org.pk)
    assert access.role is Role.OWNER
    deployment = current_deployment(access)
    assert deployment is not None
    assert (deployment.version.number, deployment.revision) == (1, 1)
    policy = parse(bytes(deployment.version.document)).policy
    assert policy is not None
    assert policy.rules == ()
    assert get_draft(access).text == deployment.version.source
    assert kinds(access) == ["policy.deployed", "org.created"]
    assert {event.ip for event in search(access, AuditQuery()).events} == {"192.0.2.7"}
    assert outbox_tasks(org.pk) == ["acl.tasks.push_bundle"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "name_missing"),
        (" \t\n", "name_missing"),
        ("x" * 81, "name_too_long"),
        ("evil\u202ename", "name_unreadable"),
        ("nul\0", "name_unreadable"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_is_made(name: str, code: str) -> None:
    user = person()
    with pytest.raises(Invalid) as refused:
        create_organization(user, name=name)
    assert (refused.value.code, refused.value.field) == (code, "name")
    assert list_organizations(user) == ()
    assert create_organization(user, name="x" * 80).name == "x" * 80


def test_a_name_may_be_in_any_script() -> None:
    assert create_organization(person(), name="Ångström 株式会社 🚢").name == "Ångström 株式会社 🚢"


def test_one_person_owns_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "OWNED_MAX", 2)
    user = person()
    create_organization(user, name="one")
    create_organization(user, name="two")
    with pytest.raises(Limit):
        create_organization(user, name="three")
    assert len(list_organizations(user)) == 2


# --- access ----------------------------------------------------------------------------------------------------------


def test_a_stranger_is_told_nothing() -> None:
    access = organization()
    stranger = person()
    for org_id in (access.org_id, "org_aaaaaaaaaaaa", "org_", "", "ORG_AAAAAAAAAAAA", "org_aaaaaaaaaaaa\n"):
        with pytest.raises(NotFound) as refused:
            access_org(stranger, org_id)
        assert refused.value.message == "The organization does not exist, or you have no access to it."
    assert access.user is not None
    assert access_org(access.user, access.org_id).role is Role.OWNER


def test_a_membership_counts_until_its_end_and_not_after() -> None:
    access = organization()
    auditor = member(access.org, Role.AUDITOR)
    assert auditor.user is not None
    with org_scope(access.org_id):
        membership = Membership.objects.filter(user=auditor.user)
        membership.update(ends_at=timezone.now() + timedelta(minutes=1))
    assert access_org(auditor.user, access.org_id).role is Role.AUDITOR
    assert [entry.role for entry in list_organizations(auditor.user)] == [Role.AUDITOR]
    with org_scope(access.org_id):
        membership.update(ends_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        access_org(auditor.user, access.org_id)
    assert list_organizations(auditor.user) == ()


def test_an_operator_may_look_and_not_touch() -> None:
    access = organization()
    operator = person(operator=True)
    seen = access_org(operator, access.org_id, ip="192.0.2.1")
    assert (seen.role, seen.actor) == (None, f"operator:{operator.email}")
    assert [row.user for row in list_members(seen)] == [access.user]
    with pytest.raises(Forbidden):
        rename_organization(seen, name="mine now")
    assert list_organizations(operator) == ()
    assert access.org in all_organizations(operator)
    with pytest.raises(NotFound):
        all_organizations(access.user)  # type: ignore[arg-type]


def test_a_refusal_names_who_may() -> None:
    viewer = member(organization().org, Role.VIEWER)
    with pytest.raises(Forbidden) as refused:
        viewer.require(Permission.POLICY_DEPLOY)
    assert refused.value.message == ("The role viewer cannot deploy and roll back. Ask an owner, admin or developer.")


# --- rename ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_only_owner_and_admin_rename(role: Role) -> None:
    owner = organization("Old")
    access = member(owner.org, role)
    if role in {Role.OWNER, Role.ADMIN}:
        rename_organization(access, name="New")
        event = search(owner, AuditQuery(kind="org.updated")).events[0]
        assert (event.before, event.after, event.actor) == ({"name": "Old"}, {"name": "New"}, access.actor)
    else:
        with pytest.raises(Forbidden):
            rename_organization(access, name="New")
        assert kinds(owner).count("org.updated") == 0
        assert access_org(owner.user, owner.org_id).org.name == "Old"  # type: ignore[arg-type]


# --- suspend ---------------------------------------------------------------------------------------------------------


def test_suspending_raises_the_revision_and_tells_the_nodes() -> None:
    access = organization()
    operator = person(operator=True)
    org = suspend_organization(operator, access.org_id, reason="unpaid", ip="192.0.2.9")
    assert (org.status, org.revision, org.suspended_reason) == (Organization.Status.SUSPENDED, 2, "unpaid")
    event = search(access, AuditQuery(kind="org.suspended")).events[0]
    assert event.actor == f"operator:{operator.email}"
    assert event.after == {"status": "suspended", "suspended": True, "reason": "unpaid"}
    assert outbox_tasks(access.org_id) == ["acl.tasks.push_bundle"] * 2
    with pytest.raises(Conflict):
        suspend_organization(operator, access.org_id)
    assert resume_organization(operator, access.org_id).revision == 3
    assert kinds(access)[0] == "org.resumed"


def test_nobody_but_an_operator_suspends() -> None:
    access = organization()
    with pytest.raises(NotFound):
        suspend_organization(access.user, access.org_id)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        suspend_organization(person(operator=True), "org_aaaaaaaaaaaa")
    with platform_scope():
        assert Organization.objects.get(pk=access.org_id).status == Organization.Status.ACTIVE


def test_who_comes_back_after_an_end_is_audited_with_what_they_were() -> None:
    access = organization()
    guest = member(access.org, Role.AUDITOR)
    assert guest.user
    ended = timezone.now() - timedelta(days=1)
    with org_scope(access.org_id):
        Membership.objects.filter(user=guest.user).update(ends_at=ended)
        add_member(access, guest.user, role=Role.VIEWER, ends_at=None)
    [event] = search(access, AuditQuery(kind="member.added")).events
    was = {"email": guest.user.email, "role": "auditor", "ends_at": ended.isoformat()}
    assert (event.before, event.after) == (was, was | {"role": "viewer", "ends_at": None})


def test_a_transfer_is_audited_for_both_who_change_their_role() -> None:
    access = organization()
    heir = member(access.org, Role.AUDITOR)
    assert heir.user
    end = timezone.now() + timedelta(days=1)
    with org_scope(access.org_id):
        Membership.objects.filter(user=heir.user).update(ends_at=end)
        pk = Membership.objects.get(user=heir.user).pk
    transfer_ownership(access, pk)
    found = search(access, AuditQuery(kind="member.changed")).events
    changes = {(event.after or {})["email"]: (event.before, event.after) for event in found}
    owner, new = access.actor.removeprefix("user:"), heir.user.email
    before, after = changes[new]
    assert before == {"email": new, "role": "auditor", "ends_at": end.isoformat()}
    assert after == {"email": new, "role": "owner", "ends_at": None}
    before, after = changes[owner]
    assert ((before or {})["role"], (after or {})["role"]) == ("owner", "admin")


# --- publishing during a split ---------------------------------------------------------------------------------------


def test_refusing_publishes_during_a_split_is_audited_and_goes_to_the_nodes_once() -> None:
    owner = organization()
    before = owner.org.revision
    org = change_settings(owner, publish_while_split="refuse")
    assert (org.publish_while_split, org.revision) == ("refuse", before + 1)
    event = search(owner, AuditQuery(kind="org.updated")).events[0]
    assert (event.before["publish_while_split"], event.after["publish_while_split"]) == ("accept", "refuse")
    pushed = outbox_tasks(owner.org_id).count("acl.tasks.push_bundle")
    change_settings(owner, publish_while_split="refuse")
    change_settings(owner, allowed_origins=["https://app.example.com"])
    assert outbox_tasks(owner.org_id).count("acl.tasks.push_bundle") == pushed
    assert kinds(owner).count("org.updated") == 2
    with pytest.raises(Invalid) as refused:
        change_settings(owner, publish_while_split="maybe")
    assert (refused.value.code, refused.value.field) == ("bad_publish_while_split", "publish_while_split")
    developer = member(owner.org, Role.DEVELOPER)
    with pytest.raises(Forbidden):
        change_settings(developer, publish_while_split="accept")
    assert access_org(owner.user, owner.org_id).org.publish_while_split == "refuse"  # type: ignore[arg-type]

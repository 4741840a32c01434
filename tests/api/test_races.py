"""What two do at once: each waits for the other where it matters, and then looks again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cloudsignal.errors import Conflict, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import access_org
from orgs.credentials.identities import get_identity
from orgs.credentials.issuing import External, issue_credential, refresh_credential, revoke_credential, revoke_identity
from orgs.credentials.reads import get_credential
from orgs.models import Membership, MqttIdentity, Organization
from orgs.people import members
from orgs.permissions import Role
from orgs.sso.connections import WantedSignOn, add_sign_on, approve_domains
from tests.support.calling import Caller, World
from tests.support.races import meanwhile
from tests.support.world import member, person


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


def lock_identity(acme: World, local: str) -> None:
    MqttIdentity.objects.select_for_update().get(org=acme.owner.org, username=local)


def test_a_secret_that_is_revoked_while_it_is_refreshed_gives_no_new_one(acme: World, pool: ThreadPoolExecutor) -> None:
    issued = issue_credential(acme.owner, username="pump")
    with org_scope(acme.id):
        lock_identity(acme, "pump")
        refreshed = meanwhile(lambda: refresh_credential(acme.owner, issued.token_id), pool)
        revoke_credential(acme.owner, issued.token_id)
    with pytest.raises(Conflict) as refused:
        refreshed.result(60)
    assert refused.value.code == "credential_revoked"


def test_a_user_who_is_revoked_while_they_sign_in_does_not_come_back(acme: World, pool: ThreadPoolExecutor) -> None:
    ada = External("login", "user-1", "ada@example.com")
    issued = issue_credential(acme.owner, external=ada)
    with org_scope(acme.id):
        lock_identity(acme, issued.local)
        again = meanwhile(lambda: issue_credential(acme.owner, external=ada, revive=False), pool)
        revoke_identity(acme.owner, issued.local)
    with pytest.raises(Unauthenticated):
        again.result(60)
    assert get_identity(acme.owner, issued.local).revoked_at is not None
    assert get_credential(acme.owner, issued.token_id).state == "revoked"


def test_who_is_no_owner_any_more_hands_nothing_over(acme: World) -> None:
    """The second of two transfers at once would make a second owner."""
    first, second = (member(acme.owner.org, Role.VIEWER) for _ in range(2))
    with org_scope(acme.id):
        rows = {row.user_id: row.pk for row in Membership.objects.all()}
    assert first.user is not None
    assert second.user is not None
    members.transfer_ownership(acme.owner, rows[first.user.pk])
    with pytest.raises(Conflict):
        members.transfer_ownership(acme.owner, rows[second.user.pk])
    assert access_org(second.user, acme.id).role is Role.VIEWER


def test_of_two_administrators_who_remove_each_other_one_stays(acme: World, pool: ThreadPoolExecutor) -> None:
    one, other = (member(acme.owner.org, Role.ADMIN) for _ in range(2))
    with org_scope(acme.id):
        rows = {row.user_id: row.pk for row in Membership.objects.all()}
        assert one.user is not None
        assert other.user is not None
        Organization.objects.select_for_update().get(pk=acme.id)
        removal = meanwhile(lambda: members.remove_member(other, rows[one.user.pk] if one.user else 0), pool)
        members.remove_member(one, rows[other.user.pk])
    with pytest.raises(NotFound):
        removal.result(60)
    assert access_org(one.user, acme.id).role is Role.ADMIN


def test_a_domain_that_two_operators_approve_at_once_is_approved_for_one(
    acme: World, rival: World, pool: ThreadPoolExecutor
) -> None:
    operator = person(operator=True)
    wanted = WantedSignOn("Staff", issuer="https://id.example.com", client_id="x", domains=["acme.example"])
    ours, theirs = (add_sign_on(world.owner, "oidc", wanted) for world in (acme, rival))
    with platform_scope():
        approve_domains(operator, acme.id, ours.pk, domains=["acme.example"])
        second = meanwhile(lambda: approve_domains(operator, rival.id, theirs.pk, domains=["acme.example"]), pool)
    with pytest.raises(Conflict) as refused:
        second.result(60)
    assert refused.value.code == "domain_taken"


def test_of_two_requests_with_one_idempotency_key_at_once_one_works(acme: World, pool: ThreadPoolExecutor) -> None:
    program, body = acme.caller(), {"kind": "pk", "name": "Web"}
    with org_scope(acme.id):
        Organization.objects.select_for_update().get(pk=acme.id)
        first = meanwhile(lambda: program.post("/v2/api-keys", body, Idempotency_Key="one"), pool)
        second = Caller(program.key).post("/v2/api-keys", body, Idempotency_Key="one")
    assert (second.status, second.code) == (409, "request_running")
    assert first.result(60).status == 201
    again = Caller(program.key).post("/v2/api-keys", body, Idempotency_Key="one")
    assert again.body == first.result().body


def test_an_idempotency_key_of_a_person_is_good_for_one_organization(acme: World, rival: World) -> None:
    assert acme.owner.user is not None
    with org_scope(rival.id):
        Membership.objects.create(org=rival.owner.org, user=acme.owner.user, role=Role.ADMIN)
    owner, body = acme.person(), {"kind": "pk", "name": "Web"}
    assert owner.post(f"/v2/api-keys?organization_id={acme.id}", body, Idempotency_Key="one").status == 201
    other = owner.post(f"/v2/api-keys?organization_id={rival.id}", body, Idempotency_Key="one")
    assert (other.status, other.code) == (422, "idempotency_key_reused")

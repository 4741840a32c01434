"""Single sign-on as services: who sets it up, whom a provider may speak for, who comes in, and what that leaves behind.

What goes over the wire, and what is checked of it, is in ``tests/web/test_sign_in.py`` and ``test_sign_in_saml.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.core import mail
from django.utils import timezone

from audit.kinds import SignOnReason
from cloudsignal.errors import DomainError, NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org
from orgs.models import Invitation, Membership, SignOnAccount, SingleSignOn, User
from orgs.people.invitations import invite
from orgs.permissions import Role
from orgs.sso import connections
from orgs.sso.connections import (
    WantedSignOn,
    add_sign_on,
    approve_domains,
    change_sign_on,
    get_sign_on,
    list_sign_ons,
    remove_sign_on,
    waiting_domains,
)
from orgs.sso.login import enter, foresee, link, send_linked
from orgs.sso.protocol import Asserted, Refused, secret_of
from tests.support.races import meanwhile
from tests.support.traces import events, tasks
from tests.support.world import member, organization, person

pytestmark = pytest.mark.django_db

SECRET = "client-secret-of-the-provider"
DOMAIN = "acme.example"
ADA = Asserted("subject-1", f"ada@{DOMAIN}", email_verified=True, name="Ada")


@pytest.fixture
def acme() -> Access:
    return organization()


def wanted(**changes: Any) -> WantedSignOn:
    found: dict[str, Any] = {
        "name": "Staff", "issuer": "https://id.example.com", "client_id": "dashboard", "secret": SECRET,
        "domains": [DOMAIN], "role": "viewer", "enabled": True, **changes,
    }  # fmt: skip
    return WantedSignOn(**found)


def approved(access: Access, **changes: Any) -> SingleSignOn:
    """A single sign-on that may speak for its domain."""
    made = add_sign_on(access, "oidc", wanted(**changes))
    return approve_domains(person(operator=True), access.org_id, made.pk, domains=[DOMAIN])


def code(call: Callable[[], object]) -> str:
    with pytest.raises(DomainError) as refused:
        call()
    return refused.value.code


def reason(call: Callable[[], object]) -> SignOnReason:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.reason


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.AUDITOR, Role.VIEWER])
def test_who_does_not_manage_providers_adds_changes_and_removes_none(acme: Access, role: Role) -> None:
    made, asking = add_sign_on(acme, "oidc", wanted()), member(acme.org, role)
    for call in (
        lambda: add_sign_on(asking, "oidc", wanted(name="mine")),
        lambda: change_sign_on(asking, made.pk, wanted(enabled=False)),
        lambda: remove_sign_on(asking, made.pk),
    ):
        assert code(call) == "forbidden"
    assert [(one.name, one.enabled) for one in list_sign_ons(asking)] == [("Staff", True)]


def test_every_change_is_in_the_audit_without_the_secret(acme: Access) -> None:
    made = add_sign_on(acme, "oidc", wanted())
    change_sign_on(acme, made.pk, wanted(secret="", enabled=False))
    remove_sign_on(acme, made.pk)
    removed, changed, added = events(acme, "sign_on.changed")
    assert {event.target for event in (removed, changed, added)} == {"sign_on:Staff"}
    assert (added.before, removed.after) == (None, None)
    assert [(facts or {})["enabled"] for facts in (changed.before, changed.after)] == [True, False]
    assert (changed.after or {})["has_secret"] is True
    assert SECRET not in f"{added.after} {changed.before} {changed.after} {removed.before}"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"issuer": "http://id.example.com"}, "bad_url"),
        ({"client_id": " "}, "client_id_missing"),
        ({"algorithms": ["HS256"]}, "bad_algorithm"),
        ({"domains": ["localhost"]}, "bad_domain"),
        ({"domains": [f"d{number}.example" for number in range(21)]}, "too_many_domains"),
        ({"role": "owner"}, "no_owners"),
        ({"role": "king"}, "bad_role"),
        ({"name": "x" * 64}, "name_too_long"),
        ({"required": True}, "no_way_in"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_made(acme: Access, changes: dict[str, object], refusal: str) -> None:
    assert code(lambda: add_sign_on(acme, "oidc", wanted(**changes))) == refusal
    assert (list_sign_ons(acme), events(acme, "sign_on.changed")) == ((), ())


def test_ways_in_are_bounded_and_each_has_a_name_of_its_own(acme: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SIGN_ONS_MAX", 2)
    add_sign_on(acme, "oidc", wanted())
    assert code(lambda: add_sign_on(acme, "oidc", wanted())) == "name_taken"
    assert code(lambda: add_sign_on(acme, "ldap", wanted())) == "bad_kind"
    add_sign_on(acme, "oidc", wanted(name="More"))
    assert code(lambda: add_sign_on(acme, "oidc", wanted(name="Most"))) == "too_many_sign_ons"
    assert add_sign_on(organization("Rival"), "oidc", wanted()).name == "Staff"


def test_another_issuer_needs_its_own_secret_and_knows_nobody(acme: Access) -> None:
    made = approved(acme)
    enter(made, ADA)
    other = "https://other.example.com"
    assert code(lambda: change_sign_on(acme, made.pk, wanted(issuer=other, secret=""))) == "secret_of_another"
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.count() == 1
    changed = change_sign_on(acme, made.pk, wanted(issuer=other, secret="another"))
    assert secret_of(changed) == "another"
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.count() == 0


def test_it_may_be_required_once_an_owner_has_another_way_in(acme: Access) -> None:
    made = add_sign_on(acme, "oidc", wanted())
    assert code(lambda: change_sign_on(acme, made.pk, wanted(required=True))) == "no_way_in"
    Authenticator.objects.create(user=acme.user, type=Authenticator.Type.TOTP, data={})
    assert change_sign_on(acme, made.pk, wanted(required=True)).required


def test_operators_alone_approve_domains_that_are_named_and_nobody_elses(acme: Access) -> None:
    operator, rival = person(operator=True), organization("Rival")
    made, theirs = add_sign_on(acme, "oidc", wanted()), add_sign_on(rival, "oidc", wanted())
    assert acme.user is not None
    for call in (
        lambda: approve_domains(acme.user, acme.org_id, made.pk, domains=[DOMAIN]),  # type: ignore[arg-type]
        lambda: waiting_domains(acme.user),  # type: ignore[arg-type]
    ):
        with pytest.raises(NotFound):
            call()
    assert code(lambda: approve_domains(operator, acme.org_id, made.pk, domains=["other.example"])) == "unknown_domain"
    assert approve_domains(operator, acme.org_id, made.pk, domains=[DOMAIN]).approved_domains == [DOMAIN]
    assert code(lambda: approve_domains(operator, rival.org_id, theirs.pk, domains=[DOMAIN])) == "domain_taken"
    event = events(acme, "sign_on.changed")[0]
    assert (event.actor, event.after) == (f"operator:{operator.email}", {"approved_domains": [DOMAIN]})
    assert change_sign_on(acme, made.pk, wanted(domains=["new.example"])).approved_domains == []


def test_the_sign_on_of_another_organization_does_not_exist_here(acme: Access) -> None:
    theirs = add_sign_on(organization("Rival"), "oidc", wanted())
    for call in (
        lambda: get_sign_on(acme, theirs.pk),
        lambda: change_sign_on(acme, theirs.pk, wanted(enabled=False)),
        lambda: remove_sign_on(acme, theirs.pk),
        lambda: approve_domains(person(operator=True), acme.org_id, theirs.pk, domains=[DOMAIN]),
    ):
        assert code(call) == "not_found"


# --- coming in -------------------------------------------------------------------------------------------------------


def test_a_newcomer_of_an_approved_domain_gets_an_account_and_the_role(acme: Access) -> None:
    made = approved(acme)
    assert foresee(made, ADA).user is None
    assert not User.objects.filter(email=ADA.email).exists()
    came = enter(made, ADA, ip="192.0.2.9")
    assert (came.email, came.name, came.has_usable_password()) == (ADA.email, "Ada", False)
    assert access_org(came, acme.org_id).role is Role.VIEWER
    assert EmailAddress.objects.get(user=came).verified
    assert enter(made, ADA) == came
    (added,) = events(acme, "member.added")
    (linked,) = events(acme, "sign_on.linked")
    assert (added.target, added.ip, linked.ip) == (f"member:{ADA.email}", "192.0.2.9", "192.0.2.9")
    assert (linked.after or {})["subject"] == ADA.subject
    assert "orgs.tasks.send_linked" not in tasks(acme.org_id)  # who has just come in for the first time knows


def test_without_approval_an_invitation_opens_the_door_once(acme: Access) -> None:
    made = add_sign_on(acme, "oidc", wanted())
    assert reason(lambda: enter(made, ADA)) is SignOnReason.NOT_INVITED
    invited = invite(acme, email=ADA.email, role="developer")
    came = enter(made, ADA)
    assert access_org(came, acme.org_id).role is Role.DEVELOPER
    assert not EmailAddress.objects.get(user=came).verified
    with org_scope(acme.org_id):
        assert Invitation.objects.get(pk=invited.pk).state == "accepted"
        Membership.objects.filter(user=came).update(ends_at=timezone.now() - timedelta(seconds=1))
    assert reason(lambda: enter(made, ADA)) is SignOnReason.NOT_MEMBER


def test_no_provider_makes_an_owner(acme: Access) -> None:
    made = add_sign_on(acme, "oidc", wanted(role=""))
    invite(acme, email=ADA.email, role="owner")
    assert reason(lambda: enter(made, ADA)) is SignOnReason.NOT_INVITED


@pytest.mark.parametrize(
    ("asserted", "refusal"),
    [
        (Asserted("s", "", email_verified=True), SignOnReason.EMAIL_MISSING),
        (Asserted("s", "ada", email_verified=True), SignOnReason.EMAIL_MISSING),
        (Asserted("s", f"ada\u202e@{DOMAIN}", email_verified=True), SignOnReason.EMAIL_MISSING),
        (Asserted("s", f"ada@{DOMAIN}", email_verified=False), SignOnReason.EMAIL_UNVERIFIED),
        (Asserted("s", f"ada@not-{DOMAIN}", email_verified=True), SignOnReason.NOT_INVITED),
        (Asserted("s", f"ada@{DOMAIN}.evil.example", email_verified=True), SignOnReason.NOT_INVITED),
    ],
)
def test_an_address_that_proves_nothing_lets_nobody_in(acme: Access, asserted: Asserted, refusal: SignOnReason) -> None:
    made = approved(acme)
    assert reason(lambda: enter(made, asserted)) is refusal
    assert events(acme, "member.added,sign_on.linked") == ()


def test_a_provider_takes_no_account_that_reaches_further_than_its_organization(acme: Access) -> None:
    made = approved(acme)
    elsewhere = person(ADA.email)
    organization("Rival", owner=elsewhere)
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=elsewhere, role=Role.VIEWER)
    assert reason(lambda: enter(made, ADA)) is SignOnReason.ACCOUNT_EXISTS
    operator = person(f"op@{DOMAIN}", operator=True)
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=operator, role=Role.VIEWER)
    theirs = Asserted("subject-2", operator.email, email_verified=True)
    assert reason(lambda: enter(made, theirs)) is SignOnReason.NOT_ALLOWED
    assert events(acme, "sign_on.linked") == ()


def test_a_sign_on_that_is_switched_off_lets_nobody_in(acme: Access) -> None:
    made = approved(acme)
    came = enter(made, ADA)
    off = change_sign_on(acme, made.pk, wanted(enabled=False))
    assert reason(lambda: enter(off, ADA)) is SignOnReason.NOT_ALLOWED
    assert reason(lambda: link(off, ADA, came)) is SignOnReason.NOT_ALLOWED


def test_linking_is_asked_for_by_a_member_and_they_are_told(acme: Access) -> None:
    made = add_sign_on(acme, "oidc", wanted())
    bob = member(acme.org, Role.DEVELOPER).user
    assert bob is not None
    assert reason(lambda: link(made, ADA, person())) is SignOnReason.NOT_MEMBER
    link(made, ADA, bob)
    (event,) = events(acme, "sign_on.linked")
    assert (event.actor, (event.after or {})["asserted"]) == (f"user:{bob.email}", ADA.email)
    assert tasks(acme.org_id).count("orgs.tasks.send_linked") == 1
    assert send_linked(acme.org_id, made.pk, bob.pk)
    assert mail.outbox[-1].to == [bob.email]
    assert enter(made, ADA) == bob
    another = member(acme.org, Role.VIEWER).user
    assert another is not None
    assert reason(lambda: link(made, ADA, another)) is SignOnReason.LINKED_TO_ANOTHER


@pytest.mark.django_db(transaction=True)
def test_one_person_who_comes_in_twice_at_once_has_one_account(acme: Access) -> None:
    made = approved(acme)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            first = enter(made, ADA)
            second = meanwhile(lambda: enter(made, ADA), pool)
        assert second.result(60) == first
    assert len(events(acme, "member.added")) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda acme, made: remove_sign_on(acme, made.pk),
        lambda acme, made: change_sign_on(acme, made.pk, wanted(enabled=False)),
        lambda acme, made: change_sign_on(acme, made.pk, wanted(issuer="https://other.example.com")),
        lambda acme, made: change_sign_on(acme, made.pk, wanted(client_id="another")),
        lambda acme, made: approve_domains(person(operator=True), acme.org_id, made.pk, domains=[]),
    ],
    ids=["removed", "switched_off", "another_provider", "another_client", "domain_taken_back"],
)
def test_what_has_changed_while_the_provider_was_asked_counts(
    acme: Access, change: Callable[[Access, SingleSignOn], object]
) -> None:
    made = approved(acme)
    asked = get_sign_on(acme, made.pk)
    change(acme, made)
    assert reason(lambda: enter(asked, ADA)) in {SignOnReason.NOT_ALLOWED, SignOnReason.NOT_INVITED}
    assert events(acme, "member.added") == ()


@pytest.mark.django_db(transaction=True)
def test_a_sign_on_that_is_switched_off_at_the_same_time_lets_nobody_in(acme: Access) -> None:
    made = approved(acme)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            change_sign_on(acme, made.pk, wanted(enabled=False))
            coming = meanwhile(lambda: enter(made, ADA), pool)
        with pytest.raises(Refused) as refused:
            coming.result(60)
    assert refused.value.reason is SignOnReason.NOT_ALLOWED
    assert events(acme, "member.added") == ()

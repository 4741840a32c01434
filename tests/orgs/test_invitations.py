"""Invitations as services: who invites whom, what a link opens, and what each step leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.utils import timezone
from pytest_django.fixtures import Settings

from cloudsignal.errors import DomainError, Limit, NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access, access_org
from orgs.api_keys.keys import create_api_key
from orgs.models import Invitation, Membership, User
from orgs.people import invitations
from orgs.people.invitations import (
    accept_invitation,
    code_of,
    invite,
    link_of,
    list_invitations,
    read_link,
    resend_invitation,
    revoke_invitation,
    send_invitation,
)
from orgs.permissions import Role
from tests.support.races import meanwhile
from tests.support.traces import events, tasks
from tests.support.world import member, organization, person

pytestmark = pytest.mark.django_db

ADDRESS = "ada@example.com"
SEND = "orgs.tasks.send_invitation"


@pytest.fixture
def acme() -> Access:
    return organization()


def code(call: Callable[[], object]) -> str:
    with pytest.raises(DomainError) as refused:
        call()
    return refused.value.code


def token(invitation: Invitation) -> str:
    """The last part of the link."""
    return link_of(invitation).rstrip("/").rpartition("/")[2]


def confirmed(email: str = ADDRESS) -> User:
    """A person whose address a mail server has confirmed."""
    user = person(email)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.AUDITOR, Role.VIEWER])
def test_who_does_not_manage_members_invites_resends_and_revokes_nothing(acme: Access, role: Role) -> None:
    asking, open_one = member(acme.org, role), invite(acme, email=ADDRESS, role="viewer")
    for call in (
        lambda: invite(asking, email="bob@example.com", role="viewer"),
        lambda: resend_invitation(asking, open_one.pk),
        lambda: revoke_invitation(asking, open_one.pk),
    ):
        assert code(call) == "forbidden"
    assert [one.state for one in list_invitations(acme)] == ["open"]
    assert tasks(acme.org_id).count(SEND) == 1


def test_an_invitation_is_one_audit_event_and_one_mail_to_send(acme: Access) -> None:
    made = invite(acme, email=f" {ADDRESS} ", role="auditor", ends_at=timezone.now() + timedelta(days=30))
    (event,) = events(acme, "invitation.sent")
    assert (event.target, event.actor) == (f"invitation:{ADDRESS}", acme.actor)
    assert event.after is not None
    assert (event.after["role"], event.after["id"]) == ("auditor", made.pk)
    assert token(made).rpartition(".")[2] not in str(event.after)
    assert tasks(acme.org_id).count(SEND) == 1
    assert send_invitation(acme.org_id, made.pk)
    assert link_of(made) in mail.outbox[-1].body
    assert code_of(made) not in mail.outbox[-1].body


def test_owners_are_invited_by_owners_and_nobody_gives_more_than_they_hold(acme: Access) -> None:
    admin = member(acme.org, Role.ADMIN)
    assert code(lambda: invite(admin, email=ADDRESS, role="owner")) == "owners_only"
    narrow = create_api_key(acme, kind="rk", name="people", scopes=["org.read", "members.manage"])
    key = use_api_key(narrow.secret, ip="192.0.2.7").access
    assert code(lambda: invite(key, email=ADDRESS, role="developer")) == "beyond_own_rights"
    assert events(acme, "invitation.sent") == ()
    assert invite(acme, email=ADDRESS, role="owner").role == Role.OWNER


def test_an_address_is_invited_once_and_members_are_not(acme: Access) -> None:
    there = member(acme.org, Role.VIEWER).user
    assert there is not None
    first = invite(acme, email=ADDRESS, role="viewer")
    assert code(lambda: invite(acme, email=ADDRESS.upper(), role="viewer")) == "invited_already"
    assert code(lambda: invite(acme, email=there.email, role="viewer")) == "member_already"
    with org_scope(acme.org_id):
        Invitation.objects.filter(pk=first.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    again = invite(acme, email=ADDRESS, role="viewer")
    assert {one.pk: one.state for one in list_invitations(acme)} == {first.pk: "revoked", again.pk: "open"}


@pytest.mark.parametrize("email", ["", "ada", "ada@", "a b@example.com", "ada@example.com\nBcc: eve@example.com"])
def test_an_address_that_mail_cannot_reach_is_refused_and_nothing_is_made(acme: Access, email: str) -> None:
    assert code(lambda: invite(acme, email=email, role="viewer")) == "bad_email"
    assert (list_invitations(acme), SEND in tasks(acme.org_id)) == ((), False)


def test_the_number_that_waits_and_the_number_in_an_hour_are_bounded(
    acme: Access, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(invitations, "OPEN_MAX", 2)
    first, _ = (invite(acme, email=f"person-{number}@example.org", role="viewer") for number in range(2))
    assert code(lambda: invite(acme, email=ADDRESS, role="viewer")) == "too_many_invitations"
    revoke_invitation(acme, first.pk)
    made = invite(acme, email=ADDRESS, role="viewer")
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "invitations": "1/3600"}
    with pytest.raises(Limit):
        resend_invitation(acme, made.pk)
    assert invite(organization("Rival"), email=ADDRESS, role="viewer").state == "open"


def test_the_person_who_was_invited_joins_once_with_role_and_end(acme: Access) -> None:
    until = timezone.now() + timedelta(days=30)
    made, ada = invite(acme, email="Ada@example.com", role="auditor", ends_at=until), confirmed()
    joined = accept_invitation(ada, token(made), ip="192.0.2.9")
    assert (joined.role, joined.ends_at) == (Role.AUDITOR, until)
    assert access_org(ada, acme.org_id).role is Role.AUDITOR
    (event,) = events(acme, "member.added")
    assert (event.target, event.actor, event.ip) == (f"member:{ADDRESS}", f"user:{ADDRESS}", "192.0.2.9")
    assert code(lambda: accept_invitation(ada, token(made))) == "invitation_accepted"
    assert code(lambda: revoke_invitation(acme, made.pk)) == "invitation_accepted"


def test_a_link_that_was_passed_on_opens_nothing(acme: Access) -> None:
    made = invite(acme, email=ADDRESS, role="viewer")
    assert code(lambda: accept_invitation(confirmed("eve@example.com"), token(made))) == "other_address"
    assert code(lambda: accept_invitation(confirmed("ada@example.com.evil.test"), token(made))) == "other_address"
    assert read_link(token(made)).invitation.state == "open"


def test_who_has_confirmed_no_address_needs_the_code_and_guesses_it_ten_times(acme: Access, settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "invitation_codes": "2/3600"}
    made, ada = invite(acme, email=ADDRESS, role="viewer"), person(ADDRESS)
    assert code(lambda: accept_invitation(ada, token(made))) == "code_missing"
    for _ in range(2):
        assert code(lambda: accept_invitation(ada, token(made), code="aaaa-aaaa")) == "wrong_code"
    with pytest.raises(Limit):
        accept_invitation(ada, token(made), code=code_of(made))
    resent = resend_invitation(acme, made.pk)
    other = invite(acme, email="bob@example.com", role="viewer")
    assert code_of(resent) not in {code_of(made), code_of(other)}
    assert accept_invitation(person("bob@example.com"), token(other), code=code_of(other).upper()).role == Role.VIEWER


def test_forged_outdated_and_revoked_links_open_nothing(acme: Access) -> None:
    made, ada = invite(acme, email=ADDRESS, role="viewer"), confirmed()
    good = token(made)
    for forged in ("", ".", good[:-1], good[:-1] + "é", f"inv_aaaaaaaaaaaa_{good[-40:]}", f"{made.pk}.{'0' * 40}"):
        with pytest.raises(NotFound):
            accept_invitation(ada, forged)
    again = resend_invitation(acme, made.pk)
    with pytest.raises(NotFound):
        accept_invitation(ada, good)
    assert tasks(acme.org_id).count(SEND) == 2
    assert len(events(acme, "invitation.sent")) == 2
    revoke_invitation(acme, made.pk)
    revoke_invitation(acme, made.pk)
    assert len(events(acme, "invitation.revoked")) == 1
    assert code(lambda: accept_invitation(ada, token(again))) == "invitation_revoked"
    assert code(lambda: resend_invitation(acme, made.pk)) == "invitation_revoked"
    assert not send_invitation(acme.org_id, made.pk)


def test_invitations_of_another_organization_do_not_exist_here(acme: Access) -> None:
    theirs = invite(organization("Rival"), email=ADDRESS, role="viewer")
    with pytest.raises(NotFound):
        revoke_invitation(acme, theirs.pk)
    with pytest.raises(NotFound):
        resend_invitation(acme, theirs.pk)
    assert list_invitations(acme) == ()


@pytest.mark.django_db(transaction=True)
def test_a_link_that_is_revoked_while_it_is_opened_lets_nobody_in(acme: Access) -> None:
    made, ada = invite(acme, email=ADDRESS, role="viewer"), confirmed()
    link = token(made)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            revoke_invitation(acme, made.pk)
            joining = meanwhile(lambda: accept_invitation(ada, link), pool)
        with pytest.raises(DomainError) as refused:
            joining.result(60)
    assert refused.value.code == "invitation_changed"
    with org_scope(acme.org_id):
        assert not Membership.objects.filter(user=ada).exists()

"""Pages: members and invitations."""

from __future__ import annotations

import html
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orgs.access.grants import Access, access_org, list_organizations
from orgs.models import Membership
from orgs.people.invitations import code_of, invite, link_of, list_invitations
from orgs.people.reads import list_members
from orgs.permissions import Role
from tests.support.calling import Caller, authenticate
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def membership(access: Access, of: Access) -> Membership:
    """The membership of a person."""
    assert of.user is not None
    return next(row for row in list_members(access) if row.user_id == of.user.pk)


def path_of(access: Access, email: str = "grace@example.com") -> str:
    """The address within the link of a fresh invitation."""
    return urlsplit(link_of(invite(access, email=email, role="auditor"))).path


def test_inviting_an_auditor_until_a_day_ends_the_membership_after_it(acme: Access, owner: Client) -> None:
    day = (timezone.now() + timedelta(days=30)).date()
    url = reverse("orgs:invite", args=[acme.org_id])
    sent = {"email": "grace@example.com", "role": "auditor", "ends_on": day.isoformat()}
    page = owner.post(url, sent, follow=True).content.decode()
    invited = list_invitations(acme)[0]
    assert (invited.email, invited.role) == ("grace@example.com", "auditor")
    assert invited.ends_at is not None
    assert invited.ends_at.isoformat() == f"{day.isoformat()}T23:59:59+00:00"
    assert "grace@example.com is invited as auditor" in page


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", ""), ("email", "no address"), ("role", "king"), ("ends_on", "2001-01-01"), ("ends_on", "tomorrow")],
)
def test_a_bad_invitation_is_kept_and_explained_at_its_field(
    field: str, value: str, acme: Access, owner: Client
) -> None:
    sent = {"email": "grace@example.com", "role": "auditor", "ends_on": ""} | {field: value}
    answer = owner.post(reverse("orgs:invite", args=[acme.org_id]), sent)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert {name: answer.context["form"][name].value() for name in sent} == sent
    assert list_invitations(acme) == ()


def test_inviting_twice_says_so_and_keeps_the_address(acme: Access, owner: Client) -> None:
    invite(acme, email="grace@example.com", role="viewer")
    url = reverse("orgs:invite", args=[acme.org_id])
    answer = owner.post(url, {"email": "grace@example.com", "role": "viewer", "ends_on": ""})
    assert answer.status_code == 422
    assert "already invited" in answer.content.decode()


def test_an_admin_is_not_offered_to_make_owners(acme: Access, visitor: Visitor) -> None:
    admin = visitor(member(acme.org, Role.ADMIN))
    url = reverse("orgs:invite", args=[acme.org_id])
    roles = [value for value, _ in admin.get(url).context["form"]["role"].field.choices]
    assert roles == ["admin", "developer", "auditor", "viewer"]
    assert admin.post(url, {"email": "eve@example.com", "role": "owner", "ends_on": ""}).status_code == 422


def test_the_invited_person_sees_the_offer_and_joins(acme: Access, visitor: Visitor) -> None:
    path = path_of(acme)
    anonymous = Client().get(path)
    assert anonymous.status_code == 200
    assert "Join Acme" in anonymous.content.decode()
    assert Client().post(path).headers["Location"].startswith("/accounts/login/?next=/invitations/")
    grace = visitor(person("grace@example.com"))
    assert "Your email address is not confirmed" in html.unescape(grace.post(path).content.decode())
    members_page = visitor(acme).get(reverse("orgs:people", args=[acme.org_id])).content.decode()
    code = code_of(list_invitations(acme)[0])
    assert code in members_page
    assert (
        code
        not in visitor(member(acme.org, Role.VIEWER)).get(reverse("orgs:people", args=[acme.org_id])).content.decode()
    )
    joined = grace.post(path, {"code": code})
    assert joined.headers["Location"] == reverse("platform:home", args=[acme.org_id])
    assert [row.role for row in list_members(acme) if row.user.email == "grace@example.com"] == ["auditor"]
    assert grace.post(path).status_code == 409


def test_the_invited_person_finds_the_address_filled_in_on_sign_up_and_sign_in(acme: Access) -> None:
    page = Client().get(path_of(acme, "new+one@example.com")).content.decode()
    for path in ("/accounts/signup/", "/accounts/login/"):
        address = html.unescape(page.partition(f'href="{path}?')[2].partition('"')[0])
        form = Client().get(f"{path}?{address}").context["form"]
        held = form["email"] if "email" in form.fields else form["login"]
        assert held.value() == "new+one@example.com"


def test_another_person_cannot_use_the_link(acme: Access, visitor: Visitor) -> None:
    path, eve = path_of(acme), person("eve@example.com")
    page = visitor(eve).get(path).content.decode()
    assert "This invitation is for grace@example.com" in page
    assert "Join Acme</button>" not in page
    assert visitor(eve).post(path).status_code == 403
    assert list_organizations(eve) == ()


def test_a_forged_link_leads_nowhere(acme: Access) -> None:
    path = path_of(acme)
    other = "00/" if not path.endswith("00/") else "11/"
    assert Client().get(path[:-3] + other).status_code == 404


def test_sending_again_and_taking_back_end_the_earlier_link(acme: Access, owner: Client) -> None:
    first = path_of(acme)
    invited = list_invitations(acme)[0]
    owner.post(reverse("orgs:invitation-resend", args=[acme.org_id, invited.pk]))
    assert Client().get(first).status_code == 404
    second = urlsplit(link_of(list_invitations(acme)[0])).path
    assert Client().get(second).status_code == 200
    url = reverse("orgs:invitation-revoke", args=[acme.org_id, invited.pk])
    assert "stops working at once" in owner.get(url).content.decode()
    assert Client().get(second).status_code == 200
    owner.post(url)
    assert Client().get(second).status_code == 409


def test_a_role_is_changed_and_a_past_day_is_kept_and_explained(acme: Access, owner: Client) -> None:
    dev = member(acme.org, Role.DEVELOPER)
    url = reverse("orgs:member", args=[acme.org_id, membership(acme, dev).pk])
    assert owner.post(url, {"role": "auditor", "ends_on": ""}).status_code == 302
    assert membership(acme, dev).role == "auditor"
    refused = owner.post(url, {"role": "viewer", "ends_on": "2001-01-01"})
    assert refused.status_code == 422
    assert list(refused.context["form"].errors) == ["ends_on"]
    assert refused.context["form"]["role"].value() == "viewer"
    assert membership(acme, dev).role == "auditor"


def test_removing_asks_first_and_an_admin_cannot_touch_an_owner(acme: Access, owner: Client, visitor: Visitor) -> None:
    dev = member(acme.org, Role.DEVELOPER)
    url = reverse("orgs:member-remove", args=[acme.org_id, membership(acme, dev).pk])
    assert "stay active" in owner.get(url).content.decode()
    assert len(list_members(acme)) == 2
    owner.post(url)
    assert len(list_members(acme)) == 1
    admin = visitor(member(acme.org, Role.ADMIN))
    foreign = membership(acme, acme).pk
    for name in ("orgs:member", "orgs:member-remove"):
        assert admin.get(reverse(name, args=[acme.org_id, foreign])).status_code == 403
    assert (
        reverse("orgs:member-remove", args=[acme.org_id, foreign])
        not in admin.get(reverse("orgs:people", args=[acme.org_id])).content.decode()
    )
    assert admin.post(reverse("orgs:member-remove", args=[acme.org_id, foreign])).status_code == 403


def test_anybody_leaves_but_the_last_owner(acme: Access, owner: Client, visitor: Visitor) -> None:
    url = reverse("orgs:leave", args=[acme.org_id])
    viewer = visitor(member(acme.org, Role.VIEWER))
    assert "Leave the organization" in viewer.get(url).content.decode()
    assert viewer.post(url).headers["Location"] == reverse("orgs:list")
    assert viewer.get(url).status_code == 404
    assert owner.post(url).status_code == 409
    assert len(list_members(acme)) == 1


def test_ownership_goes_to_another_member_after_it_was_said_what_that_means(acme: Access, owner: Client) -> None:
    admin = member(acme.org, Role.ADMIN)
    url = reverse("orgs:member-transfer", args=[acme.org_id, membership(acme, admin).pk])
    assert "Only the new owner can undo this" in owner.get(url).content.decode()
    owner.post(url)
    assert (membership(acme, admin).role, membership(acme, acme).role) == ("owner", "admin")


def test_a_person_with_a_password_confirms_it_before_giving_the_organization_away(acme: Access, owner: Client) -> None:
    admin = member(acme.org, Role.ADMIN)
    assert acme.user is not None
    acme.user.set_password("correct horse battery")
    acme.user.save()
    owner.force_login(acme.user)
    url = reverse("orgs:member-transfer", args=[acme.org_id, membership(acme, admin).pk])
    asked = owner.post(url)
    assert asked.headers["Location"].startswith(reverse("account_reauthenticate"))
    assert membership(acme, admin).role == "admin"
    owner.post(asked.headers["Location"], {"password": "correct horse battery"})
    assert membership(acme, admin).role == "owner"


def test_members_of_another_organization_lead_nowhere(acme: Access, owner: Client) -> None:
    other = organization("Other")
    theirs = membership(other, member(other.org, Role.VIEWER)).pk
    invited = invite(other, email="grace@example.com", role="viewer").pk
    for name, key in (
        ("orgs:member", theirs), ("orgs:member-remove", theirs), ("orgs:member-transfer", theirs),
        ("orgs:invitation-revoke", invited), ("orgs:invitation-resend", invited),
    ):  # fmt: skip
        assert owner.post(reverse(name, args=[acme.org_id, key])).status_code == 404, name
    assert len(list_members(other)) == 2
    assert list_invitations(other)[0].state == "open"


def test_a_viewer_reads_the_list_and_is_offered_nothing_to_change(acme: Access, visitor: Visitor) -> None:
    path_of(acme)
    page = visitor(member(acme.org, Role.VIEWER)).get(reverse("orgs:people", args=[acme.org_id])).content.decode()
    assert "grace@example.com" in page
    for word in ("Invite a member", "Resend", ">Revoke<", ">Change<", ">Remove<", "Make owner"):
        assert word not in page
    assert ">Leave<" in page


def test_requiring_two_steps_says_whom_it_stops_and_does_not_lock_out_who_asks(acme: Access, owner: Client) -> None:
    member(acme.org, Role.VIEWER)
    url = reverse("orgs:two-step", args=[acme.org_id])
    assert [line.count for line in owner.get(url).context["impact"]] == ["2"]
    refused = owner.post(url)
    assert refused.status_code == 409
    assert "Set up a second factor for your own account first" in refused.content.decode()
    assert acme.user is not None
    Authenticator.objects.create(user=acme.user, type=Authenticator.Type.TOTP, data={"secret": "x"})
    assert owner.post(url).status_code == 302
    assert ">Stop requiring<" in owner.get(reverse("orgs:people", args=[acme.org_id])).content.decode()
    authenticate(owner, acme.user, at=1.0)
    assert "/accounts/" in owner.post(url).headers["Location"]  # weakening it asks who is there
    Caller(user=acme.user, client=owner)
    owner.post(url)
    assert ">Require<" in owner.get(reverse("orgs:people", args=[acme.org_id])).content.decode()


def test_the_second_of_two_clicks_means_what_the_first_one_meant(acme: Access, owner: Client) -> None:
    assert acme.user is not None
    Authenticator.objects.create(user=acme.user, type=Authenticator.Type.TOTP, data={"secret": "x"})
    Caller(user=acme.user, client=owner)
    asked = owner.get(reverse("orgs:two-step", args=[acme.org_id])).context["question"].url
    for _ in range(2):
        assert owner.post(asked).status_code == 302
    assert access_org(acme.user, acme.org_id).org.mfa_required


def test_who_has_nothing_to_confirm_with_signs_in_again_first(acme: Access) -> None:
    admin = member(acme.org, Role.ADMIN)
    assert acme.user is not None
    stolen = Client()
    stolen.force_login(acme.user)
    refused = stolen.post(reverse("orgs:member-transfer", args=[acme.org_id, membership(acme, admin).pk]))
    assert refused.status_code == 403
    assert "Sign out and sign in again" in refused.content.decode()
    assert membership(acme, admin).role == "admin"

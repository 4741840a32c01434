"""Page: a command line asks to act for a person."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audit.access import AuditQuery, search
from cloudsignal.errors import Unauthenticated
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access
from orgs.api_keys.cli_login import redeem_code
from orgs.api_keys.keys import create_api_key, create_personal_key
from orgs.api_keys.reads import get_api_key, list_api_keys
from orgs.models import ApiKey, Organization, User
from orgs.permissions import Role
from tests.support.cli_login import BACK, VERIFIER, asked
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def address(**changes: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in asked(**changes).items())
    return f"{reverse('orgs:command-line')}?{query}"


def answer(location: str) -> dict[str, str]:
    """What the browser brings back to the terminal."""
    assert location.startswith(f"{BACK}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def test_the_person_sees_who_asks_and_what_for_and_says_yes(acme: Access, owner: Client) -> None:
    page = owner.get(address())
    text = page.content.decode()
    for shown in ("laptop", acme.org.name, "Deploy and roll back", "127.0.0.1"):
        assert shown in text
    for never in ("Create and revoke API keys", "Invite, change"):
        assert never not in text
    assert "form-action 'self' http://127.0.0.1:54321;" in page.headers["Content-Security-Policy"] + ";"
    said = owner.post(address(), {"organization": acme.org_id, "answer": "yes"})
    assert said.status_code == 302
    brought = answer(said.headers["Location"])
    assert brought["state"] == asked()["state"]
    made = redeem_code(brought["code"], verifier=VERIFIER, redirect_uri=BACK, ip="192.0.2.7")
    assert (made.key.org_id, made.key.person) == (acme.org_id, acme.user)
    listed = owner.get(reverse("orgs:keys", args=[acme.org_id])).content.decode()
    assert "CLI of" in listed
    assert "Rotate" not in listed
    assert made.secret not in listed


def test_no_is_told_to_the_terminal_and_makes_nothing(acme: Access, owner: Client) -> None:
    said = owner.post(address(), {"organization": acme.org_id, "answer": "no"})
    brought = answer(said.headers["Location"])
    assert brought == {"error": "access_denied", "state": asked()["state"]}
    assert "Declined" in owner.post(address(show="code"), {"answer": "no"}).content.decode()
    assert list_api_keys(acme) == ()


def test_a_code_to_paste_is_shown_where_the_browser_is_elsewhere(acme: Access, owner: Client) -> None:
    page = owner.post(address(show="code"), {"organization": acme.org_id, "answer": "yes"})
    assert page.status_code == 200
    assert "no-store" in page.headers["Cache-Control"]
    redeem_code(str(page.context["code"]), verifier=VERIFIER, redirect_uri=BACK, ip="192.0.2.7")


def test_nothing_is_ever_sent_to_an_address_that_was_not_checked(acme: Access, owner: Client) -> None:
    for uri in ("https://evil.example/callback", "http://127.0.0.1.evil.example:5000/callback"):
        for said in ("yes", "no"):
            refused = owner.post(address(redirect_uri=uri), {"organization": acme.org_id, "answer": said})
            assert refused.status_code == 422
            assert "evil.example" not in str(refused.headers)


def test_another_organization_cannot_be_chosen(acme: Access, owner: Client) -> None:
    other = organization("Other")
    said = owner.post(address(), {"organization": other.org_id, "answer": "yes"})
    assert (said.status_code, list(said.context["form"].errors)) == (422, ["organization"])
    assert owner.post(address(), {"answer": "yes"}).status_code == 422


def test_signing_in_comes_first_and_leads_back(acme: Access) -> None:
    sent = Client().get(address())
    assert sent.status_code == 302
    assert reverse("account_login") in sent.headers["Location"]
    assert "code_challenge" in sent.headers["Location"]


def test_an_old_session_has_to_show_its_password_again(acme: Access) -> None:
    someone = User.objects.create_user("eve@example.com", "correct horse battery")
    theirs = organization("Eve", owner=someone)
    client = Client()
    client.force_login(someone)
    for sent in (client.get(address()), client.post(address(), {"organization": theirs.org_id, "answer": "yes"})):
        assert sent.status_code == 302
        assert "reauthenticate" in sent.headers["Location"]
    assert client.post(address(), {"answer": "no"}).headers["Location"].startswith(BACK)


def test_a_required_second_factor_is_asked_for(acme: Access, owner: Client) -> None:
    with org_scope(acme.org_id):
        Organization.objects.filter(pk=acme.org_id).update(mfa_required=True)
    said = owner.post(address(), {"organization": acme.org_id, "answer": "yes"})
    assert said.status_code == 422
    assert "requires a second factor" in said.content.decode()


def test_a_suspended_organization_is_not_offered(acme: Access, owner: Client) -> None:
    with org_scope(acme.org_id):
        Organization.objects.filter(pk=acme.org_id).update(status="suspended")
    assert "not a member of an organization" in owner.get(address()).content.decode()
    assert owner.post(address(), {"organization": acme.org_id, "answer": "yes"}).status_code == 422


def test_somebody_without_an_organization_is_told_so(visitor: Visitor) -> None:
    assert "not a member of an organization" in visitor(person()).get(address()).content.decode()


def test_a_new_password_signs_every_command_line_out(acme: Access) -> None:
    eve = User.objects.create_user("eve@example.com", "correct horse battery")
    first, second = organization("Eve", owner=eve), organization("More of Eve", owner=eve)
    keys = [create_personal_key(access, machine="") for access in (first, second)]
    kept = create_personal_key(acme, machine="")
    client = Client()
    client.post(reverse("account_login"), {"login": "eve@example.com", "password": "correct horse battery"})
    fresh = {"oldpassword": "correct horse battery", "password1": "staple horse battery", "password2": "staple horse b"}
    client.post(reverse("account_change_password"), fresh)
    use_api_key(keys[0].secret, ip="192.0.2.7")
    done = client.post(reverse("account_change_password"), fresh | {"password2": "staple horse battery"})
    assert done.status_code == 302
    for key in keys:
        with pytest.raises(Unauthenticated):
            use_api_key(key.secret, ip="192.0.2.7")
    use_api_key(kept.secret, ip="192.0.2.7")
    (event,) = search(first, AuditQuery(kind="api_key.revoked")).events
    assert event.actor == "user:eve@example.com"


def test_a_viewer_revokes_their_own_command_line_on_the_page(acme: Access, visitor: Visitor) -> None:
    viewer = member(acme.org, Role.VIEWER)
    mine, other = create_personal_key(viewer, machine="laptop"), create_personal_key(acme, machine="")
    client = visitor(viewer)
    listed = client.get(reverse("orgs:keys", args=[acme.org_id])).content.decode()
    assert reverse("orgs:key-revoke", args=[acme.org_id, mine.key.pk]) in listed
    assert reverse("orgs:key-revoke", args=[acme.org_id, other.key.pk]) not in listed
    question = client.get(reverse("orgs:key-revoke", args=[acme.org_id, mine.key.pk])).content.decode()
    assert "every credential it has issued" not in question
    assert client.post(reverse("orgs:key-revoke", args=[acme.org_id, other.key.pk])).status_code == 403
    assert client.post(reverse("orgs:key-revoke", args=[acme.org_id, mine.key.pk])).status_code == 302
    assert [key.revoked_at is None for key in list_api_keys(acme)] == [True, False]


def test_signing_out_everywhere_signs_every_command_line_out(acme: Access, visitor: Visitor) -> None:
    """It says everywhere, and who is afraid for a laptop that is gone means its command line as well."""
    eve = person("eve@example.com")
    first, second = organization("Eve", owner=eve), organization("More of Eve", owner=eve)
    keys = [create_personal_key(access, machine="lost laptop") for access in (first, second)]
    kept = create_personal_key(acme, machine="")
    client = visitor(eve)
    page = client.get(reverse("usersessions_list")).content.decode()
    for shown in ("lost laptop", "More of Eve", str(keys[0].key), "Sign out everywhere else"):
        assert shown in page
    assert str(kept.key) not in page
    assert client.post(reverse("usersessions_list")).status_code == 302
    for key in keys:
        with pytest.raises(Unauthenticated):
            use_api_key(key.secret, ip="192.0.2.7")
    use_api_key(kept.secret, ip="192.0.2.7")
    page = client.get(reverse("usersessions_list")).content.decode()
    assert "lost laptop" not in page
    assert "Sign out everywhere else" not in page
    (event,) = search(second, AuditQuery(kind="api_key.revoked")).events
    assert event.actor == "user:eve@example.com"


def test_command_lines_of_long_ago_are_not_listed_and_programs_keys_are(acme: Access) -> None:
    """Each sign-in makes a key: without an end to it, the list is soon of nothing else."""
    recent, expired, revoked = (create_personal_key(acme, machine=name).key for name in ("a", "b", "c"))
    program = create_api_key(acme, kind="pk", name="web").key
    long_ago = timezone.now() - timedelta(days=8)
    with org_scope(acme.org_id):
        ApiKey.objects.filter(pk__in=[expired.pk, program.pk]).update(expires_at=long_ago)
        ApiKey.objects.filter(pk=recent.pk).update(expires_at=timezone.now())
        ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=long_ago)
    assert {key.pk for key in list_api_keys(acme)} == {recent.pk, program.pk}
    assert get_api_key(acme, expired.pk) == expired


@pytest.mark.parametrize("query", ["", "?redirect_uri=https://evil.example/callback", "?response_type=code"])
def test_a_link_of_no_command_line_says_what_to_do(query: str, owner: Client) -> None:
    page = owner.get(reverse("orgs:command-line") + query)
    assert page.status_code == 422
    text = page.content.decode()
    assert "<h1>Invalid CLI link</h1>" in text
    assert "cloudsignal login" in text
    assert "evil.example" not in text

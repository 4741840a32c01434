"""Every page goes through the gate: who may open which URL, as one table. A URL that is missing here fails."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from django.urls.converters import StringConverter

from acl.access import current_deployment
from orgs.access.grants import Access
from orgs.access.web.gate import Requirement
from orgs.credentials.issuing import issue_credential
from orgs.credentials.reads import get_credential
from orgs.permissions import Role, may
from tests.support.pages import PAGES, TABLE
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings

    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


ORG_URLS = sorted(name for name, row in TABLE.items() if row.scope == "org")


def test_every_url_is_in_the_table_and_every_row_is_a_url() -> None:
    assert set(PAGES) == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_view_went_through_the_gate_that_the_table_names(name: str) -> None:
    row = TABLE[name]
    gate = getattr(PAGES[name].callback, "gate", None)
    assert isinstance(gate, Requirement), f"{name} is not gated"
    assert (gate.scope, gate.permission, gate.write) == (row.scope, row.permission, row.write)


def address(name: str, access: Access, /, **odd: str) -> str:
    """The URL of ``name`` in the organization, with an id in it that exists nowhere, or what ``odd`` says."""
    samples = {
        "org_id": access.org_id, "token_id": "tok_none", "username": "nobody", "session_id": "none", "name": "nothing",
        "deployment_id": "dep_none", "number": 999, "key": "1.00000000-0000-0000-0000-000000000000",
        "member_id": 999_999_999, "key_id": 999_999_999, "invitation_id": "inv_none", "provider_id": "idp_none",
        "kind": "nothing", "token": "inv_none.0", "sign_on_id": "sso_none", **odd,
    }  # fmt: skip
    wanted = PAGES[name].pattern.converters
    return reverse(name, kwargs={key: samples[key] for key in wanted})


def statuses(client: Client, name: str, access: Access) -> dict[str, int]:
    """What the methods of the URL answer."""
    url, row = address(name, access), TABLE[name]
    answers = {}
    if row.get:
        answers["get"] = client.get(url).status_code
    if row.post:
        answers["post"] = client.post(url).status_code
    return answers


@pytest.mark.parametrize("name", sorted(name for name, row in TABLE.items() if row.scope != "public"))
def test_nobody_gets_in_without_signing_in(name: str, acme: Access) -> None:
    for method, status in statuses(Client(), name, acme).items():
        assert status == 302, method
    assert Client().get(address(name, acme), headers={"HX-Request": "true"}).status_code in {401, 405}


@pytest.mark.parametrize("name", ORG_URLS)
def test_a_stranger_is_told_that_nothing_is_there(name: str, acme: Access, visitor: Visitor) -> None:
    stranger = visitor(organization("Other"))
    assert set(statuses(stranger, name, acme).values()) == {404}


@pytest.mark.parametrize("name", ORG_URLS)
def test_a_role_opens_exactly_what_it_holds(name: str, acme: Access, visitor: Visitor) -> None:
    row = TABLE[name]
    assert row.permission is not None
    wrong = []
    for role in Role:
        for method, status in statuses(visitor(member(acme.org, role)), name, acme).items():
            needed = [row.permission] + ([row.write] if row.write and method == "post" else [])
            allowed = all(may(role, permission) for permission in needed)
            if (status != 403) is not allowed:
                wrong.append(f"{method} as {role} answered {status}")
    assert not wrong


@pytest.mark.parametrize("name", sorted(name for name, row in TABLE.items() if row.scope == "operator"))
def test_operator_pages_exist_for_operators_only(name: str, acme: Access, visitor: Visitor, settings: Settings) -> None:
    settings.DEMO = True  # the mail page exists in demos only
    assert set(statuses(visitor(acme), name, acme).values()) == {404}
    allowed = statuses(visitor(person(operator=True)), name, acme)
    assert not set(allowed.values()) & {403, 404, 500}


def test_an_operator_may_look_into_an_organization_but_not_change_it(acme: Access, visitor: Visitor) -> None:
    operator = visitor(person(operator=True))
    assert operator.get(reverse("platform:home", args=[acme.org_id])).status_code == 200
    assert operator.get(reverse("audit:list", args=[acme.org_id])).status_code == 200
    assert operator.post(reverse("acl:deploy", args=[acme.org_id])).status_code == 403


@pytest.mark.parametrize("name", sorted(TABLE))
def test_other_methods_are_refused(name: str, acme: Access, owner: Client) -> None:
    row, url = TABLE[name], address(name, acme)
    assert owner.delete(url).status_code == 405
    if not row.get:
        assert owner.get(url).status_code == 405
    if not row.post:
        assert owner.post(url).status_code == 405


def test_ids_of_another_organization_lead_nowhere(acme: Access, owner: Client) -> None:
    other = organization("Other")
    issued = issue_credential(other, username="sensor")
    current = current_deployment(other)
    assert current is not None
    for url in (
        reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id]),
        reverse("acl:deployment", args=[acme.org_id, current.pk]),
    ):
        assert owner.get(url).status_code == 404
    assert owner.post(reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id])).status_code == 404
    assert owner.post(reverse("orgs:username-revoke", args=[acme.org_id, "sensor"])).status_code == 404
    assert get_credential(other, issued.token_id).state == "active"


def test_pages_are_not_kept_by_caches(acme: Access, owner: Client) -> None:
    assert "no-store" in owner.get(reverse("platform:home", args=[acme.org_id])).headers["Cache-Control"]


def test_a_post_without_its_token_is_refused_in_words(acme: Access, visitor: Visitor) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert acme.user is not None
    strict.force_login(acme.user)
    refused = strict.post(reverse("orgs:new"), {"name": "Sneaky"})
    assert refused.status_code == 403
    assert b"no valid token" in refused.content
    assert b"Sneaky" not in refused.content, "another site's form is not offered to be sent again"
    assert b"Your role does not allow this" not in refused.content


OURS = {"Sec-Fetch-Site": "same-origin"}


def test_a_form_that_a_new_sign_in_made_stale_is_kept_and_sent_again(acme: Access) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert acme.user is not None
    strict.force_login(acme.user)
    path = reverse("acl:save", args=[acme.org_id])
    text = 'version: "3"\nrules: []  # <b>kept</b>\n'
    kept = strict.post(path, {"text": text, "etag": "x", "csrfmiddlewaretoken": "old"}, headers=OURS)
    assert kept.status_code == 403
    page = kept.content.decode()
    assert "Submit again" in page
    assert "&lt;b&gt;kept&lt;/b&gt;" in page
    assert f'action="{path}"' in page
    assert acme.user.email in page, "who sends it now is said: it may be somebody else than who typed it"
    token = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    again = strict.post(path, {"text": text, "etag": "x", "csrfmiddlewaretoken": token}, headers=OURS)
    assert again.status_code != 403


def test_a_form_that_is_sent_after_the_session_ended_is_kept(acme: Access) -> None:
    page = Client().post(reverse("acl:save", args=[acme.org_id]), {"text": "# typed for an hour"}, headers=OURS)
    assert page.status_code == 401
    assert b"# typed for an hour" in page.content
    assert b"Sign in in a new tab" in page.content


def test_a_form_with_a_secret_or_from_elsewhere_is_never_written_into_a_page(acme: Access) -> None:
    path = reverse("acl:save", args=[acme.org_id])
    for fields, headers in (
        ({"new_password": "hunter2hunter2"}, OURS),
        ({"token": "hunter2hunter2"}, OURS),
        ({"text": "hunter2hunter2"}, {"Sec-Fetch-Site": "cross-site"}),
        ({"text": "hunter2hunter2"}, {"Origin": "https://evil.example"}),
    ):
        answer = Client().post(path, fields, headers=headers)
        assert answer.status_code == 302
        assert b"hunter2hunter2" not in answer.content


def test_what_a_person_agrees_to_for_themselves_is_asked_again(acme: Access) -> None:
    """The page named whoever was signed in then: with one click somebody else would let a command line act as them."""
    strict = Client(enforce_csrf_checks=True)
    assert acme.user is not None
    strict.force_login(acme.user)
    fields = {"organization": acme.org_id, "answer": "yes", "csrfmiddlewaretoken": "old"}
    answer = strict.post(reverse("orgs:command-line"), fields, headers=OURS)
    assert answer.status_code == 403
    assert b"Submit again" not in answer.content
    assert b"no valid token" in answer.content


def test_the_session_tells_its_person_and_a_token_that_works(acme: Access, owner: Client) -> None:
    assert acme.user is not None
    found = owner.get(reverse("platform:session")).json()
    assert found["person"] == str(acme.user.pk)
    assert len(found["token"]) > 30
    assert Client().get(reverse("platform:session")).json()["person"] == ""


def test_an_address_that_only_takes_forms_says_so_and_leads_back(acme: Access, owner: Client) -> None:
    answer = owner.get(reverse("acl:save", args=[acme.org_id]))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert b"accepts form submissions only" in answer.content


@pytest.mark.parametrize(
    ("came", "back"),
    [
        ("http://testserver/o/{org}/access/?version=2#x", "/o/{org}/access/?version=2"),
        ("http://evil.example/", "/o/{org}/access/save/"),
        ("", "/o/{org}/access/save/"),
    ],
)
def test_signing_in_again_leads_to_the_page_with_the_form_not_to_where_it_went(
    came: str, back: str, acme: Access
) -> None:
    headers = {"Referer": came.format(org=acme.org_id)} if came else {}
    answer = Client().post(reverse("acl:save", args=[acme.org_id]), headers=headers)
    assert parse_qs(urlsplit(answer.headers["Location"]).query)["next"] == [back.format(org=acme.org_id)]


def test_what_a_role_may_not_open_leads_home(acme: Access, visitor: Visitor) -> None:
    page = visitor(member(acme.org, Role.VIEWER)).get(reverse("orgs:credential-new", args=[acme.org_id]))
    assert "Your role does not allow this" in page.content.decode()
    assert f'href="{reverse("platform:home", args=[acme.org_id])}"' in page.content.decode()


@pytest.mark.parametrize(
    ("name", "asked", "status"),
    [
        ("acl:policy", {"version": "²"}, 200),
        ("acl:versions", {"before": "²"}, 200),
        ("orgs:credentials", {"cursor": "²-²"}, 422),
        ("orgs:expiry", {"cursor": "²-²"}, 422),
        ("audit:list", {"upto": "²"}, 200),
    ],
)
def test_a_digit_that_is_no_number_breaks_no_page(
    name: str, asked: dict[str, str], status: int, acme: Access, owner: Client
) -> None:
    answer = owner.get(reverse(name, args=[acme.org_id]), asked, headers={"HX-Request": "true"})
    assert answer.status_code == status


def test_no_address_can_be_made_up_that_the_database_cannot_be_asked_for(acme: Access, owner: Client) -> None:
    asked = 0
    for name, pattern in PAGES.items():
        for part, converter in pattern.pattern.converters.items():
            if isinstance(converter, StringConverter):
                path = address(name, acme, **{part: "a\0b"})
                statuses = {answer.status_code for answer in (owner.get(path), owner.post(path), Client().get(path))}
                assert statuses <= {302, 404, 405}, path
                asked += 1
    assert asked > 60

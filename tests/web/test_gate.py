"""Every page goes through the gate: who may open which URL, as one table. A URL that is missing here fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.converters import StringConverter

from acl.access import current_deployment
from orgs.access.grants import Access
from orgs.access.web.gate import Gate
from orgs.credentials.issuing import issue_credential
from orgs.credentials.reads import get_credential
from orgs.permissions import Permission, Role, may
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings

    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Row:
    """What a URL asks for, and how: ``get`` and ``post`` say which methods it takes."""

    scope: str
    permission: Permission | None = None
    get: bool = True
    post: bool = False
    write: Permission | None = None


READ, EDIT, DEPLOY = Permission.ORG_READ, Permission.POLICY_EDIT, Permission.POLICY_DEPLOY
CREDS, AUDIT, SIMULATE = Permission.CREDENTIALS_MANAGE, Permission.AUDIT_READ, Permission.POLICY_SIMULATE
PEOPLE, KEYS, PROVIDERS = Permission.MEMBERS_MANAGE, Permission.API_KEYS_MANAGE, Permission.PROVIDERS_MANAGE
TABLE: dict[str, Row] = {
    "platform:start": Row("person"),
    "platform:help": Row("person"),
    "platform:session": Row("public"),
    "platform:theme": Row("public", get=False, post=True),
    "platform:ca": Row("public"),
    "platform:operator-organizations": Row("operator"),
    "platform:operator-nodes": Row("operator"),
    "audit:log": Row("operator"),
    "platform:operator-mail": Row("operator"),
    "platform:operator-domains": Row("operator"),
    "platform:operator-approve": Row("operator", get=False, post=True),
    "platform:operator-suspend": Row("operator", post=True),
    "platform:operator-resume": Row("operator", get=False, post=True),
    "orgs:list": Row("person"),
    "orgs:new": Row("person", post=True),
    "orgs:home": Row("org", READ),
    "orgs:pulse": Row("org", READ),
    "orgs:clients": Row("org", READ),
    "orgs:session-close": Row("org", Permission.SESSIONS_CLOSE, post=True),
    "orgs:broker": Row("org", READ),
    "orgs:retained-clear": Row("org", Permission.RETAINED_CLEAR, post=True),
    "orgs:stored-release": Row("org", Permission.SESSIONS_CLOSE, post=True),
    "orgs:credentials": Row("org", READ),
    "orgs:credential-new": Row("org", CREDS, post=True),
    "orgs:credential-revoke": Row("org", CREDS, post=True),
    "orgs:username-revoke": Row("org", CREDS, post=True),
    "orgs:expiry": Row("org", READ),
    "orgs:bulk": Row("org", CREDS, post=True),
    "orgs:closing": Row("org", READ),
    "orgs:username": Row("org", READ, post=True, write=CREDS),
    "orgs:people": Row("org", READ),
    "orgs:invite": Row("org", PEOPLE, post=True),
    "orgs:leave": Row("org", READ, post=True),
    "orgs:two-step": Row("org", Permission.ORG_UPDATE, post=True),
    "orgs:member": Row("org", PEOPLE, post=True),
    "orgs:member-remove": Row("org", PEOPLE, post=True),
    "orgs:member-transfer": Row("org", Permission.ORG_TRANSFER, post=True),
    "orgs:invitation-resend": Row("org", PEOPLE, get=False, post=True),
    "orgs:invitation-revoke": Row("org", PEOPLE, post=True),
    "orgs:invitation": Row("public", post=True),
    "orgs:keys": Row("org", READ),
    "orgs:key-new": Row("org", KEYS, post=True),
    "orgs:key-rotate": Row("org", KEYS, post=True),
    "orgs:key-revoke": Row("org", READ, post=True),  # one's own command line's; the service asks for KEYS else
    "orgs:command-line": Row("person", post=True),
    "orgs:providers": Row("org", READ, post=True, write=Permission.ORG_UPDATE),
    "orgs:provider-choose": Row("org", PROVIDERS),
    "orgs:provider-new": Row("org", PROVIDERS, post=True),
    "orgs:provider": Row("org", PROVIDERS, post=True),
    "orgs:provider-remove": Row("org", PROVIDERS, post=True),
    "orgs:provider-try": Row("org", PROVIDERS, post=True),
    "orgs:sign-ons": Row("org", READ),
    "orgs:sign-on-new": Row("org", PROVIDERS, post=True),
    "orgs:sign-on": Row("org", PROVIDERS, post=True),
    "orgs:sign-on-remove": Row("org", PROVIDERS, post=True),
    "orgs:sign-on-find": Row("public"),
    "orgs:sign-on-door": Row("public"),
    "orgs:sign-on-start": Row("public"),
    "orgs:sign-on-callback": Row("public"),
    "orgs:sign-on-consume": Row("public", get=False, post=True),
    "orgs:sign-on-arrive": Row("public"),
    "orgs:sign-on-metadata": Row("public"),
    "orgs:danger": Row("org", Permission.ORG_UPDATE),
    "orgs:export": Row("org", Permission.ORG_UPDATE),
    "orgs:revoke-all": Row("org", Permission.ORG_UPDATE, post=True, write=CREDS),
    "orgs:delete": Row("org", Permission.ORG_DELETE, post=True),
    "orgs:restore": Row("org", Permission.ORG_DELETE, get=False, post=True),
    "orgs:settings": Row("org", READ, post=True, write=Permission.ORG_UPDATE),
    "acl:schema": Row("public"),
    "acl:policy": Row("org", READ),
    "acl:save": Row("org", EDIT, get=False, post=True),
    "acl:check": Row("org", EDIT, get=False, post=True),
    "acl:simulate": Row("org", SIMULATE, get=False, post=True),
    "acl:presets": Row("org", READ),
    "acl:preset": Row("org", EDIT, post=True),
    "acl:review": Row("org", READ),
    "acl:deploy": Row("org", DEPLOY, get=False, post=True),
    "acl:deployment": Row("org", READ),
    "acl:versions": Row("org", READ),
    "acl:version": Row("org", READ),
    "acl:rollback": Row("org", DEPLOY, post=True),
    "audit:list": Row("org", AUDIT),
    "audit:event": Row("org", AUDIT),
}
ORG_URLS = sorted(name for name, row in TABLE.items() if row.scope == "org")


FOREIGN = {"v2/", "accounts/"}
"""The API and django-allauth's pages: not ours, and tested elsewhere."""


def _patterns(patterns: list[URLPattern | URLResolver], namespace: str = "") -> list[tuple[str, URLPattern]]:
    found: list[tuple[str, URLPattern]] = []
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = pattern.namespace or namespace
            if str(pattern.pattern) in FOREIGN:
                continue
            found += _patterns(pattern.url_patterns, inner)
        else:
            found.append(
                (f"{namespace}:{pattern.name}" if namespace else str(pattern.name or pattern.pattern), pattern)
            )
    return found


PAGES = {
    name: pattern
    for name, pattern in _patterns(get_resolver().url_patterns)
    if not name.startswith(("healthz", "readyz", "health"))
}


def test_every_url_is_in_the_table_and_every_row_is_a_url() -> None:
    assert set(PAGES) == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_view_went_through_the_gate_that_the_table_names(name: str) -> None:
    row = TABLE[name]
    gate = getattr(PAGES[name].callback, "gate", None)
    assert isinstance(gate, Gate), f"{name} is not gated"
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


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", ORG_URLS)
def test_a_role_opens_exactly_what_it_holds(name: str, role: Role, acme: Access, visitor: Visitor) -> None:
    row = TABLE[name]
    assert row.permission is not None
    client = visitor(member(acme.org, role))
    for method, status in statuses(client, name, acme).items():
        needed = [row.permission] + ([row.write] if row.write and method == "post" else [])
        allowed = all(may(role, permission) for permission in needed)
        assert (status != 403) is allowed, f"{method} as {role} answered {status}"


@pytest.mark.parametrize("name", sorted(name for name, row in TABLE.items() if row.scope == "operator"))
def test_operator_pages_exist_for_operators_only(name: str, acme: Access, visitor: Visitor, settings: Settings) -> None:
    settings.DEMO = True  # the mail page exists in demos only
    assert set(statuses(visitor(acme), name, acme).values()) == {404}
    allowed = statuses(visitor(person(operator=True)), name, acme)
    assert not set(allowed.values()) & {403, 404, 500}


def test_an_operator_may_look_into_an_organization_but_not_change_it(acme: Access, visitor: Visitor) -> None:
    operator = visitor(person(operator=True))
    assert operator.get(reverse("orgs:home", args=[acme.org_id])).status_code == 200
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
    assert "no-store" in owner.get(reverse("orgs:home", args=[acme.org_id])).headers["Cache-Control"]


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
    assert f'href="{reverse("orgs:home", args=[acme.org_id])}"' in page.content.decode()


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

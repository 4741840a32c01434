"""Pages: sign-in, help, colours, certificate, operators, errors; and what every page promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from django.urls import reverse

from acl.models import Cluster, Node
from orgs.access.grants import Access, access_org
from orgs.credentials.issuing import issue_credential
from orgs.models import User
from orgs.organizations.lifecycle import suspend_organization
from tests.support.world import person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def test_signing_in_keeps_where_one_wanted_to_go(acme: Access) -> None:
    User.objects.create_user("ada@example.com", "correct horse battery")
    wanted = reverse("orgs:list")
    asked = Client().get(wanted)
    assert asked.headers["Location"] == f"/accounts/login/?next={wanted}"
    client = Client()
    sent = {"login": "ada@example.com", "password": "correct horse battery", "next": wanted}
    assert client.post("/accounts/login/", sent).headers["Location"] == wanted


def test_a_wrong_password_keeps_the_address_and_says_nothing_of_the_account(db: None) -> None:
    User.objects.create_user("ada@example.com", "correct horse battery")
    pages = [
        Client().post("/accounts/login/", {"login": login, "password": "wrong"})
        for login in ("ada@example.com", "nobody@example.com")
    ]
    assert {page.status_code for page in pages} == {200}
    assert pages[0].context["form"]["login"].value() == "ada@example.com"
    assert pages[0].context["form"].errors == pages[1].context["form"].errors


@pytest.mark.parametrize("address", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_the_pages_before_sign_in_are_in_our_own_design(address: str) -> None:
    page = Client().get(address).content.decode()
    assert 'class="gatehouse"' in page
    assert 'class="field"' in page


@pytest.mark.parametrize(
    "address", ["/accounts/2fa/", "/accounts/password/change/", "/accounts/sessions/", "/accounts/email/"]
)
def test_the_account_pages_are_in_our_own_design(address: str, visitor: Visitor) -> None:
    ada = User.objects.create_user("ada@example.com", "correct horse battery")
    page = visitor(ada).get(address).content.decode()
    assert 'class="shell"' in page
    assert 'aria-label="Account"' in page


def test_what_an_account_page_is_for_stands_out_as_its_button(visitor: Visitor) -> None:
    ada = User.objects.create_user("ada@example.com", "correct horse battery")
    page = visitor(ada).get("/accounts/password/change/").content.decode()
    assert re.search(r'<button class="btn btn-primary"[^>]*>\s*Change password', page)
    reset = Client().get("/accounts/password/reset/").content.decode()
    assert re.search(r'<button class="btn btn-primary[^"]*"', reset)


@pytest.mark.parametrize("theme", ["light", "dark", ""])
def test_colours_are_remembered_and_lead_back(theme: str, visitor: Visitor) -> None:
    client = visitor(person())
    assert client.post("/theme/", {"theme": theme, "next": "/help/"}).headers["Location"] == "/help/"
    marked = f'data-theme="{theme}"' in client.get("/help/").content.decode()
    assert marked is bool(theme)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_colours_lead_nowhere_else(target: str) -> None:
    assert Client().post("/theme/", {"theme": "dark", "next": target}).headers["Location"] == "/"


def test_unknown_colours_are_refused() -> None:
    assert Client().post("/theme/", {"theme": "mauve"}).status_code == 422


def test_the_certificate_is_there_for_everybody_when_there_is_a_local_authority(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    assert Client().get("/cloudsignal-ca.pem").status_code == 404
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    answer = Client().get("/cloudsignal-ca.pem")
    assert b"".join(answer.streaming_content).startswith(b"-----BEGIN")  # type: ignore[attr-defined]
    assert 'filename="cloudsignal-ca.pem"' in answer.headers["Content-Disposition"]


def test_an_operator_suspends_and_resumes(acme: Access, visitor: Visitor) -> None:
    operator = visitor(person(operator=True))
    url = reverse("platform:operator-suspend", args=[acme.org_id])
    assert "disconnected within a second" in operator.get(url).content.decode()
    refused = operator.post(url, {"reason": "x" * 201})
    assert refused.status_code == 422
    assert refused.context["form"]["reason"].value() == "x" * 201
    assert operator.post(url, {"reason": "unpaid"}).status_code == 302
    assert acme.user is not None
    assert access_org(acme.user, acme.org_id).org.status == "suspended"
    assert "unpaid" in visitor(acme).get(reverse("platform:home", args=[acme.org_id])).content.decode()
    assert operator.post(url).status_code == 409
    operator.post(reverse("platform:operator-resume", args=[acme.org_id]))
    assert access_org(acme.user, acme.org_id).org.status == "active"


def test_suspending_an_idle_organization_leads_to_where_it_says_suspended(acme: Access, visitor: Visitor) -> None:
    operator = visitor(person("root@example.com", operator=True))
    done = operator.post(reverse("platform:operator-suspend", args=[acme.org_id]), {"reason": "unpaid"}, follow=True)
    assert done.redirect_chain[-1][0] == reverse("platform:operator-organizations")
    assert "Suspended" in done.content.decode()


@pytest.mark.parametrize(
    "page", ["platform:home", "orgs:credentials", "orgs:clients", "acl:policy", "audit:list", "orgs:keys"]
)
def test_every_page_of_a_suspended_organization_says_so(
    page: str, acme: Access, owner: Client, visitor: Visitor
) -> None:
    operator_person = person("root@example.com", operator=True)
    suspend_organization(operator_person, acme.org_id, reason="unpaid")
    for client in (owner, visitor(operator_person)):
        shown = client.get(reverse(page, args=[acme.org_id])).content.decode()
        assert shown.count("This organization is suspended.") == 1
        assert "Reason: unpaid" in shown


def test_credentials_of_a_suspended_organization_do_not_look_usable(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor", ttl=600)
    suspend_organization(person("root@example.com", operator=True), acme.org_id, reason="")
    shown = owner.get(reverse("orgs:credentials", args=[acme.org_id])).content.decode()
    assert "Not accepted" in shown
    assert "none is accepted" in owner.get(reverse("platform:home", args=[acme.org_id])).content.decode()


def test_what_is_not_there_is_a_page_of_ours(acme: Access, owner: Client) -> None:
    answer = owner.get("/nothing/here/")
    assert answer.status_code == 404
    assert "Your organizations" in answer.content.decode()
    assert "Sign in" in Client().get("/nothing/here/").content.decode()


def test_a_broken_page_is_told_without_database_or_session(acme: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("orgs.organizations.web.organizations.list_organizations", broken)
    client = Client(raise_request_exception=False)
    assert acme.user is not None
    client.force_login(acme.user)
    answer = client.get(reverse("orgs:list"))
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.content.decode()
    assert "broken on purpose" not in answer.content.decode()


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(acme: Access, owner: Client) -> None:
    for name in ("platform:home", "orgs:credentials", "acl:policy", "acl:presets", "audit:list", "orgs:settings"):
        answer = owner.get(reverse(name, args=[acme.org_id]))
        page, policy = answer.content.decode(), answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        assert "<script>" not in page
        assert 'src="http' not in page
        assert 'href="http' not in page


def test_the_navigation_shows_only_what_the_role_may(acme: Access, visitor: Visitor) -> None:
    from orgs.permissions import Role
    from tests.support.world import member

    def links(role: Role) -> list[str]:
        page = visitor(member(acme.org, role)).get(reverse("platform:home", args=[acme.org_id]))
        return [link.title for link in page.context["shell"].nav]

    assert links(Role.ADMIN) == ["Home", "Clients", "Credentials", "Access control", "Audit", "Settings"]
    assert "Audit" not in links(Role.DEVELOPER)
    assert "Audit" in links(Role.AUDITOR)


def test_an_address_offers_only_what_can_be_done_with_it(visitor: Visitor) -> None:
    ada = User.objects.create_user("ada@example.com", "correct horse battery")
    for address, verified, primary in (
        ("ada@example.com", True, True), ("new@example.com", False, False), ("old@example.com", True, False),
    ):  # fmt: skip
        EmailAddress.objects.create(user=ada, email=address, verified=verified, primary=primary)
    client = visitor(ada)
    client.post("/accounts/reauthenticate/", {"password": "correct horse battery"})
    rows = client.get("/accounts/email/").content.decode().split("<tr>")[2:]
    offered = {re.search(r"\w+@example.com", row)[0]: set(re.findall(r'name="action_(\w+)"', row)) for row in rows}  # type: ignore[index]
    assert offered["ada@example.com"] <= {"add"}  # the row of the primary address may be followed by the form
    assert offered["new@example.com"] - {"add"} == {"send", "remove"}
    assert offered["old@example.com"] - {"add"} == {"primary", "remove"}
    client.post("/accounts/email/", {"email": "new@example.com", "action_remove": ""})
    client.post("/accounts/email/", {"email": "old@example.com", "action_primary": ""})
    assert EmailAddress.objects.get(user=ada, primary=True).email == "old@example.com"
    assert not EmailAddress.objects.filter(email="new@example.com").exists()


def seen(state: str, **more: object) -> dict[str, object]:
    return {"label": f"broker ({state})", "state": state, "why": "" if state == "reachable" else "it is away", **more}


def test_a_node_that_reaches_no_broker_is_not_online_on_any_page(acme: Access, visitor: Visitor) -> None:
    lost = seen("unreachable", since=1_700_000_000.0)
    node = Node.objects.create(cluster=Cluster.objects.get(name="default"), name="edge-1", brokers=[lost])
    nodes, home = reverse("platform:operator-nodes"), reverse("platform:home", args=[acme.org_id])
    operator, member = visitor(person(operator=True)), visitor(acme.user)  # type: ignore[arg-type]
    page = operator.get(nodes).content.decode()
    assert "No broker" in page
    assert "Online" not in page
    assert "0 of 1 edge node online, 1 without a broker, 0 sessions." in page
    assert "No edge node reaches a broker." in page
    assert "it is away" in page
    partial = operator.get(nodes, headers={"HX-Request": "true"}).content.decode()
    assert partial.count('hx-swap-oob="true"') == 3
    assert "No edge node reaches a broker." in operator.get(reverse("platform:operator-organizations")).content.decode()
    page = member.get(home).content.decode()
    assert "No broker can be reached." in page
    assert "broker (unreachable)" not in page, "where brokers are is the operators' matter"
    node.brokers = [lost, seen("reachable", cluster="disagree", members=["b@1"], missing=["b@2"], drops=7)]
    node.save()
    page = operator.get(nodes).content.decode()
    assert "Not every edge node reaches broker (unreachable)." in page
    assert "The broker nodes disagree about their members." in page
    assert "does not run" in page
    assert "The broker nodes disagree about their members." in member.get(home).content.decode()
    node.brokers = []
    node.save()
    page = operator.get(nodes).content.decode()
    assert "Unknown: the edge node does not say" in page
    assert "notice" not in member.get(home).content.decode().partition('id="pulse"')[2].partition("strip")[0]

"""Pages: organizations, home, settings, clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse

from cloudsignal.console.onboarding import Progress, steps
from orgs.access.grants import Access, list_organizations
from orgs.credentials.issuing import issue_credential
from orgs.organizations.lifecycle import suspend_organization
from orgs.permissions import Role
from tests.support.audit_events import happened
from tests.support.sessions import connected
from tests.support.world import member, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def test_a_new_organization_leads_to_its_home_and_refuses_everything(visitor: Visitor) -> None:
    ada = person()
    answer = visitor(ada).post(reverse("orgs:new"), {"name": "  Harbour   Logistics "}, follow=True)
    entry = list_organizations(ada)[0]
    assert entry.org.name == "Harbour Logistics"
    assert answer.redirect_chain == [(reverse("platform:home", args=[entry.org.pk]), 302)]
    assert "Every topic is denied until a rule allows it" in answer.content.decode()


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "bad\u202ename"])
def test_a_bad_name_is_kept_and_explained(name: str, visitor: Visitor) -> None:
    ada = person()
    answer = visitor(ada).post(reverse("orgs:new"), {"name": name})
    assert answer.status_code == 422
    assert answer.context["form"]["name"].value() == name
    assert answer.context["form"].errors["name"]
    assert list_organizations(ada) == ()


def test_the_list_shows_own_organizations_and_names_the_next_step_when_there_is_none(
    acme: Access, owner: Client, visitor: Visitor
) -> None:
    assert acme.org_id in owner.get(reverse("orgs:list")).content.decode()
    empty = visitor(person()).get(reverse("orgs:list")).content.decode()
    assert acme.org_id not in empty
    assert "No organizations yet" in empty


def test_signing_in_leads_to_the_only_organization(acme: Access, owner: Client, visitor: Visitor) -> None:
    assert owner.get("/").headers["Location"] == reverse("platform:home", args=[acme.org_id])
    assert visitor(person()).get("/").headers["Location"] == reverse("orgs:list")
    operator = visitor(person(operator=True))
    assert operator.get("/").headers["Location"] == reverse("platform:operator-organizations")


def test_the_home_of_a_new_organization_names_the_next_step(acme: Access, owner: Client) -> None:
    page = owner.get(reverse("platform:home", args=[acme.org_id]))
    assert [step.state for step in page.context["steps"]] == ["next", "later", "later", "later", "later"]
    issue_credential(acme, username="sensor")
    assert [step.state for step in owner.get(reverse("platform:home", args=[acme.org_id])).context["steps"]][:2] == [
        "done",
        "next",
    ]


def test_steps_name_the_first_that_is_not_done() -> None:
    taken = steps(Progress(issued=True, connected=False, drafted=True, simulated=False, deployed=False))
    assert [step.state for step in taken] == ["done", "next", "done", "later", "later"]


def test_a_viewer_sees_the_home_without_steps_and_without_denials(acme: Access, visitor: Visitor) -> None:
    page = visitor(member(acme.org, Role.VIEWER)).get(reverse("platform:home", args=[acme.org_id])).content.decode()
    assert "Steps to the first allowed message" not in page
    assert "Recent denials" not in page
    assert reverse("audit:list", args=[acme.org_id]) not in page


def test_the_pulse_is_a_part_of_the_home_page(acme: Access, owner: Client) -> None:
    part = owner.get(reverse("platform:pulse", args=[acme.org_id])).content.decode()
    assert "<html" not in part
    assert 'id="pulse"' in part


def test_renaming_keeps_the_id_and_a_bad_name_is_kept(acme: Access, owner: Client) -> None:
    url = reverse("orgs:settings", args=[acme.org_id])
    assert owner.post(url, {"name": "Acme Two"}).status_code == 302
    assert "Acme Two" in owner.get(url).content.decode()
    refused = owner.post(url, {"name": ""})
    assert refused.status_code == 422
    assert "Enter a name for the organization." in refused.content.decode()


def test_what_happens_to_publishes_during_a_split_is_a_setting(acme: Access, owner: Client, visitor: Visitor) -> None:
    url = reverse("orgs:settings", args=[acme.org_id])
    assert owner.post(url, {"name": "Acme", "publish_while_split": "refuse"}).status_code == 302
    assert owner.get(url).context["form"]["publish_while_split"].value() == "refuse"
    assert owner.post(url, {"name": "Acme"}).status_code == 302
    viewer = visitor(member(acme.org, Role.VIEWER))
    assert "no publish is acknowledged" in viewer.get(url).content.decode()
    wrong = owner.post(url, {"name": "Acme", "publish_while_split": "maybe"})
    assert wrong.status_code == 422
    assert "Choose one of the two." in wrong.content.decode()


def test_settings_tell_how_to_connect_and_lead_to_the_members(acme: Access, owner: Client) -> None:
    page = owner.get(reverse("orgs:settings", args=[acme.org_id])).content.decode()
    assert f"USERNAME@{acme.org_id}" in page
    assert "mosquitto_sub" in page
    assert reverse("orgs:people", args=[acme.org_id]) in page


def test_clients_are_listed_searched_and_only_ours(acme: Access, owner: Client) -> None:
    connected(acme, "sensor")
    connected(acme, "press", ip="198.51.100.4")
    connected(acme, "foreign", org="org_aaaaaaaaaaaa")
    url = reverse("orgs:clients", args=[acme.org_id])
    everyone = owner.get(url).content.decode()
    assert "sensor-1" in everyone
    assert "press-1" in everyone
    assert "foreign" not in everyone
    found = owner.get(url, {"find": "198.51"}).content.decode()
    assert "press-1" in found
    assert "sensor-1" not in found
    part = owner.get(url, headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith('<div class="list" id="sessions"')


def test_closing_a_session_asks_first(acme: Access, owner: Client) -> None:
    session = connected(acme, "sensor")
    url = reverse("orgs:session-close", args=[acme.org_id, session.session])
    assert "can sign in again at once" in owner.get(url).content.decode()
    assert "/closing/" in owner.post(url).headers["Location"]
    assert owner.post(reverse("orgs:session-close", args=[acme.org_id, "gone"])).status_code == 404


def test_the_figure_of_refusals_leads_to_a_list_of_as_many(acme: Access, owner: Client) -> None:
    happened(acme)
    happened(acme, kind="auth_failed", topic="", action="", rule="", reason="expired")
    happened(acme, kind="connect", topic="", action="", rule="")
    page = owner.get(reverse("platform:home", args=[acme.org_id]))
    listed = owner.get(page.context["refusals_url"])
    assert page.context["denied_count"] == len(listed.context["lines"]) == 2
    assert [pill.value for pill in listed.context["pills"]] == ["All denials"]


def test_a_suspended_organization_is_not_told_to_connect_a_client(acme: Access, owner: Client) -> None:
    suspend_organization(person(operator=True), acme.org_id, reason="unpaid")
    page = owner.get(reverse("platform:home", args=[acme.org_id])).content.decode()
    assert "Reason: unpaid" in page
    assert "Steps to the first allowed message" not in page

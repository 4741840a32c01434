"""Pages: revoke everything, export, delete, keep after all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse

from orgs.access import Access, access_org, get_credential
from orgs.models import Organization
from orgs.permissions import Role
from orgs.services.credentials import issue_credential
from tests.web.test_organizations import connected
from tests.world import member

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def present(access: Access) -> Organization:
    """The organization as it is now."""
    assert access.user is not None
    return access_org(access.user, access.org_id).org


def test_deleting_shows_what_goes_and_wants_the_name(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor")
    connected(acme, "sensor")
    url = reverse("orgs:delete", args=[acme.org_id])
    counts = [line.count for line in owner.get(url).context["blast"]]
    assert counts == ["1", "1", "1", "1", "1", "all"]
    refused = owner.post(url, {"confirm": "Acne"})
    assert refused.status_code == 422
    assert refused.context["form"]["confirm"].value() == "Acne"
    assert present(acme).status == "active"
    page = owner.post(url, {"confirm": "Acme"}, follow=True).content.decode()
    assert present(acme).status == "deleting"
    assert "Keep the organization" in page
    assert "This organization is being deleted" in owner.get(reverse("orgs:home", args=[acme.org_id])).content.decode()
    assert owner.post(url, {"confirm": "Acme"}).status_code == 422


def test_it_can_be_kept_after_all(acme: Access, owner: Client) -> None:
    owner.post(reverse("orgs:delete", args=[acme.org_id]), {"confirm": "Acme"})
    owner.post(reverse("orgs:restore", args=[acme.org_id]))
    assert present(acme).status == "active"
    assert owner.post(reverse("orgs:restore", args=[acme.org_id])).status_code == 409


def test_revoking_everything_asks_first(acme: Access, owner: Client) -> None:
    issued = [issue_credential(acme, username=name, static=name == "plc") for name in ("plc", "sensor")]
    connected(acme, "sensor")
    url = reverse("orgs:revoke-all", args=[acme.org_id])
    assert [line.count for line in owner.get(url).context["blast"]] == ["1", "2", "1"]
    assert get_credential(acme, issued[0].token_id).state == "static"
    page = owner.post(url, follow=True).content.decode()
    assert "Revoked 2 credentials of 2 usernames" in page
    assert {get_credential(acme, one.token_id).state for one in issued} == {"revoked"}


def test_the_export_holds_the_data_and_no_secret(acme: Access, owner: Client) -> None:
    issued = issue_credential(acme, username="sensor", claims={"room": "lobby"})
    answer = owner.get(reverse("orgs:export", args=[acme.org_id]))
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{acme.org_id}.json"'
    assert answer.json()["users"][0]["claims"] == {"room": "lobby"}
    assert issued.password not in answer.content.decode()


def test_an_admin_reads_that_only_an_owner_deletes(acme: Access, visitor: Visitor) -> None:
    admin = visitor(member(acme.org, Role.ADMIN))
    page = admin.get(reverse("orgs:danger", args=[acme.org_id])).content.decode()
    assert "Only an owner can" in page
    assert reverse("orgs:delete", args=[acme.org_id]) not in page
    assert admin.post(reverse("orgs:delete", args=[acme.org_id]), {"confirm": "Acme"}).status_code == 403
    assert present(acme).status == "active"


def test_a_developer_is_not_led_there(acme: Access, visitor: Visitor) -> None:
    developer = visitor(member(acme.org, Role.DEVELOPER))
    url = reverse("orgs:danger", args=[acme.org_id])
    assert url not in developer.get(reverse("orgs:settings", args=[acme.org_id])).content.decode()
    assert developer.get(url).status_code == 403


def test_another_organization_is_out_of_reach(acme: Access, visitor: Visitor) -> None:
    from tests.world import organization

    stranger = visitor(organization("Other"))
    assert stranger.post(reverse("orgs:delete", args=[acme.org_id]), {"confirm": "Acme"}).status_code == 404
    assert present(acme).status == "active"

"""Pages: credentials."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.urls import reverse

from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential, revoke_credential
from orgs.credentials.reads import get_credential, list_credentials, list_identities
from orgs.permissions import Role
from tests.support.sessions import connected
from tests.support.world import member

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def form(**changes: str) -> dict[str, str]:
    """What the form sends when a person leaves it as it is."""
    return {"username": "", "ttl": "3600", "claims": "", "note": ""} | changes


def test_the_secret_is_shown_once_with_commands_that_work_as_they_stand(acme: Access, owner: Client) -> None:
    url = reverse("orgs:credential-new", args=[acme.org_id])
    answer = owner.post(url, form(username="sensor-1", claims="room = lobby, kitchen\r\nlevel = 2"))
    assert answer.status_code == 201
    assert "no-store" in answer.headers["Cache-Control"]
    page = answer.content.decode()
    secret = re.search(r"tkn_[0-9A-Za-z]+", page)
    assert secret
    assert f"-u sensor-1@{acme.org_id}" in page
    assert f"-P {secret.group()}" in page
    assert secret.group() not in owner.get(reverse("orgs:credentials", args=[acme.org_id])).content.decode()
    identity = list_identities(acme).rows[0].identity
    assert identity.claims == {"room": ["lobby", "kitchen"], "level": "2"}


def test_an_empty_form_makes_a_username(acme: Access, owner: Client) -> None:
    assert owner.post(reverse("orgs:credential-new", args=[acme.org_id]), form()).status_code == 201
    assert len(list_credentials(acme).rows) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", "Bad Name"), ("username", "x" * 64), ("ttl", "7"), ("claims", "no equals sign"),
     ("claims", "a = 1\na = 2"), ("claims", "-bad- = 1"), ("note", "x" * 201)],
)  # fmt: skip
def test_bad_input_is_kept_and_explained_at_its_field(field: str, value: str, acme: Access, owner: Client) -> None:
    sent = form(username="sensor", note="kept", claims="room = lobby") | {field: value}
    answer = owner.post(reverse("orgs:credential-new", args=[acme.org_id]), sent)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert {name: answer.context["form"][name].value() for name in sent} == sent
    assert list_credentials(acme).rows == ()


def test_a_static_credential_needs_a_name_and_nags(acme: Access, owner: Client) -> None:
    url = reverse("orgs:credential-new", args=[acme.org_id])
    refused = owner.post(url, form(static="on"))
    assert refused.status_code == 422
    assert "username" in refused.context["form"].errors
    assert refused.context["form"]["static"].value() is True
    assert b"is valid until somebody revokes it" in owner.post(url, form(static="on", username="plc")).content
    assert b"1 static credential" in owner.get(reverse("orgs:credentials", args=[acme.org_id])).content


def test_revoking_shows_what_it_closes_first(acme: Access, owner: Client) -> None:
    issued = issue_credential(acme, username="sensor")
    connected(acme, "sensor", token_id=issued.token_id)
    url = reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id])
    page = owner.get(url)
    assert [(line.count, line.text) for line in page.context["impact"]] == [
        ("1", "live session closed (from 192.0.2.7)")
    ]
    dialog = owner.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in dialog
    assert "Revoke this credential" in dialog
    assert get_credential(acme, issued.token_id).state == "active"
    assert owner.post(url).status_code == 302
    assert get_credential(acme, issued.token_id).state == "revoked"


def test_revoking_a_username_ends_all_of_its_secrets(acme: Access, owner: Client) -> None:
    first, second = issue_credential(acme, username="sensor"), issue_credential(acme, username="sensor")
    url = reverse("orgs:username-revoke", args=[acme.org_id, "sensor"])
    assert owner.get(url).context["impact"][0].count == "2"
    owner.post(url)
    assert {get_credential(acme, one.token_id).state for one in (first, second)} == {"revoked"}


def test_the_list_is_filtered_restated_and_paged(acme: Access, owner: Client) -> None:
    for number in range(55):
        issue_credential(acme, username=f"sensor-{number}")
    revoke_credential(acme, issue_credential(acme, username="old").token_id)
    url = reverse("orgs:credentials", args=[acme.org_id])
    first = owner.get(url, {"username": "sensor-", "state": "active"})
    assert [(pill.label, pill.value) for pill in first.context["pills"]] == [
        ("Status", "Active"),
        ("Username starts with", "sensor-"),
    ]
    assert first.context["pills"][0].without == f"{url}?username=sensor-"
    assert len(first.context["rows"]) == 50
    second = owner.get(first.context["older_url"])
    assert len(second.context["rows"]) == 5
    assert second.context["older_url"] == ""
    assert [row.credential.identity.username for row in owner.get(url, {"state": "revoked"}).context["rows"]] == ["old"]


def test_a_wrong_filter_is_explained_and_kept(acme: Access, owner: Client) -> None:
    url = reverse("orgs:credentials", args=[acme.org_id])
    assert owner.get(url, {"state": "purple"}).status_code == 422
    assert owner.get(url, {"cursor": "../../etc"}).status_code == 422


def test_empty_states_name_the_reason_and_the_next_step(acme: Access, owner: Client, visitor: Visitor) -> None:
    url = reverse("orgs:credentials", args=[acme.org_id])
    assert b"No credentials yet" in owner.get(url).content
    assert b"No credentials match these filters" in owner.get(url, {"username": "zzz"}).content
    viewer = visitor(member(acme.org, Role.VIEWER)).get(url).content.decode()
    assert "to issue one" in viewer
    assert reverse("orgs:credential-new", args=[acme.org_id]) not in viewer


def test_more_rows_cost_no_more_queries(acme: Access, owner: Client, django_assert_max_num_queries: Any) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    url = reverse("orgs:credentials", args=[acme.org_id])
    issue_credential(acme, username="first")
    owner.get(url)
    with CaptureQueriesContext(connection) as few:
        owner.get(url)
    for number in range(20):
        issue_credential(acme, username=f"sensor-{number}")
    with django_assert_max_num_queries(len(few)):
        owner.get(url)

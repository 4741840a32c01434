"""Pages: revoke everything, export, delete, keep after all."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse

from orgs.access.grants import Access, access_org
from orgs.api_keys.keys import create_api_key
from orgs.credentials.issuing import issue_credential, revoke_credential
from orgs.credentials.reads import get_credential
from orgs.models import Organization
from orgs.organizations import export
from orgs.organizations.deletion import delete_organization
from orgs.organizations.lifecycle import suspend_organization
from orgs.permissions import Role
from tests.support.sessions import connected
from tests.support.world import member, organization, person

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
    counts = [line.count for line in owner.get(url).context["impact"]]
    assert counts == ["1", "1", "1", "1", "1", "all"]
    refused = owner.post(url, {"confirm": "Acne"})
    assert refused.status_code == 422
    assert refused.context["form"]["confirm"].value() == "Acne"
    assert present(acme).status == "active"
    page = owner.post(url, {"confirm": "Acme"}, follow=True).content.decode()
    assert present(acme).status == "deleting"
    assert "Cancel the deletion" in page
    assert (
        "This organization is being deleted" in owner.get(reverse("platform:home", args=[acme.org_id])).content.decode()
    )
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
    assert [line.count for line in owner.get(url).context["impact"]] == ["1", "2", "1"]
    assert get_credential(acme, issued[0].token_id).state == "static"
    page = owner.post(url, follow=True).content.decode()
    assert "Revoked 2 credentials of 2 usernames" in page
    assert {get_credential(acme, one.token_id).state for one in issued} == {"revoked"}


def archive(client: Client, access: Access) -> dict[str, str]:
    """The files of the export by name."""
    answer = client.get(reverse("orgs:export", args=[access.org_id]))
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{access.org_id}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.getvalue())) as found:
        assert found.testzip() is None
        return {name: found.read(name).decode() for name in found.namelist()}


def test_the_export_holds_everything_and_no_secret(
    acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    issued = [issue_credential(acme, username=f"sensor-{number}", claims={"room": "lobby"}) for number in range(5)]
    revoke_credential(acme, issued[0].token_id)
    key = create_api_key(acme, kind="sk", name="billing")
    other = organization("Other")
    issue_credential(other, username="foreign")
    files = archive(owner, acme)
    assert set(files) == {"organization.json", "usernames.jsonl", "credentials.jsonl", "audit.jsonl"}
    document = json.loads(files["organization.json"])
    assert document["organization"]["name"] == "Acme"
    assert [row["role"] for row in document["members"]] == ["owner"]
    assert [row["number"] for row in document["versions"]] == [1]
    assert document["api_keys"][0]["key"] == str(key.key)
    lines = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items() if "jsonl" in name}
    assert [row["username"] for row in lines["usernames.jsonl"]] == [f"sensor-{number}" for number in range(5)]
    assert lines["usernames.jsonl"][0]["claims"] == {"room": "lobby"}
    assert [row["token_id"] for row in lines["credentials.jsonl"]] == [one.token_id for one in issued]
    assert [bool(row["revoked_at"]) for row in lines["credentials.jsonl"]] == [True, False, False, False, False]
    events = lines["audit.jsonl"]
    assert [row["ts"] for row in events] == sorted(row["ts"] for row in events)
    assert len({row["id"] for row in events}) == len(events) == 1 + 1 + 5 + 1 + 1 + 1
    assert {row["org_id"] for row in events} == {acme.org_id}
    assert events[-1]["kind"] == "org.exported"
    whole = "".join(files.values())
    assert "foreign" not in whole
    for secret in (key.secret, *(one.password for one in issued)):
        assert secret not in whole
    assert '"mac"' not in whole
    assert '"digest": "' not in files["credentials.jsonl"]


def test_a_developer_cannot_take_the_data_along(acme: Access, visitor: Visitor) -> None:
    url = reverse("orgs:export", args=[acme.org_id])
    for role in (Role.DEVELOPER, Role.AUDITOR, Role.VIEWER):
        assert visitor(member(acme.org, role)).get(url).status_code == 403
    assert visitor(organization("Other")).get(url).status_code == 404


def test_the_page_that_deletes_offers_the_export_first(acme: Access, owner: Client) -> None:
    page = owner.get(reverse("orgs:delete", args=[acme.org_id])).content.decode()
    assert reverse("orgs:export", args=[acme.org_id]) in page
    owner.post(reverse("orgs:delete", args=[acme.org_id]), {"confirm": "Acme"})
    assert "org.deleted" in archive(owner, acme)["audit.jsonl"]  # also during the grace period


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
    stranger = visitor(organization("Other"))
    assert stranger.post(reverse("orgs:delete", args=[acme.org_id]), {"confirm": "Acme"}).status_code == 404
    assert present(acme).status == "active"


def test_keeping_a_suspended_organization_does_not_promise_what_it_does_not_do(acme: Access, owner: Client) -> None:
    delete_organization(acme, confirm=acme.org.name)
    suspend_organization(person(operator=True), acme.org_id)
    page = owner.post(reverse("orgs:restore", args=[acme.org_id]), follow=True).content.decode()
    assert "It is still suspended" in page
    assert "can connect again" not in page


def test_deleting_says_that_backups_keep_a_copy(acme: Access, owner: Client) -> None:
    for page in ("orgs:danger", "orgs:delete"):
        assert "ackups" in owner.get(reverse(page, args=[acme.org_id])).content.decode()

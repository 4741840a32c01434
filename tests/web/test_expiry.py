"""Pages: what ends soon, and the claims of a username."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse

from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.credentials.forms.expiry import changed_claims, claims_text
from orgs.credentials.identities import get_identity, merge_claims
from orgs.credentials.issuing import Issued, issue_credential, refresh_credential, revoke_credential
from orgs.models import Credential
from orgs.permissions import Role
from tests.support.world import member, organization

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def shown(client: Client, access: Access, within: str = "") -> list[tuple[str, bool, bool]]:
    """Username, covered and refreshed of every line."""
    page = client.get(reverse("orgs:expiry", args=[access.org_id]), {"within": within} if within else {})
    return [(row.credential.identity.username, row.covered, row.refreshed) for row in page.context["rows"]]


def moved(access: Access, issued: Issued, **ahead: int) -> None:
    """Let a secret end later than any that can be issued."""
    assert issued.expires_at is not None
    with org_scope(access.org_id):
        Credential.objects.filter(token_id=issued.token_id).update(expires_at=issued.expires_at + timedelta(**ahead))


def test_windows_hold_what_ends_in_them_the_next_to_end_first(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="hours", ttl=7200)
    issue_credential(acme, username="minutes", ttl=600)
    moved(acme, issue_credential(acme, username="days", ttl=600), days=3)
    issue_credential(acme, username="plc", static=True)
    revoke_credential(acme, issue_credential(acme, username="gone", ttl=600).token_id)
    assert [name for name, _, _ in shown(owner, acme, "hour")] == ["minutes"]
    assert [name for name, _, _ in shown(owner, acme)] == ["minutes", "hours"]
    assert [name for name, _, _ in shown(owner, acme, "week")] == ["minutes", "hours", "days"]
    page = owner.get(reverse("orgs:expiry", args=[acme.org_id]))
    assert [count for _, count, _, _ in page.context["windows"]] == [1, 2, 3]


def test_a_line_says_whether_the_client_is_cut_off(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="once", ttl=600)
    refresh_credential(acme, issue_credential(acme, username="fresh", ttl=600).token_id)
    issue_credential(acme, username="two", ttl=600)
    issue_credential(acme, username="two", ttl=80_000)
    lines = shown(owner, acme, "hour")
    assert ("once", False, False) in lines
    assert {refreshed for name, _, refreshed in lines if name == "fresh"} == {True}
    assert ("two", True, False) in lines
    page = owner.get(reverse("orgs:expiry", args=[acme.org_id]), {"within": "hour"}).content.decode()
    for word in ("Disconnected", "Refresh expected", "Stays connected"):
        assert word in page


def test_the_list_is_paged_and_a_made_up_cursor_is_refused(acme: Access, owner: Client) -> None:
    for number in range(53):
        issue_credential(acme, username=f"sensor-{number:02}", ttl=600 + number)
    url = reverse("orgs:expiry", args=[acme.org_id])
    first = owner.get(url)
    rest = owner.get(first.context["later_url"])
    names = [row.credential.identity.username for page in (first, rest) for row in page.context["rows"]]
    assert names == [f"sensor-{number:02}" for number in range(53)]
    assert owner.get(url, {"cursor": "nonsense"}).status_code == 422
    assert owner.get(url, {"within": "year"}).status_code == 422


def test_nothing_of_another_organization_is_shown(acme: Access, owner: Client) -> None:
    other = organization("Other")
    issue_credential(other, username="theirs", ttl=600)
    assert shown(owner, acme, "week") == []
    assert owner.get(reverse("orgs:username", args=[acme.org_id, "theirs"])).status_code == 404
    sent = {"claims": "room = hall"}
    assert owner.post(reverse("orgs:username", args=[acme.org_id, "theirs"]), sent).status_code == 404
    assert get_identity(other, "theirs").claims == {}


def test_claims_are_set_changed_and_taken_away(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor", claims={"room": "lobby", "old": "x"})
    merge_claims(acme, "sensor", {"level": 3, "admin": True})
    url = reverse("orgs:username", args=[acme.org_id, "sensor"])
    assert owner.get(url).context["form"]["claims"].value() == "admin = true\nlevel = 3\nold = x\nroom = lobby"
    sent = "admin = true\nlevel = 3\nroom = lobby, kitchen\nnew = y"
    page = owner.post(url, {"claims": sent}, follow=True).content.decode()
    assert "3 claims changed" in page
    assert get_identity(acme, "sensor").claims == {
        "admin": True, "level": 3, "room": ["lobby", "kitchen"], "new": "y",
    }  # fmt: skip


@pytest.mark.parametrize("sent", ["no equals", "a = 1\na = 2", "-bad- = 1", "room = " + "x" * 1025])
def test_bad_claims_are_kept_and_change_nothing(sent: str, acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor", claims={"room": "lobby"})
    answer = owner.post(reverse("orgs:username", args=[acme.org_id, "sensor"]), {"claims": sent})
    assert answer.status_code == 422
    assert answer.context["form"]["claims"].value() == sent
    assert get_identity(acme, "sensor").claims == {"room": "lobby"}


@pytest.mark.parametrize("value", ["a, b", True, False, 3, 2.5, ["x", "y"], ["x"], "plain", ""])
def test_a_claim_left_as_it_was_stays_what_it_was(value: object) -> None:
    from cloudsignal.web.forms import read_claims

    before = {"claim": value}
    assert changed_claims(before, read_claims(claims_text(before))) == ({}, [])  # type: ignore[arg-type]


def test_a_viewer_reads_claims_and_cannot_change_them(acme: Access, visitor: Visitor) -> None:
    issue_credential(acme, username="sensor", claims={"room": "lobby"})
    viewer = visitor(member(acme.org, Role.VIEWER))
    url = reverse("orgs:username", args=[acme.org_id, "sensor"])
    page = viewer.get(url).content.decode()
    assert "lobby" in page
    for word in ("Save claims", "Issue credential", "Revoke username"):
        assert word not in page
    assert viewer.post(url, {"claims": ""}).status_code == 403
    assert get_identity(acme, "sensor").claims == {"room": "lobby"}
    assert "Issue credential" not in viewer.get(reverse("orgs:expiry", args=[acme.org_id])).content.decode()


def test_a_claim_takes_the_place_of_another_where_no_further_one_fits(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor", claims={f"c{number}": "x" for number in range(50)})
    url = reverse("orgs:username", args=[acme.org_id, "sensor"])
    sent = "\n".join([*(f"c{number} = x" for number in range(49)), "other = y"])
    assert owner.post(url, {"claims": sent}).status_code == 302
    assert "other" in get_identity(acme, "sensor").claims
    assert "c49" not in get_identity(acme, "sensor").claims

"""Page: what a revocation closes, and the time it took from the click."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.core import signing
from django.test import Client
from django.urls import reverse

from audit.kinds import SESSION_CLOSED
from audit.models import Event
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access
from orgs.api_keys.keys import create_api_key
from orgs.credentials.issuing import issue_credential
from orgs.permissions import Role
from orgs.sessions.web import progress
from tests.support.sessions import connected
from tests.support.world import member, organization

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def closed(access: Access, username: str, after: float, clicked_at: datetime, reason: str = "revoked") -> None:
    """An edge says that it has closed a session."""
    with org_scope(access.org_id):
        Event.objects.create(
            ts=clicked_at + timedelta(seconds=after), org_id=access.org_id, kind=SESSION_CLOSED, reason=reason,
            username=username, client_id=f"{username}-1", node="edge-1",
        )  # fmt: skip


def click(client: Client, url: str) -> tuple[str, datetime]:
    """Click on it; returns the page that follows and the time of the click as it is kept there."""
    where = client.post(url).headers["Location"]
    asked = signing.loads(where.rstrip("/").rpartition("/")[2], salt=progress.SALT)
    return where, datetime.fromtimestamp(asked["at"], UTC)


def test_the_time_from_the_click_to_the_last_closed_session_is_shown(acme: Access, owner: Client) -> None:
    issued = issue_credential(acme, username="sensor")
    connected(acme, "sensor", token_id=issued.token_id)
    where, at = click(owner, reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id]))
    waiting = owner.get(where).content.decode()
    assert "0 of 1 session closed" in waiting
    assert 'hx-trigger="every 400ms"' in waiting
    assert '<noscript><meta http-equiv="refresh"' in waiting
    closed(acme, "other", 0.02, at)  # somebody else's
    closed(acme, "sensor", 0.01, at, reason="kicked")
    closed(acme, "sensor", 0.087, at)
    done = owner.get(where, headers={"HX-Request": "true"}).content.decode()
    assert "1 session closed" in done
    assert "<strong>87 ms</strong>" in done
    assert "hx-trigger" not in done
    assert "<html" not in done


def test_the_slowest_of_many_counts(acme: Access, owner: Client) -> None:
    for name in ("a", "b", "c"):
        connected(acme, name, token_id=issue_credential(acme, username=name).token_id)
    where, at = click(owner, reverse("orgs:revoke-all", args=[acme.org_id]))
    for name, after in (("a", 0.1), ("b", 0.4), ("c", 0.2)):
        closed(acme, name, after, at)
    page = owner.get(where).content.decode()
    assert "3 sessions closed" in page
    assert "<strong>400 ms</strong>" in page
    assert page.index(">b<") < page.index(">c<") < page.index(">a<")


def test_sessions_that_nobody_closes_are_not_waited_for_for_ever(
    acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = issue_credential(acme, username="sensor")
    connected(acme, "sensor", token_id=issued.token_id)
    where, _ = click(owner, reverse("orgs:username-revoke", args=[acme.org_id, "sensor"]))
    monkeypatch.setattr(progress, "FOLLOWED", 0.0)
    page = owner.get(where).content.decode()
    assert "0 of 1 session closed" in page
    assert "had already disconnected" in page
    assert 'hx-trigger="every' not in page


def test_without_a_live_session_there_is_nothing_to_follow(acme: Access, owner: Client) -> None:
    issued = issue_credential(acme, username="sensor")
    url = reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id])
    assert "No session of it was live" in owner.post(url, follow=True).content.decode()


def test_revoking_a_key_shows_what_it_has_issued_and_whom_that_closes(acme: Access, owner: Client) -> None:
    made = create_api_key(acme, kind="sk", name="billing")
    theirs = use_api_key(made.secret, ip="192.0.2.7").access
    connected(acme, "sensor", token_id=issue_credential(theirs, username="sensor").token_id)
    issue_credential(theirs, username="idle")
    connected(acme, "mine", token_id=issue_credential(acme, username="mine").token_id)
    url = reverse("orgs:key-revoke", args=[acme.org_id, made.key.pk])
    assert [line.count for line in owner.get(url).context["impact"]][2:] == ["2", "1"]
    assert "/closing/" in owner.post(url, {"credentials": "on"}).headers["Location"]


def test_the_page_is_of_its_organization_alone_and_cannot_be_made_up(
    acme: Access, owner: Client, visitor: Visitor
) -> None:
    issued = issue_credential(acme, username="sensor")
    connected(acme, "sensor", token_id=issued.token_id)
    where, at = click(owner, reverse("orgs:credential-revoke", args=[acme.org_id, issued.token_id]))
    closed(acme, "sensor", 0.1, at)
    other = organization("Other")
    token = where.rstrip("/").rpartition("/")[2]
    assert visitor(other).get(where).status_code == 404
    assert visitor(other).get(reverse("orgs:closing", args=[other.org_id, token])).status_code == 404
    assert owner.get(where.replace(token, token[:-1] + ("A" if token[-1] != "A" else "B"))).status_code == 404
    assert visitor(member(acme.org, Role.VIEWER)).get(where).status_code == 200

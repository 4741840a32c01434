"""Pages: API keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audit.access import AuditQuery, search
from cloudsignal.errors import Forbidden, Unauthenticated
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access
from orgs.api_keys.keys import create_api_key
from orgs.api_keys.reads import get_api_key, list_api_keys
from orgs.credentials.issuing import issue_credential
from orgs.credentials.reads import get_credential
from orgs.people.invitations import invite
from orgs.permissions import Permission, Role
from orgs.providers.providers import Wanted, add_provider
from tests.support.world import member, organization

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


def form(**changes: object) -> dict[str, object]:
    """What the form sends for a restricted key."""
    sent: dict[str, object] = {
        "name": "billing", "kind": "rk", "scopes": ["credentials.manage"], "expires_on": "", "ip_allow": "",
    }  # fmt: skip
    return sent | changes


def secret_in(page: str) -> str:
    """The key that a page shows."""
    found = re.search(r"\b[srp]k_[0-9A-Za-z]{27}\b", page)
    assert found
    return found.group()


def test_a_key_is_shown_once_and_does_what_was_chosen(acme: Access, owner: Client) -> None:
    url = reverse("orgs:key-new", args=[acme.org_id])
    answer = owner.post(url, form(ip_allow="192.0.2.7\n198.51.100.0/24", expires_on="2100-01-31"))
    assert answer.status_code == 201
    assert "no-store" in answer.headers["Cache-Control"]
    secret = secret_in(answer.content.decode())
    assert use_api_key(secret, ip="192.0.2.7").access.permissions == {Permission.CREDENTIALS_MANAGE}
    with pytest.raises(Forbidden):
        use_api_key(secret, ip="192.0.2.8")
    key = list_api_keys(acme)[0]
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == "2100-01-31T23:59:59+00:00"
    page = owner.get(reverse("orgs:keys", args=[acme.org_id])).content.decode()
    assert secret not in page
    assert f"rk_...{secret[-4:]}" in page


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "x" * 81), ("kind", "xk"), ("scopes", []), ("scopes", ["org.delete"]),
     ("ip_allow", "everywhere"), ("expires_on", "2001-01-01")],
)  # fmt: skip
def test_bad_input_is_kept_and_explained_at_its_field(field: str, value: object, acme: Access, owner: Client) -> None:
    sent = form(ip_allow="192.0.2.7") | {field: value}
    answer = owner.post(reverse("orgs:key-new", args=[acme.org_id]), sent)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert {name: answer.context["form"][name].value() for name in sent} == sent
    assert list_api_keys(acme) == ()


def test_scopes_are_for_restricted_keys_only(acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:key-new", args=[acme.org_id]), form(kind="sk"))
    assert list(answer.context["form"].errors) == ["scopes"]


def test_rotating_shows_a_successor_and_keeps_the_old_one_for_a_while(acme: Access, owner: Client) -> None:
    old = create_api_key(acme, kind="rk", name="billing", scopes=["org.read"])
    url = reverse("orgs:key-rotate", args=[acme.org_id, old.key.pk])
    assert "requests so far" in owner.get(url).content.decode()
    assert owner.post(url, {"overlap": "5"}).status_code == 422
    assert len(list_api_keys(acme)) == 1
    fresh = secret_in(owner.post(url, {"overlap": "3600"}).content.decode())
    assert use_api_key(fresh, ip="192.0.2.7").access.permissions == {Permission.ORG_READ}
    use_api_key(old.secret, ip="192.0.2.7")
    ends = get_api_key(acme, old.key.pk).expires_at
    assert ends is not None
    assert 3500 < (ends - timezone.now()).total_seconds() <= 3600
    assert owner.get(url).status_code == 409
    assert url not in owner.get(reverse("orgs:keys", args=[acme.org_id])).content.decode()
    [event] = search(acme, AuditQuery(kind="api_key.rotated")).events
    assert event.before == {"key": str(old.key), "id": old.key.pk, "expires_at": None}
    assert (event.after or {})["former_expires_at"] == ends.isoformat()


def test_revoking_names_first_all_that_ends_with_the_key(acme: Access, owner: Client) -> None:
    made = create_api_key(acme, kind="sk", name="billing")
    with_it = use_api_key(made.secret, ip="192.0.2.7").access
    issued = issue_credential(with_it, username="sensor")
    kept = issue_credential(acme, username="other")
    child = create_api_key(with_it, kind="sk", name="child")
    add_provider(with_it, Wanted("shop", "oidc", "https://issuer.example.com", "a", secret="s" * 40))
    invite(with_it, email="friend@example.com", role="viewer")
    url = reverse("orgs:key-revoke", args=[acme.org_id, made.key.pk])
    asked = owner.get(url).content.decode()
    for words in (
        f"key it has created: {child.key}", "identity provider disabled: shop",
        "invitation revoked: friend@example.com", "live credential revoked", "live sessions closed", "rotate it",
    ):  # fmt: skip
        assert words in asked
    use_api_key(made.secret, ip="192.0.2.7")
    page = owner.post(url, follow=True).content.decode()
    assert "With it ended: 1 key, 1 identity provider, 1 invitation, 1 credential." in page
    for key in (made, child):
        with pytest.raises(Unauthenticated):
            use_api_key(key.secret, ip="192.0.2.7")
    assert get_credential(acme, issued.token_id).state == "revoked"
    assert get_credential(acme, kept.token_id).state == "active"
    again = owner.get(reverse("orgs:key-rotate", args=[acme.org_id, made.key.pk]))
    assert again.status_code == 409


def test_keys_of_another_organization_lead_nowhere(acme: Access, owner: Client) -> None:
    foreign = create_api_key(organization("Other"), kind="sk", name="theirs")
    for name in ("orgs:key-rotate", "orgs:key-revoke"):
        url = reverse(name, args=[acme.org_id, foreign.key.pk])
        assert owner.get(url).status_code == 404
        assert owner.post(url, {"overlap": "0"}).status_code == 404
    use_api_key(foreign.secret, ip="192.0.2.7")


def test_a_developer_reads_the_list_and_is_offered_nothing_to_change(acme: Access, visitor: Visitor) -> None:
    made = create_api_key(acme, kind="rk", name="billing", scopes=["org.read"])
    developer = visitor(member(acme.org, Role.DEVELOPER))
    page = developer.get(reverse("orgs:keys", args=[acme.org_id])).content.decode()
    assert str(made.key) in page
    for word in ("Create a key", ">Rotate<", ">Revoke<"):
        assert word not in page
    assert developer.post(reverse("orgs:key-new", args=[acme.org_id]), form()).status_code == 403
    assert developer.post(reverse("orgs:key-revoke", args=[acme.org_id, made.key.pk])).status_code == 403
    assert len(list_api_keys(acme)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_leaked_key_ends_first_whatever_becomes_of_what_it_has_issued(acme: Access, visitor: Visitor) -> None:
    made = create_api_key(acme, kind="sk", name="billing")
    issue_credential(use_api_key(made.secret, ip="192.0.2.7").access, username="sensor")
    owner = visitor(acme)
    owner.raise_request_exception = False

    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('UPDATE "orgs_credential"'):
            raise OperationalError("away")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(away):
        answer = owner.post(reverse("orgs:key-revoke", args=[acme.org_id, made.key.pk]))
    assert answer.status_code == 503
    with pytest.raises(Unauthenticated):
        use_api_key(made.secret, ip="192.0.2.7")

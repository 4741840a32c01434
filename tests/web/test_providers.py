"""Pages: identity providers and allowed origins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
import pytest
from django.test import Client
from django.urls import reverse

from orgs.access.grants import Access, access_org
from orgs.credentials.reads import list_identities
from orgs.models import IdentityProvider
from orgs.permissions import Role
from orgs.providers.providers import Wanted, add_provider, get_provider, list_providers
from tests.support.world import member, organization

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db

SECRET = "0123456789abcdef0123456789abcdef-shared"
ISSUER = "https://id.example.com"


def form(**changes: object) -> dict[str, object]:
    """What the form sends for a provider with a shared secret."""
    sent: dict[str, object] = {
        "name": "login", "issuer": ISSUER, "audience": "mqtt", "jwks_url": "", "secret": SECRET, "enabled": "on",
    }  # fmt: skip
    return sent | changes


def added(access: Access, name: str = "login") -> IdentityProvider:
    """A provider with a shared secret."""
    return add_provider(access, Wanted(name, "oidc", ISSUER, "mqtt", secret=SECRET))


def token(secret: str = SECRET, **changes: object) -> str:
    """A token, honest but for the changes."""
    claims: dict[str, object] = {
        "iss": ISSUER, "aud": "mqtt", "sub": "u-1", "email": "grace@example.com", "exp": int(time.time()) + 600,
    }  # fmt: skip
    return jwt.encode(claims | changes, secret, algorithm="HS256")


def test_adding_leads_to_trying_a_token_and_the_secret_is_never_shown(acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:provider-new", args=[acme.org_id, "oidc"]), form())
    made = list_providers(acme)[0]
    assert answer.headers["Location"] == reverse("orgs:provider-try", args=[acme.org_id, made.pk])
    assert (made.name, made.kind, made.algorithms) == ("login", "oidc", ["HS256"])
    for name in ("orgs:provider", "orgs:provider-try"):
        assert SECRET not in owner.get(reverse(name, args=[acme.org_id, made.pk])).content.decode()
    assert SECRET not in owner.get(reverse("orgs:providers", args=[acme.org_id])).content.decode()


@pytest.mark.parametrize("kind", IdentityProvider.Kind.values)
def test_every_kind_is_offered_with_examples_of_its_own(kind: str, acme: Access, owner: Client) -> None:
    url = reverse("orgs:provider-new", args=[acme.org_id, kind])
    assert url in owner.get(reverse("orgs:provider-choose", args=[acme.org_id])).content.decode()
    page = owner.get(url)
    assert page.context["form"]["name"].value() == kind
    assert owner.post(url, form(secret="")).status_code == 302
    assert list_providers(acme)[0].kind == kind


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "Bad Name"), ("name", "email"), ("issuer", ""), ("issuer", "http://id.example.com"),
     ("audience", ""), ("jwks_url", "https://id.example.com/keys"), ("secret", "short"), ("algorithms", ["RS256"])],
)  # fmt: skip
def test_bad_input_is_kept_and_explained(field: str, value: object, acme: Access, owner: Client) -> None:
    sent = form() | {field: value}
    answer = owner.post(reverse("orgs:provider-new", args=[acme.org_id, "oidc"]), sent)
    assert answer.status_code == 422
    named = "secret" if field == "jwks_url" else field
    assert list(answer.context["form"].errors) == [named]
    for name in ("name", "issuer", "audience", "jwks_url", "secret"):
        assert answer.context["form"][name].value() == sent[name]
    assert list_providers(acme) == ()


def test_changing_keeps_the_secret_and_the_name(acme: Access, owner: Client) -> None:
    made = added(acme)
    url = reverse("orgs:provider", args=[acme.org_id, made.pk])
    sent = form(audience="other", secret="", algorithms=["HS512"])
    del sent["enabled"]
    assert owner.post(url, sent).status_code == 302
    after = get_provider(acme, made.pk)
    assert (after.audience, after.algorithms, after.enabled) == ("other", ["HS512"], False)
    assert after.secret is not None
    assert bytes(after.secret) == bytes(made.secret or b"")
    refused = owner.post(url, form(name="renamed", secret=""))
    assert list(refused.context["form"].errors) == ["name"]


def test_an_honest_token_is_accepted_and_nothing_is_issued(acme: Access, owner: Client) -> None:
    url = reverse("orgs:provider-try", args=[acme.org_id, added(acme).pk])
    page = owner.post(url, {"token": token()})
    assert page.context["verdict"].subject.email == "grace@example.com"
    assert "Accepted" in page.content.decode()
    assert list_identities(acme).rows == ()


@pytest.mark.parametrize(
    ("bad", "check"),
    [({"exp": 1}, "Expiry"), ({"aud": "other"}, "Audience"), ({"iss": "https://evil.example"}, "Issuer"),
     ({"email": 7}, "E-mail"), ({"nbf": 99_999_999_999}, "Start"), ({"secret": "x" * 40}, "Signature")],
)  # fmt: skip
def test_a_refused_token_is_told_exactly_why(bad: dict[str, object], check: str, acme: Access, owner: Client) -> None:
    sent = token(**bad)  # type: ignore[arg-type]
    page = owner.post(reverse("orgs:provider-try", args=[acme.org_id, added(acme).pk]), {"token": sent})
    assert [name for name, one in page.context["checks"] if not one.passed] == [check]
    text = page.content.decode()
    assert "Refused" in text
    assert "Signature has expired" not in text
    assert page.context["form"]["token"].value() == sent


def test_something_that_is_no_token_is_told_so(acme: Access, owner: Client) -> None:
    url = reverse("orgs:provider-try", args=[acme.org_id, added(acme).pk])
    assert "not a signed JSON Web Token" in owner.post(url, {"token": "hello"}).content.decode()
    assert owner.post(url, {"token": ""}).status_code == 422


def test_removing_asks_first(acme: Access, owner: Client) -> None:
    made = added(acme)
    url = reverse("orgs:provider-remove", args=[acme.org_id, made.pk])
    assert [line.count for line in owner.get(url).context["impact"]] == ["1", "0"]
    assert len(list_providers(acme)) == 1
    owner.post(url)
    assert list_providers(acme) == ()


def test_origins_are_saved_and_a_bad_one_is_kept(acme: Access, owner: Client) -> None:
    assert acme.user is not None
    url = reverse("orgs:providers", args=[acme.org_id])
    owner.post(url, {"allowed_origins": "https://app.example.com\nhttp://localhost:3000"})
    present = access_org(acme.user, acme.org_id).org.allowed_origins
    assert present == ["http://localhost:3000", "https://app.example.com"]
    refused = owner.post(url, {"allowed_origins": "https://app.example.com/path"})
    assert refused.status_code == 422
    assert refused.context["form"]["allowed_origins"].value() == "https://app.example.com/path"
    assert access_org(acme.user, acme.org_id).org.allowed_origins == present


def test_providers_of_another_organization_lead_nowhere(acme: Access, owner: Client) -> None:
    other = organization("Other")
    theirs = added(other).pk
    for name in ("orgs:provider", "orgs:provider-remove", "orgs:provider-try"):
        url = reverse(name, args=[acme.org_id, theirs])
        assert owner.get(url).status_code == 404
        assert owner.post(url, form() | {"token": token()}).status_code == 404
    assert get_provider(other, theirs).audience == "mqtt"


def test_a_developer_reads_the_list_and_is_offered_nothing_to_change(acme: Access, visitor: Visitor) -> None:
    made = added(acme)
    developer = visitor(member(acme.org, Role.DEVELOPER))
    url = reverse("orgs:providers", args=[acme.org_id])
    page = developer.get(url).content.decode()
    assert ISSUER in page
    for word in ("Add a provider", "Test a token", ">Change<", ">Remove<", "Save origins"):
        assert word not in page
    assert developer.post(url, {"allowed_origins": ""}).status_code == 403
    assert developer.post(reverse("orgs:provider-remove", args=[acme.org_id, made.pk])).status_code == 403
    assert len(list_providers(acme)) == 1

"""Pages: the single sign-on of an organization, and the operators who approve its domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from audit.models import Event
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.models import SignOnAccount, SingleSignOn
from orgs.permissions import Role
from orgs.sso import saml
from orgs.sso.connections import SIGN_ONS_MAX, WantedSignOn, add_sign_on, get_sign_on, list_sign_ons
from orgs.sso.protocol import secret_of
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db

SECRET = "marker-client-secret-of-a-sign-on"


def form(**changes: object) -> dict[str, object]:
    """What the form sends for an OpenID provider."""
    sent: dict[str, object] = {
        "name": "Acme staff", "issuer": "https://id.example.com", "client_id": "dashboard", "secret": SECRET,
        "domains": "acme.example", "role": "viewer", "enabled": "on",
    }  # fmt: skip
    return sent | changes


def added(access: Access, **changes: object) -> SingleSignOn:
    """A single sign-on with a secret."""
    wanted: dict[str, object] = {
        "name": "Acme staff", "issuer": "https://id.example.com", "client_id": "dashboard", "secret": SECRET,
        "domains": ["acme.example"], **changes,
    }  # fmt: skip
    return add_sign_on(access, "oidc", WantedSignOn(**wanted))  # type: ignore[arg-type]


def test_adding_shows_the_address_to_enter_and_never_the_secret(acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:sign-on-new", args=[acme.org_id, "oidc"]), form())
    [made] = list_sign_ons(acme)
    page = reverse("orgs:sign-on", args=[acme.org_id, made.pk])
    assert answer.headers["Location"] == page
    text = owner.get(page).content.decode()
    assert f"/accounts/sso/{acme.org_id}/{made.pk}/callback/" in text
    assert secret_of(made) == SECRET
    assert made.algorithms == ["ES256", "RS256"]
    for shown in (text, owner.get(reverse("orgs:sign-ons", args=[acme.org_id])).content.decode()):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "x" * 64), ("issuer", ""), ("issuer", "http://id.example.com"), ("issuer", "javascript:x"),
     ("client_id", ""), ("domains", "not a domain"), ("domains", "localhost"), ("domains", "-x.example"),
     ("domains", "a.example " * 1 + " ".join(f"d{n}.example" for n in range(21))), ("role", "owner"),
     ("algorithms", ["HS256"]), ("algorithms", ["none"])],
)  # fmt: skip
def test_bad_input_is_kept_and_explained(field: str, value: object, acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:sign-on-new", args=[acme.org_id, "oidc"]), form(**{field: value}))
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert answer.context["form"]["issuer"].value() == form(**{field: value})["issuer"]
    assert list_sign_ons(acme) == ()


def test_a_name_is_taken_once_and_there_are_not_too_many(acme: Access, owner: Client) -> None:
    url = reverse("orgs:sign-on-new", args=[acme.org_id, "oidc"])
    for number in range(SIGN_ONS_MAX):
        added(acme, name=f"Staff {number}")
    assert owner.post(url, form(name="One more")).status_code == 422
    with org_scope(acme.org_id):
        SingleSignOn.objects.filter(name="Staff 0").delete()
    assert list(owner.post(url, form(name="Staff 1")).context["form"].errors) == ["name"]


def test_a_change_keeps_the_secret_but_not_for_another_issuer(acme: Access, owner: Client) -> None:
    made = added(acme)
    page = reverse("orgs:sign-on", args=[acme.org_id, made.pk])
    assert owner.post(page, form(secret="", name="Renamed")).status_code == 302
    assert (get_sign_on(acme, made.pk).name, secret_of(get_sign_on(acme, made.pk))) == ("Renamed", SECRET)
    refused = owner.post(page, form(secret="", issuer="https://evil.example"))
    assert list(refused.context["form"].errors) == ["secret"]
    assert owner.post(page, form(secret="", drop_secret="on")).status_code == 302
    assert secret_of(get_sign_on(acme, made.pk)) == ""


def test_people_known_to_one_issuer_are_not_known_to_the_next(acme: Access, owner: Client) -> None:
    made = added(acme)
    with org_scope(acme.org_id):
        SignOnAccount.objects.create(org=acme.org, sign_on=made, user=person(), subject="s-1")
    page = reverse("orgs:sign-on", args=[acme.org_id, made.pk])
    owner.post(page, form(secret="", name="Renamed"))
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.count() == 1
    owner.post(page, form(issuer="https://other.example"))
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.count() == 0


def test_every_change_is_in_the_audit_without_the_secret(acme: Access, owner: Client) -> None:
    owner.post(reverse("orgs:sign-on-new", args=[acme.org_id, "oidc"]), form())
    [made] = list_sign_ons(acme)
    owner.post(reverse("orgs:sign-on", args=[acme.org_id, made.pk]), form(role="admin"))
    owner.post(reverse("orgs:sign-on-remove", args=[acme.org_id, made.pk]))
    with org_scope(acme.org_id):
        found = list(Event.objects.filter(kind="sign_on.changed").order_by("ts"))
    assert [(bool(one.before), bool(one.after)) for one in found] == [(False, True), (True, True), (True, False)]
    assert ((found[1].before or {})["role"], (found[1].after or {})["role"]) == ("viewer", "admin")
    assert SECRET not in str([(one.before, one.after) for one in found])
    page = owner.get(reverse("audit:list", args=[acme.org_id])).content.decode()
    assert "Single sign-on changed" in page


def test_removing_says_first_whom_it_concerns(acme: Access, owner: Client) -> None:
    made = added(acme)
    with org_scope(acme.org_id):
        SignOnAccount.objects.create(org=acme.org, sign_on=made, user=person(), subject="s-1")
    url = reverse("orgs:sign-on-remove", args=[acme.org_id, made.pk])
    assert [line.count for line in owner.get(url).context["impact"]] == ["1", "1"]
    assert len(list_sign_ons(acme)) == 1
    owner.post(url)
    assert list_sign_ons(acme) == ()


def test_the_sign_on_of_another_organization_leads_nowhere(acme: Access, owner: Client) -> None:
    other = organization("Other")
    theirs = added(other).pk
    for name in ("orgs:sign-on", "orgs:sign-on-remove"):
        url = reverse(name, args=[acme.org_id, theirs])
        assert owner.get(url).status_code == 404
        assert owner.post(url, form()).status_code == 404
    for name in ("start", "callback", "arrive", "metadata"):
        assert owner.get(reverse(f"orgs:sign-on-{name}", args=[acme.org_id, theirs])).status_code == 404
    assert owner.post(reverse("orgs:sign-on-consume", args=[acme.org_id, theirs])).status_code == 404
    assert get_sign_on(other, theirs).name == "Acme staff"


def test_an_account_cannot_belong_to_a_sign_on_of_another_organization(acme: Access) -> None:
    theirs = added(organization("Other"))
    with platform_scope(), pytest.raises(IntegrityError), transaction.atomic():
        SignOnAccount.objects.create(org=acme.org, sign_on=theirs, user=person(), subject="s-1")


def test_a_developer_reads_the_list_and_is_offered_nothing_to_change(acme: Access, visitor: Visitor) -> None:
    added(acme)
    page = visitor(member(acme.org, Role.DEVELOPER)).get(reverse("orgs:sign-ons", args=[acme.org_id])).content.decode()
    assert "https://id.example.com" in page
    for word in ("Add OpenID", ">Test<", ">Change<", ">Remove<"):
        assert word not in page


def test_operators_tick_domains_and_untick_them(acme: Access, visitor: Visitor) -> None:
    made = added(acme, domains=["acme.example", "gmail.example"])
    operator = visitor(person(operator=True))
    listed = reverse("platform:operator-domains")
    assert "gmail.example" in operator.get(listed).content.decode()
    url = reverse("platform:operator-approve", args=[acme.org_id, made.pk])
    operator.post(url, {"domains": ["acme.example"]})
    assert get_sign_on(acme, made.pk).approved_domains == ["acme.example"]
    operator.post(url, {"domains": ["acme.example", "never-named.example"]})
    assert get_sign_on(acme, made.pk).approved_domains == ["acme.example"]
    operator.post(url, {})
    assert get_sign_on(acme, made.pk).approved_domains == []
    with org_scope(acme.org_id):
        last = Event.objects.filter(kind="sign_on.changed").order_by("ts").last()
    assert last is not None
    assert last.actor.startswith("operator:")
    assert last.after == {"approved_domains": []}


def test_a_domain_that_is_no_longer_named_is_no_longer_approved(acme: Access, owner: Client, visitor: Visitor) -> None:
    made = added(acme)
    url = reverse("platform:operator-approve", args=[acme.org_id, made.pk])
    visitor(person(operator=True)).post(url, {"domains": ["acme.example"]})
    page = reverse("orgs:sign-on", args=[acme.org_id, made.pk])
    owner.post(page, form(secret="", domains=""))
    owner.post(page, form(secret="", domains="acme.example"))
    assert get_sign_on(acme, made.pk).approved_domains == []


def test_saml_is_offered_nowhere_where_it_is_not_installed(
    acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with org_scope(acme.org_id):
        SingleSignOn.objects.create(
            org=acme.org, kind="saml", name="Old SAML", issuer="https://idp.example", enabled=True
        )
    door = reverse("orgs:sign-on-door", args=[acme.org_id])
    assert b"Old SAML" in Client().get(door).content or not saml.available()
    monkeypatch.setattr(saml, "available", lambda: False)
    assert b"Old SAML" not in Client().get(door).content
    assert b"Add SAML" not in owner.get(reverse("orgs:sign-ons", args=[acme.org_id])).content
    refused = owner.get(reverse("orgs:sign-on-new", args=[acme.org_id, "saml"]))
    assert refused.status_code == 404
    assert b"which is not installed" in refused.content

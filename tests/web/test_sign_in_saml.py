"""Coming in through single sign-on with SAML: what works, and everything that must not."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.urls import reverse
from lxml import etree

from audit.models import Event
from cloudsignal.errors import Invalid, Unavailable
from cloudsignal.redis import client as redis_client
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.models import SignOnAccount, SingleSignOn, User
from orgs.sso import saml
from orgs.sso.connections import WantedSignOn, add_sign_on, approve_domains, change_sign_on
from tests.support.saml_provider import ENTITY, NAMES, SamlProvider
from tests.support.signing_on import DOMAIN, Browser
from tests.support.world import organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def provider() -> SamlProvider:
    """The identity provider of Acme."""
    return SamlProvider()


def add_saml(access: Access, provider: SamlProvider, **changes: Any) -> SingleSignOn:
    """A single sign-on through the provider, whose domain an operator has approved."""
    wanted: dict[str, Any] = {"name": "Acme SAML", "metadata": provider.metadata, "domains": [DOMAIN], "role": "viewer"}
    made = add_sign_on(access, "saml", WantedSignOn(**{**wanted, "enabled": True, **changes}))
    return approve_domains(person(operator=True), access.org_id, made.pk, domains=[DOMAIN])


@pytest.fixture
def eve(acme: Access, provider: SamlProvider) -> Browser:
    """A browser at the door of Acme."""
    return Browser(add_saml(acme, provider))


def post(browser: Browser, answer: str) -> Any:
    """What the provider's page has the browser post: from another site, so without the session's cookie."""
    return Client().post(browser.url("orgs:sign-on-consume"), {"SAMLResponse": answer, "RelayState": ""})


def bring(browser: Browser, answer: str) -> Any:
    """The post, and the page it leads the browser to."""
    posted = post(browser, answer)
    return browser.client.get(posted.headers["Location"]) if posted.status_code == 302 else posted


def refusal(access: Access) -> str:
    """Why somebody was refused last; empty when nobody was."""
    with org_scope(access.org_id):
        found = Event.objects.filter(org_id=access.org_id, kind="sign_on.refused").order_by("ts").last()
    return found.reason if found else ""


@pytest.mark.parametrize("sign", ["assertion", "response"])
def test_a_newcomer_of_an_approved_domain_comes_in(
    sign: str, acme: Access, eve: Browser, provider: SamlProvider
) -> None:
    answer = bring(eve, provider.answer(eve.leave(), sign=sign))
    assert (answer.status_code, answer.headers["Location"]) == (302, reverse("platform:home", args=[acme.org_id]))
    assert eve.status(acme) == 200
    assert User.objects.filter(email=f"eve@{DOMAIN}").exists()
    again = Browser(eve.sign_on)
    bring(again, provider.answer(again.leave(), email=""))  # the subject counts from now on
    assert again.status(acme) == 200


def test_the_address_may_be_the_name_itself(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    format_ = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
    bring(eve, provider.answer(eve.leave(), email="", subject=f"eve@{DOMAIN}", format=format_))
    assert eve.status(acme) == 200


WRONG: dict[str, dict[str, Any]] = {
    "unsigned": {"sign": "no"},
    "signed with SHA-1": {"sign": "weak"},
    "for another audience": {"audience": "https://other.example/"},
    "for another address": {"acs": "https://other.example/acs/"},
    "of another issuer": {"issuer": "https://evil.example/saml"},
    "expired": {"minutes": -60},
    "without a lasting name": {"format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"},
    "of nobody": {"subject": ""},
}


@pytest.mark.parametrize("how", WRONG)
def test_an_answer_that_does_not_hold_is_refused(how: str, acme: Access, eve: Browser, provider: SamlProvider) -> None:
    assert post(eve, provider.answer(eve.leave(), **WRONG[how])).status_code == 403
    assert refusal(acme) == "bad_assertion"
    assert eve.status(acme) == 302
    assert bring(eve, provider.answer(eve.leave())).status_code == 302  # the honest one is taken


def test_an_answer_signed_by_somebody_else_is_refused(acme: Access, eve: Browser) -> None:
    assert post(eve, SamlProvider().answer(eve.leave())).status_code == 403
    assert refusal(acme) == "bad_assertion"


def test_a_signed_assertion_beside_an_evil_one_is_refused(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    """Signature wrapping: the signed assertion stays valid, the one that is read would be another."""
    document = etree.fromstring(base64.b64decode(provider.answer(eve.leave())))
    signed = document.find("saml:Assertion", NAMES)
    evil = etree.fromstring(etree.tostring(signed))
    evil.set("ID", "_evil")
    evil.find(".//saml:NameID", NAMES).text = "the owner"
    evil.remove(evil.find("{http://www.w3.org/2000/09/xmldsig#}Signature"))
    for place in (lambda: document.insert(0, evil), lambda: document.append(evil), lambda: signed.append(evil)):
        place()
        assert post(eve, base64.b64encode(etree.tostring(document)).decode()).status_code == 403
    assert refusal(acme) == "bad_assertion"


def test_a_changed_answer_is_refused(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    honest = base64.b64decode(provider.answer(eve.leave()))
    for old, new in ((b"eve@acme", b"ada@acme"), (b">s-1<", b">s-2<")):
        assert post(eve, base64.b64encode(honest.replace(old, new)).decode()).status_code == 403
    # A comment is no part of what is signed; the name must not be cut short at it.
    bring(eve, base64.b64encode(honest.replace(b">s-1<", b">s-<!-- -->1<")).decode())
    with org_scope(acme.org_id):
        assert set(SignOnAccount.objects.values_list("subject", flat=True)) <= {"s-1"}


def test_an_answer_is_good_once_and_only_for_the_browser_that_asked(
    acme: Access, eve: Browser, provider: SamlProvider
) -> None:
    answer = provider.answer(eve.leave())
    thief = Browser(eve.sign_on)
    assert bring(thief, answer).status_code == 403  # its own post of a stolen answer: no request of its own
    assert refusal(acme) == "bad_assertion"
    posted = post(eve, answer)
    assert Client().get(posted.headers["Location"]).status_code == 403
    assert eve.client.get(posted.headers["Location"]).status_code == 400  # the ticket is gone with that
    assert bring(eve, answer).status_code == 302
    assert bring(eve, answer).status_code == 403  # replayed
    eve.client.post(reverse("account_logout"))
    assert bring(eve, answer).status_code == 403


def test_what_waits_on_redis_can_be_neither_read_nor_made_there(
    acme: Access, eve: Browser, provider: SamlProvider
) -> None:
    """A writer of Redis puts the answer of one person in the place of another's."""
    mine = post(eve, provider.answer(eve.leave())).headers["Location"]
    [first] = redis_client().keys("*login:sign-on ticket:*")
    kept = bytes(redis_client().get(first) or b"")
    assert b"eve@" not in kept
    theirs = post(eve, provider.answer(eve.leave(), subject="the owner", email=f"boss@{DOMAIN}")).headers["Location"]
    [second] = set(redis_client().keys("*login:sign-on ticket:*")) - {first}
    redis_client().set(first, redis_client().get(second) or b"")
    assert eve.client.get(mine).status_code == 400
    redis_client().set(second, b'["forged"]')
    assert eve.client.get(theirs).status_code == 400
    assert eve.status(acme) == 302


def test_an_answer_that_nobody_asked_for_is_refused(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    assert bring(eve, provider.answer(eve.leave(), in_response_to="")).status_code == 403
    assert bring(eve, provider.answer(eve.leave(), in_response_to="_invented")).status_code == 403
    assert eve.status(acme) == 302


def test_an_answer_for_one_organization_is_none_for_another(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    """The same provider serves both: address and audience tell them apart."""
    wanted = WantedSignOn(name="Rival SAML", metadata=provider.metadata, enabled=True, role="admin")
    rival = organization("Rival")
    other = Browser(add_sign_on(rival, "saml", wanted), client=eve.client)
    assert post(other, provider.answer(eve.leave())).status_code == 403
    assert other.status(rival) == 302


@pytest.mark.parametrize(
    "sent",
    ["", "!!!", "PHg+", "x" * 300_000, base64.b64encode(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>').decode(),
     base64.b64encode(b"\xff\xfe\x00").decode(), base64.b64encode(b"<a>" * 5000).decode(), "ü"],
    ids=["nothing", "no base64", "no answer", "huge", "entities", "bytes", "deep", "unicode"],
)  # fmt: skip
def test_nonsense_is_refused_in_words(sent: str, acme: Access, eve: Browser) -> None:
    answer = post(eve, sent)
    assert answer.status_code == 403
    assert b"root:" not in answer.content


def test_dangerous_acts_ask_the_provider_again(acme: Access, eve: Browser, provider: SamlProvider) -> None:
    bring(eve, provider.answer(eve.leave()))
    leaving = eve.leave("?again=1&next=/orgs/")
    assert provider.request(leaving).get("ForceAuthn") == "true"
    assert bring(eve, provider.answer(leaving, authenticated=60)).status_code == 403
    assert refusal(acme) == "not_recent"
    assert bring(eve, provider.answer(eve.leave("?again=1&next=/orgs/"))).headers["Location"] == "/orgs/"


def test_our_metadata_names_the_addresses_that_the_pages_show(acme: Access, eve: Browser, visitor: Visitor) -> None:
    answer = eve.client.get(eve.url("orgs:sign-on-metadata"))
    text = answer.content.decode()
    page = visitor(acme).get(reverse("orgs:sign-on", args=[acme.org_id, eve.sign_on.pk])).content.decode()
    for name in ("acs/", "metadata/"):
        address = f"http://localhost:8000/accounts/sso/{acme.org_id}/{eve.sign_on.pk}/{name}"
        assert address in text
        assert address in page


@pytest.mark.parametrize(
    "metadata",
    ["", "nonsense", "<a/>", "<a>", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "x" * 200_000],
    ids=["nothing", "text", "empty", "broken", "entities", "huge"],
)
def test_metadata_that_says_nothing_is_refused(metadata: str, acme: Access) -> None:
    with pytest.raises(Invalid) as refused:
        add_sign_on(acme, "saml", WantedSignOn(name="x", metadata=metadata))
    assert refused.value.field == "metadata"


def test_a_sign_in_address_that_is_no_https_is_refused(acme: Access, provider: SamlProvider) -> None:
    for evil in ("http://idp.acme.example/sso", "javascript:alert(1)", "//idp.acme.example"):
        metadata = provider.metadata.replace("https://idp.acme.example/sso", evil)
        with pytest.raises(Invalid):
            add_sign_on(acme, "saml", WantedSignOn(name="x", metadata=metadata))


def test_a_new_certificate_is_taken_up_and_the_old_one_not_believed(
    acme: Access, eve: Browser, provider: SamlProvider
) -> None:
    fresh = SamlProvider()
    wanted = WantedSignOn(name="Acme SAML", metadata=fresh.metadata, domains=[DOMAIN], role="viewer", enabled=True)
    assert change_sign_on(acme, eve.sign_on.pk, wanted).issuer == ENTITY
    assert post(eve, provider.answer(eve.leave())).status_code == 403
    assert bring(eve, fresh.answer(eve.leave())).status_code == 302


@pytest.mark.parametrize("change", ["another provider", "a new certificate"])
def test_a_verified_answer_counts_no_more_once_its_connection_is_changed(
    change: str, acme: Access, eve: Browser, provider: SamlProvider
) -> None:
    verified = post(eve, provider.answer(eve.leave()))
    metadata = SamlProvider().metadata
    if change == "another provider":
        metadata = metadata.replace(ENTITY, "https://idp.other.example/saml")
    wanted = WantedSignOn(name="Acme SAML", metadata=metadata, domains=[DOMAIN], role="viewer", enabled=True)
    change_sign_on(acme, eve.sign_on.pk, wanted)
    assert eve.client.get(verified.headers["Location"]).status_code == 400
    assert eve.status(acme) == 302
    assert not User.objects.filter(email=f"eve@{DOMAIN}").exists()


def test_without_the_extra_everything_else_works_and_saml_says_what_is_missing(
    acme: Access, eve: Browser, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onelogin", None)
    assert not saml.available()
    with pytest.raises(Unavailable):
        add_sign_on(acme, "saml", WantedSignOn(name="y", metadata="<a/>"))
    owner = visitor(acme)
    index = owner.get(reverse("orgs:sign-ons", args=[acme.org_id])).content.decode()
    assert "Add OpenID Connect" in index
    assert "Add SAML" not in index
    assert "not installed" in owner.get(reverse("orgs:sign-on-new", args=[acme.org_id, "saml"])).content.decode()
    assert eve.client.get(eve.url()).status_code == 503
    assert post(eve, "x").status_code == 503
    assert eve.client.get(eve.url("orgs:sign-on-metadata")).status_code == 503

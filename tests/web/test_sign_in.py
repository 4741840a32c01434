"""Coming in through single sign-on with OpenID Connect: what works, and everything that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings
from redis import Redis

from audit import kinds
from audit.models import Event
from cloudsignal.errors import Conflict, Forbidden, NotFound
from cloudsignal.models import OutboxRow
from cloudsignal.tenancy.scopes import org_scope
from orgs import tasks
from orgs.access.grants import Access, access_org
from orgs.models import ApiKey, Membership, Organization, SignOnAccount, User
from orgs.people.invitations import invite, link_of
from orgs.people.members import remove_member
from orgs.permissions import Permission, Role
from orgs.providers import jwks
from orgs.sso.connections import WantedSignOn, approve_domains, change_sign_on, remove_sign_on
from orgs.sso.login import link
from orgs.sso.protocol import Asserted
from tests.support.calling import Caller
from tests.support.cli_login import asked, redeem
from tests.support.issuer import CLIENT_ID, Issuer, issuing
from tests.support.signing_on import DOMAIN, Browser, add_oidc, cast
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db


@pytest.fixture
def issuer(settings: Settings) -> Iterator[Issuer]:
    """An OpenID Connect provider on loopback, where Eve of Acme is signed in."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    mail.outbox = []
    settings.PROVIDER_NETWORKS = "127.0.0.0/8"
    jwks.forget()
    with issuing() as running:
        running.person, running.userinfo = cast(), {"sub": "s-1"}
        yield running
    jwks.forget()


@pytest.fixture
def eve(acme: Access, issuer: Issuer) -> Browser:
    """A browser at the door of Acme."""
    return Browser(add_oidc(acme, issuer))


def events(access: Access, kind: str) -> list[Event]:
    """Events of a kind in the organization's audit, oldest first."""
    with org_scope(access.org_id):
        return list(Event.objects.filter(org_id=access.org_id, kind=kind).order_by("ts"))


def refusal(access: Access) -> str:
    """Why somebody was refused last; empty when nobody was."""
    found = events(access, kinds.SIGN_ON_REFUSED)
    return found[-1].reason if found else ""


def mail_of(access: Access) -> mail.EmailMessage:
    """What the worker sends of the one message that waits."""
    with org_scope(access.org_id):
        row = OutboxRow.objects.get(task="orgs.tasks.send_linked")
    assert tasks.send_linked.run(**row.payload)
    return mail.outbox[-1]


def role_of(access: Access, email: str) -> str:
    """What a person is in the organization; empty for nobody."""
    with org_scope(access.org_id):
        found = Membership.objects.filter(org=access.org, user__email=email).first()
    return found.role if found else ""


# --- the way in ----------------------------------------------------------------------------------------------------


def test_a_newcomer_of_an_approved_domain_comes_in_with_the_given_role(acme: Access, eve: Browser) -> None:
    answer = eve.sign_in()
    assert (answer.status_code, answer.headers["Location"]) == (302, reverse("platform:home", args=[acme.org_id]))
    assert eve.status(acme) == 200
    assert role_of(acme, f"eve@{DOMAIN}") == "viewer"
    with org_scope(acme.org_id):
        assert not OutboxRow.objects.filter(task="orgs.tasks.send_linked").exists()
    user = User.objects.get(email=f"eve@{DOMAIN}")
    assert (user.name, user.has_usable_password()) == ("Eve Example", False)
    assert EmailAddress.objects.get(user=user).verified
    [used] = events(acme, kinds.SIGN_ON_USED)
    assert (used.actor, used.target) == (f"user:eve@{DOMAIN}", "sign_on:Acme staff")
    assert events(acme, kinds.SIGN_ON_LINKED)[0].after == {
        "email": f"eve@{DOMAIN}", "subject": "s-1", "asserted": f"eve@{DOMAIN}",
    }  # fmt: skip


def test_another_subject_of_a_person_is_audited_with_the_former_one(acme: Access, eve: Browser) -> None:
    assert acme.user
    for subject in ("former", "newer"):
        link(eve.sign_on, Asserted(subject, acme.user.email, email_verified=True), acme.user)
    linked = {event.after["subject"]: event.before for event in events(acme, kinds.SIGN_ON_LINKED)}
    assert linked == {"former": None, "newer": {"subject": "former"}}


def test_the_second_time_the_subject_counts_and_the_address_does_not(
    acme: Access, eve: Browser, issuer: Issuer
) -> None:
    eve.sign_in()
    issuer.person = cast(email="renamed@elsewhere.example", email_verified=False)
    again = Browser(eve.sign_on)
    again.sign_in()
    assert again.status(acme) == 200
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.get(subject="s-1").user.email == f"eve@{DOMAIN}"


def test_a_person_who_was_made_anew_at_the_provider_is_the_same_here(
    acme: Access, eve: Browser, issuer: Issuer
) -> None:
    eve.sign_in()
    issuer.person = cast(sub="s-2")
    again = Browser(eve.sign_on)
    again.sign_in()
    assert again.status(acme) == 200
    with org_scope(acme.org_id):
        assert [one.subject for one in SignOnAccount.objects.all()] == ["s-2"]
    assert User.objects.filter(email=f"eve@{DOMAIN}").count() == 1


@pytest.mark.parametrize("how", ["basic", "form", "public"])
def test_every_way_to_name_the_client_works(how: str, acme: Access, issuer: Issuer) -> None:
    issuer.secret_in_form, issuer.public_client = how == "form", how == "public"
    changes = {"secret": ""} if how == "public" else {}
    browser = Browser(add_oidc(acme, issuer, **changes))
    browser.sign_in()
    assert browser.status(acme) == 200


def test_the_request_carries_state_nonce_and_pkce_of_its_own(eve: Browser) -> None:
    asked = [{name: values[0] for name, values in parse_qs(urlsplit(eve.leave()).query).items()} for _ in range(2)]
    for one in asked:
        assert one["response_type"] == "code"
        assert one["client_id"] == CLIENT_ID
        assert one["code_challenge_method"] == "S256"
        assert len(one["code_challenge"]) == 43
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
        assert len(asked[0][name]) >= 43


def test_an_address_that_only_userinfo_names_is_asked_for_there(acme: Access, eve: Browser, issuer: Issuer) -> None:
    issuer.person = cast(email=None, email_verified=None)
    issuer.userinfo = {"sub": "s-1", "email": f"eve@{DOMAIN}", "email_verified": True}
    eve.sign_in()
    assert eve.status(acme) == 200
    issuer.userinfo = {"sub": "s-2", "email": f"ada@{DOMAIN}", "email_verified": True}
    issuer.person = cast(sub="s-3", email=None)
    assert Browser(eve.sign_on).sign_in().status_code == 403
    assert refusal(acme) == "bad_assertion"


def test_it_leads_back_to_where_one_wanted_to_go_and_never_elsewhere(acme: Access, eve: Browser) -> None:
    wanted = reverse("orgs:settings", args=[acme.org_id])
    assert eve.sign_in(f"?next={wanted}").headers["Location"] == wanted
    for evil in ("https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"):
        assert Browser(eve.sign_on).sign_in(f"?next={evil}").headers["Location"].startswith("/o/")


def test_an_invited_person_comes_in_as_what_they_were_invited_to_be(acme: Access, issuer: Issuer) -> None:
    """Also without an approved domain: the organization itself named the address."""
    invite(acme, email="guest@partner.example", role="developer")
    invite(acme, email="boss@partner.example", role="owner")
    browser = Browser(add_oidc(acme, issuer, approved=False))
    issuer.person = cast(email="guest@partner.example")
    browser.sign_in()
    assert browser.status(acme) == 200
    assert role_of(acme, "guest@partner.example") == "developer"
    assert not EmailAddress.objects.get(email="guest@partner.example").verified
    issuer.person = cast(sub="s-2", email="boss@partner.example")
    assert Browser(browser.sign_on).sign_in().status_code == 403
    assert refusal(acme) == "not_invited"


def test_the_door_is_found_by_id_and_by_approved_domain(acme: Access, eve: Browser) -> None:
    find = reverse("orgs:sign-on-find")
    client = Client()
    assert client.get(find).status_code == 200
    for who in (acme.org_id, f"Anybody@{DOMAIN.upper()}"):
        assert eve.url() in client.get(find, {"who": who}).content.decode()
    for who in ("org_aaaaaaaaaaaa", "x@unknown.example", "x@", "@", "\0", "org_'; --", "x@" + "a" * 5000):
        assert client.get(find, {"who": who}).status_code == 404
    assert eve.url() in client.get(reverse("orgs:sign-on-door", args=[acme.org_id])).content.decode()
    assert client.get(reverse("orgs:sign-on-door", args=["org_aaaaaaaaaaaa"])).status_code == 404
    assert find in client.get(reverse("account_login")).content.decode()


def test_another_site_leads_to_the_door_and_not_through_it(acme: Access, eve: Browser) -> None:
    answer = eve.client.get(eve.url(), headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.headers["Location"] == reverse("orgs:sign-on-door", args=[acme.org_id])


# --- answers that are not accepted ---------------------------------------------------------------------------------


def forged(issuer: Issuer, how: str) -> Any:
    """A way to make an ID token of claims that is wrong in one respect."""
    other = Issuer()
    other.add_rsa("one")
    ways: dict[str, Any] = {
        "none": lambda claims: jwt.encode(claims, None, "none", headers={"kid": "one"}),
        "public key as a secret": lambda claims: _hmac_with(issuer.public_pem("one"), claims),
        "another key": lambda claims: jwt.encode(claims, other.keys["one"], "RS256", headers={"kid": "one"}),
        "unknown key": lambda claims: jwt.encode(claims, other.keys["one"], "RS256", headers={"kid": "two"}),
        "unpinned algorithm": lambda claims: jwt.encode(claims, issuer.keys["one"], "PS256", headers={"kid": "one"}),
        "no token": lambda _: "",
        "nonsense": lambda _: "e30.e30.",
    }
    return ways[how]


def _hmac_with(secret: bytes, claims: dict[str, Any]) -> str:
    """An HS256 token: PyJWT refuses to make one with a public key, an attacker would not ask it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{part(json.dumps({'alg': 'HS256', 'kid': 'one'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


FORGERIES = (
    "none",
    "public key as a secret",
    "another key",
    "unknown key",
    "unpinned algorithm",
    "no token",
    "nonsense",
)


@pytest.mark.parametrize("how", FORGERIES)
def test_an_id_token_that_is_not_signed_as_pinned_is_refused(
    how: str, acme: Access, eve: Browser, issuer: Issuer
) -> None:
    issuer.signs = forged(issuer, how)
    assert eve.sign_in().status_code == 403
    assert refusal(acme) == "bad_assertion"
    assert eve.status(acme) == 302
    issuer.signs = None
    jwks.forget()
    assert eve.sign_in().status_code == 302  # the honest one is taken


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "another"}, {"nonce": None}, {"nonce": ["x"]}, {"aud": "another"}, {"aud": [CLIENT_ID, "another"]},
        {"azp": "another"}, {"aud": None}, {"iss": "https://evil.example"}, {"exp": 1}, {"exp": None}, {"iat": None},
        {"nbf": 99_999_999_999}, {"sub": None}, {"sub": ""}, {"sub": "x" * 300}, {"sub": "a\0b"}, {"exp": "soon"},
    ],
    ids=str,
)  # fmt: skip
def test_claims_that_do_not_fit_are_refused(wrong: dict[str, Any], acme: Access, eve: Browser, issuer: Issuer) -> None:
    issuer.person = cast(**wrong)
    assert eve.sign_in().status_code == 403
    assert refusal(acme) == "bad_assertion"
    assert eve.status(acme) == 302


def test_an_answer_is_good_once_in_the_browser_that_asked_and_for_ten_minutes(
    acme: Access, eve: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = eve.at_provider(eve.leave())
    assert Client().get(back).status_code == 400  # another browser, as in login CSRF
    assert eve.client.get(back.replace("state=", "state=x")).status_code == 400
    assert eve.client.get(back.split("?")[0]).status_code == 400
    assert eve.client.get(back).status_code == 302
    assert eve.client.get(back).status_code == 400  # replayed
    late = Browser(eve.sign_on)
    back = late.at_provider(late.leave())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert late.client.get(back).status_code == 400


def test_an_answer_of_one_provider_is_none_of_another(acme: Access, eve: Browser, issuer: Issuer) -> None:
    """Mix-up (RFC 9207): the code of an honest provider must not reach a hostile one that shares the browser."""
    hostile = organization("Hostile")
    other = Browser(add_oidc(hostile, issuer, approved=False), client=eve.client)
    back = eve.at_provider(eve.leave())
    assert other.client.get(f"{other.url('orgs:sign-on-callback')}?{back.split('?')[1]}").status_code == 400
    back = eve.at_provider(eve.leave())
    assert eve.client.get(back.replace("iss=http", "iss=https")).status_code == 403
    assert refusal(acme) == "bad_assertion"


def test_a_provider_that_says_no_is_believed(acme: Access, eve: Browser, issuer: Issuer) -> None:
    state = parse_qs(urlsplit(eve.leave()).query)["state"][0]
    answer = eve.client.get(eve.url("orgs:sign-on-callback"), {"state": state, "error": "<script>access_denied"})
    assert answer.status_code == 403
    assert b"<script>access_denied" not in answer.content
    assert refusal(acme) == "provider_refused"
    issuer.token_mode = "refuse"
    assert eve.sign_in().status_code == 403
    issuer.token_mode = "nothing"
    assert eve.sign_in().status_code == 403


@pytest.mark.parametrize(
    "odd",
    [{"name": "Eve\0 \u202eExample"}, {"email": "e\0ve@acme.example"}, {"email": "\ud800@acme.example"}],
    ids=ascii,
)
def test_what_no_database_can_hold_breaks_nothing(
    odd: dict[str, str], acme: Access, eve: Browser, issuer: Issuer
) -> None:
    issuer.person = cast(**odd)
    answer = eve.sign_in()
    if "name" in odd:
        assert answer.status_code == 302
        assert User.objects.get(email=f"eve@{DOMAIN}").name == "Eve Example"
    else:
        assert answer.status_code == 403
        assert refusal(acme) == "email_missing"
    state = parse_qs(urlsplit(eve.leave()).query)["state"][0]
    said_no = eve.client.get(eve.url("orgs:sign-on-callback"), {"state": state, "error": "access\0denied"})
    assert said_no.status_code == 403
    assert events(acme, kinds.SIGN_ON_REFUSED)[-1].after == {
        "message": "The identity provider refused the sign-in: accessdenied."
    }


@pytest.mark.parametrize("part", ["configuration", "token"])
def test_a_provider_that_hangs_is_not_waited_for(
    part: str, acme: Access, eve: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudsignal.fetch.SECONDS", 0.5)
    if part == "configuration":
        issuer.mode = "hang"
        assert eve.client.get(eve.url()).status_code == 503
    else:
        back = eve.at_provider(eve.leave())
        issuer.token_mode = "hang"
        assert eve.client.get(back).status_code == 503
    assert refusal(acme) == "provider_unreachable"


def test_a_provider_inside_our_own_network_is_never_asked(
    acme: Access, eve: Browser, issuer: Issuer, settings: Settings
) -> None:
    settings.PROVIDER_NETWORKS = ""
    asked = issuer.asked
    assert eve.client.get(eve.url()).status_code == 503
    assert issuer.asked == asked


def test_a_wrong_client_secret_leads_nowhere(acme: Access, issuer: Issuer) -> None:
    browser = Browser(add_oidc(acme, issuer, secret="another"))
    assert browser.sign_in().status_code == 403
    assert refusal(acme) == "provider_refused"


def test_many_tries_from_one_network_are_too_many(eve: Browser, settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "sign_ons": "2/300"}
    statuses = [eve.client.get(eve.url()).status_code for _ in range(3)]
    assert statuses == [302, 302, 429]
    assert eve.client.get(reverse("orgs:sign-on-find"), {"who": "x@y.example"}).status_code == 429


# --- whose word counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"email": None}, "email_missing"), ({"email": "nonsense"}, "email_missing"), ({"email": 7}, "email_missing"),
        ({"email": f"a@b@{DOMAIN}"}, "email_missing"), ({"email_verified": False}, "email_unverified"),
        ({"email_verified": None}, "email_unverified"), ({"email_verified": 1.5}, "email_unverified"),
        ({"email": "eve@elsewhere.example"}, "not_invited"), ({"email": f"eve@sub.{DOMAIN}"}, "not_invited"),
        ({"email": f"eve@{DOMAIN}.evil.example"}, "not_invited"), ({"email": "eve@аcme.example"}, "not_invited"),
    ],
    ids=str,
)  # fmt: skip
def test_an_address_that_does_not_count_makes_no_account(
    claims: dict[str, Any], reason: str, acme: Access, eve: Browser, issuer: Issuer
) -> None:
    people = User.objects.count()
    issuer.person = cast(**claims)
    assert eve.sign_in().status_code == 403
    assert refusal(acme) == reason
    assert User.objects.count() == people
    assert eve.status(acme) == 302


def test_a_domain_counts_only_when_an_operator_has_approved_it(acme: Access, issuer: Issuer) -> None:
    browser = Browser(add_oidc(acme, issuer, approved=False))
    assert browser.sign_in().status_code == 403
    operator = person(operator=True)
    approve_domains(operator, acme.org_id, browser.sign_on.pk, domains=[DOMAIN])
    assert browser.sign_in().status_code == 302
    rival = add_oidc(organization("Rival"), issuer, approved=False)
    with pytest.raises(Conflict):
        approve_domains(operator, rival.org_id, rival.pk, domains=[DOMAIN])
    with pytest.raises(NotFound):
        approve_domains(person(), acme.org_id, browser.sign_on.pk, domains=[DOMAIN])


def test_newcomers_stay_out_where_only_invited_people_are_let_in(acme: Access, issuer: Issuer) -> None:
    browser = Browser(add_oidc(acme, issuer, role=""))
    assert browser.sign_in().status_code == 403
    assert refusal(acme) == "not_invited"


def test_a_member_of_this_organization_alone_is_known_by_their_address(
    acme: Access, eve: Browser, issuer: Issuer
) -> None:
    user = User.objects.create_user(f"Eve@{DOMAIN}")
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.DEVELOPER)
    eve.sign_in()
    assert eve.status(acme) == 200
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.get(subject="s-1").user == user
    assert mail_of(acme).to == [user.email]


@pytest.mark.parametrize(
    "who", ["a stranger", "a member elsewhere", "once a member elsewhere", "an operator", "inactive"]
)
def test_an_account_that_leads_further_is_never_taken_over(
    who: str, acme: Access, eve: Browser, issuer: Issuer
) -> None:
    user = User.objects.create_user(f"eve@{DOMAIN}", is_operator=who == "an operator", is_active=who != "inactive")
    elsewhere = organization("Elsewhere")
    if who != "a stranger":
        with org_scope(acme.org_id):
            Membership.objects.create(org=acme.org, user=user, role=Role.VIEWER)
    if "elsewhere" in who:
        with org_scope(elsewhere.org_id):
            ended = elsewhere.org.created_at if "once" in who else None
            Membership.objects.create(org=elsewhere.org, user=user, role=Role.VIEWER, ends_at=ended)
    answer = eve.sign_in()
    assert answer.status_code == 403
    assert refusal(acme) == ("not_allowed" if who in {"an operator", "inactive"} else "account_exists")
    assert eve.status(acme) == 302
    with org_scope(acme.org_id):
        assert not SignOnAccount.objects.exists()


def test_an_address_that_is_another_accounts_second_one_is_not_free(acme: Access, eve: Browser) -> None:
    EmailAddress.objects.create(user=person(), email=f"eve@{DOMAIN}", verified=True)
    assert eve.sign_in().status_code == 403
    assert refusal(acme) == "account_exists"


def test_a_tenant_does_not_learn_who_has_an_account(acme: Access, issuer: Issuer) -> None:
    browser = Browser(add_oidc(acme, issuer, approved=False))
    User.objects.create_user("known@elsewhere.example")
    said = []
    for address in ("known@elsewhere.example", "other@elsewhere.example"):
        issuer.person = cast(email=address)
        said.append(browser.sign_in().content.decode().replace(address, "X"))
    assert said[0] == said[1]


def test_the_rivals_provider_opens_nothing_of_acme(acme: Access, eve: Browser, issuer: Issuer) -> None:
    """A hostile tenant with a provider of its own asserts the very subject and address of somebody at Acme."""
    eve.sign_in()
    rival = organization("Rival")
    with issuing() as hostile:
        hostile.person = cast()
        attack = Browser(add_oidc(rival, hostile, approved=False))
        assert attack.sign_in().status_code == 403
        assert refusal(rival) == "not_invited"
        invite(rival, email=f"eve@{DOMAIN}", role="viewer")
        assert attack.sign_in().status_code == 403
        assert refusal(rival) == "account_exists"
        assert attack.status(acme) == 302
    assert refusal(acme) == ""


def test_a_removed_member_stays_out_until_invited_again(acme: Access, eve: Browser) -> None:
    eve.sign_in()
    with org_scope(acme.org_id):
        membership = Membership.objects.get(user__email=f"eve@{DOMAIN}")
    remove_member(acme, membership.pk)
    assert eve.status(acme) == 404
    assert Browser(eve.sign_on).sign_in().status_code == 403
    assert refusal(acme) == "not_member"
    invite(acme, email=f"eve@{DOMAIN}", role="auditor")
    back = Browser(eve.sign_on)
    back.sign_in()
    assert back.status(acme) == 200
    assert role_of(acme, f"eve@{DOMAIN}") == "auditor"


# --- what such a session reaches -----------------------------------------------------------------------------------


def test_a_session_that_came_through_reaches_that_organization_only(acme: Access, eve: Browser, issuer: Issuer) -> None:
    eve.sign_in()
    user = User.objects.get(email=f"eve@{DOMAIN}")
    other = organization("Other", owner=user)
    assert eve.status(other) == 404
    listed = eve.client.get(reverse("orgs:list")).content.decode()
    assert "Acme" in listed
    assert "Other" not in listed
    named = [one["id"] for one in eve.client.get("/v2/organizations").json()["data"]]
    assert named == [acme.org_id]
    assert eve.client.get(f"/v2/organizations/{other.org_id}").status_code == 404
    assert eve.client.get(f"/v2/organizations/{acme.org_id}").status_code == 200
    assert eve.client.post(reverse("orgs:new"), {"name": "Mine"}).status_code in {403, 422}
    alone = Client()
    alone.force_login(user)
    assert alone.get(reverse("platform:home", args=[other.org_id])).status_code == 200


@pytest.mark.parametrize(
    "page",
    ["account_change_password", "account_set_password", "account_email", "mfa_index", "mfa_activate_totp",
     "mfa_add_webauthn", "usersessions_list", "account_reauthenticate"],
)  # fmt: skip
def test_a_session_that_came_through_changes_nothing_about_the_account(page: str, eve: Browser) -> None:
    eve.sign_in()
    form = {"password1": "a-rather-long-password", "password2": "a-rather-long-password", "email": "x@evil.example"}
    for answer in (eve.client.get(reverse(page)), eve.client.post(reverse(page), form)):
        assert answer.status_code == 403, page
        assert "is valid for that organization only" in answer.content.decode()
    user = User.objects.get(email=f"eve@{DOMAIN}")
    assert not user.has_usable_password()
    home = eve.client.get(reverse("orgs:list")).content.decode()
    assert reverse("mfa_index") not in home
    assert reverse("orgs:new") not in home
    assert eve.client.post(reverse("account_logout")).status_code == 302


def test_an_invitation_elsewhere_is_not_accepted_by_such_a_session(acme: Access, eve: Browser) -> None:
    from orgs.people.invitations import link_of

    eve.sign_in()
    elsewhere = organization("Elsewhere")
    link = urlsplit(link_of(invite(elsewhere, email=f"eve@{DOMAIN}", role="admin"))).path
    assert eve.client.post(link).status_code == 403
    assert role_of(elsewhere, f"eve@{DOMAIN}") == ""


def test_an_administrator_who_comes_through_may_ask_the_others_for_two_steps(acme: Access, issuer: Issuer) -> None:
    """Such a session is not asked for one of its own, so its administrator does not shut themselves out."""
    browser = Browser(add_oidc(acme, issuer, role="admin"))
    browser.sign_in()
    assert browser.client.post(reverse("orgs:two-step", args=[acme.org_id])).status_code == 302
    assert browser.status(acme) == 200
    with org_scope(acme.org_id):
        assert Organization.objects.get().mfa_required


def test_nobody_becomes_an_owner_in_such_a_session(acme: Access, eve: Browser) -> None:
    """Administrators choose its provider: an owner's invitation wants an account of one's own."""
    eve.sign_in()
    user = User.objects.get(email=f"eve@{DOMAIN}")
    with org_scope(acme.org_id):
        Membership.objects.filter(user=user).update(ends_at=acme.org.created_at)
    link = link_of(invite(acme, email=user.email, role="owner"))
    assert eve.client.post(urlsplit(link).path).status_code == 403
    assert role_of(acme, user.email) == "viewer"


def test_an_owner_who_comes_through_is_an_administrator_there(acme: Access, eve: Browser) -> None:
    """An administrator chooses the provider: its word must not make them an owner."""
    user = User.objects.create_user(f"eve@{DOMAIN}")
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.OWNER)
    eve.sign_in()
    assert eve.status(acme) == 200
    assert eve.client.get(reverse("orgs:delete", args=[acme.org_id])).status_code == 403
    assert eve.client.get(reverse("orgs:danger", args=[acme.org_id])).status_code == 200
    assert access_org(user, acme.org_id).may(Permission.ORG_DELETE)


def test_the_session_ends_with_the_way_in(
    acme: Access, eve: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve.sign_in()
    off = {"name": "Acme staff", "issuer": issuer.url, "client_id": CLIENT_ID, "domains": [DOMAIN], "role": "viewer"}
    change_sign_on(acme, eve.sign_on.pk, WantedSignOn(**off))
    assert eve.status(acme) == 302
    assert eve.client.get(eve.url()).status_code == 404
    change_sign_on(acme, eve.sign_on.pk, WantedSignOn(**off, enabled=True))
    assert eve.status(acme) == 302  # it is over, not asleep
    late = Browser(eve.sign_on)
    late.sign_in()
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + 12 * 3600 + 1)
        assert late.status(acme) == 302
    gone = Browser(eve.sign_on)
    gone.sign_in()
    remove_sign_on(acme, eve.sign_on.pk)
    assert gone.status(acme) == 302


def test_an_operator_is_nobody_in_a_session_that_came_through(acme: Access, eve: Browser) -> None:
    eve.sign_in()
    User.objects.filter(email=f"eve@{DOMAIN}").update(is_operator=True)
    assert eve.client.get(reverse("platform:operator-organizations")).status_code == 302
    assert Browser(eve.sign_on).sign_in().status_code == 403
    assert refusal(acme) == "not_allowed"


def test_the_mark_survives_the_second_factor_and_goes_with_a_sign_in_of_ones_own(
    acme: Access, eve: Browser, settings: Settings
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user(f"eve@{DOMAIN}", "a-rather-long-password")
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.VIEWER)
    eve.sign_in()
    other = organization("Other", owner=user)
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    second = Browser(eve.sign_on)
    assert second.sign_in().headers["Location"] == reverse("mfa_authenticate")
    assert second.status(acme) == 302  # half-way in is not in
    assert len(events(acme, kinds.SIGN_ON_USED)) == 1
    second.client.post(reverse("mfa_authenticate"), {"code": _code(secret)})
    assert (second.status(acme), second.status(other)) == (200, 404)
    second.client.post(reverse("account_logout"))
    user.authenticator_set.all().delete()
    form = {"login": user.email, "password": "a-rather-long-password"}
    assert second.client.post(reverse("account_login"), form).status_code == 302
    assert (second.status(acme), second.status(other)) == (200, 200)


def _code(secret: str) -> str:
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time

    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


# --- required, and linking by oneself -------------------------------------------------------------------------------


def test_members_come_this_way_where_it_is_required_and_owners_are_never_locked_out(
    acme: Access, issuer: Issuer, visitor: Visitor
) -> None:
    assert acme.user is not None
    with pytest.raises(Forbidden, match="two-factor authentication"):
        add_oidc(acme, issuer, required=True)
    TOTP.activate(acme.user, generate_totp_secret())
    browser = Browser(add_oidc(acme, issuer, required=True))
    user = person()
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.ADMIN)
    client = visitor(user)
    home = reverse("platform:home", args=[acme.org_id])
    answer = client.get(home)
    door = reverse("orgs:sign-on-door", args=[acme.org_id])
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{door}?next={home}")
    assert client.get(f"/v2/organizations/{acme.org_id}").json()["code"] == "sign_on_required"
    assert visitor(acme).get(home).status_code == 200
    acme.user.authenticator_set.all().delete()
    assert visitor(acme).get(home).status_code == 403
    browser.sign_in()
    assert browser.status(acme) == 200


def test_an_operator_who_is_a_member_there_keeps_what_operators_have(
    acme: Access, issuer: Issuer, visitor: Visitor
) -> None:
    assert acme.user is not None
    TOTP.activate(acme.user, generate_totp_secret())
    add_oidc(acme, issuer, required=True)
    operator = person(operator=True)
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=operator, role=Role.ADMIN)
    assert visitor(operator).get(reverse("platform:home", args=[acme.org_id])).status_code == 200
    assert not access_org(operator, acme.org_id).may(Permission.ORG_UPDATE)


def test_a_person_links_their_own_account_and_stays_who_they_are(
    acme: Access, issuer: Issuer, visitor: Visitor
) -> None:
    user = User.objects.create_user("ada@private.example")
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.DEVELOPER)
    other = organization("Other", owner=user)
    browser = Browser(add_oidc(acme, issuer), client=visitor(user))
    issuer.person = cast(sub="s-ada", email=f"ada@{DOMAIN}")
    assert "Account linked" in browser.sign_in("?for=link").content.decode()
    told = mail_of(acme)
    assert told.to == ["ada@private.example"]
    assert "Acme staff" in told.subject
    assert acme.org.name in str(told.body)
    assert (browser.status(acme), browser.status(other)) == (200, 200)
    fresh = Browser(browser.sign_on)
    fresh.sign_in()
    assert (fresh.status(acme), fresh.status(other)) == (200, 404)
    thief = Browser(browser.sign_on, client=visitor(member(acme.org, Role.VIEWER)))
    assert thief.sign_in("?for=link").status_code == 403
    assert refusal(acme) == "linked_to_another"


def test_linking_needs_a_member_who_is_the_same_when_they_return(
    acme: Access, issuer: Issuer, visitor: Visitor
) -> None:
    browser = Browser(add_oidc(acme, issuer), client=visitor(organization("Other")))
    assert browser.sign_in("?for=link").status_code == 403
    assert refusal(acme) == "not_member"
    assert Browser(browser.sign_on).client.get(f"{browser.url()}?for=link").status_code == 302  # to the sign-in page
    first = Browser(browser.sign_on, client=visitor(member(acme.org, Role.VIEWER)))
    back = first.at_provider(first.leave("?for=link"))
    somebody = member(acme.org, Role.VIEWER).user
    assert somebody is not None
    session = first.client.session
    pending = session["sign_on_pending"]
    first.client.force_login(somebody)
    session = first.client.session
    session["sign_on_pending"] = pending
    session.save()
    assert first.client.get(back).status_code == 409
    through = Browser(browser.sign_on)
    issuer.person = cast()
    through.sign_in()
    assert through.client.get(f"{through.url()}?for=link").status_code == 404


def test_linking_asks_again_who_is_there(
    acme: Access, issuer: Issuer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user("ada@private.example", "a-rather-long-password")
    with org_scope(acme.org_id):
        Membership.objects.create(org=acme.org, user=user, role=Role.DEVELOPER)
    browser = Browser(add_oidc(acme, issuer))
    browser.client.force_login(user)
    answer = browser.client.get(f"{browser.url()}?for=link")
    assert answer.headers["Location"].startswith(reverse("account_reauthenticate"))


def test_trying_shows_what_would_happen_and_does_nothing(acme: Access, issuer: Issuer, visitor: Visitor) -> None:
    made = add_oidc(acme, issuer, enabled=False)
    browser = Browser(made, client=visitor(acme))
    people = User.objects.count()
    assert "Sign-in would succeed" in browser.sign_in("?for=try").content.decode()
    issuer.person = cast(email="x@elsewhere.example")
    assert "Sign-in would be refused" in browser.sign_in("?for=try").content.decode()
    assert User.objects.count() == people
    assert refusal(acme) == ""
    for client in (visitor(member(acme.org, Role.DEVELOPER)), visitor(organization("Other")), Client()):
        answer = Browser(made, client=client).client.get(f"{browser.url()}?for=try")
        assert answer.status_code in {302, 403, 404}
        assert issuer.url not in answer.headers.get("Location", "")


# --- asked again ---------------------------------------------------------------------------------------------------


def test_dangerous_acts_ask_the_provider_again(acme: Access, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(add_oidc(acme, issuer, role="admin"))
    browser.sign_in()
    new_key = reverse("orgs:key-new", args=[acme.org_id])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400)
    answer = browser.client.post(new_key, {"name": "x", "kind": "sk"})
    assert answer.headers["Location"] == f"{browser.url()}?again=1&next={new_key.replace('/', '%2F')}"
    leaving = browser.leave(f"?again=1&next={new_key}")
    asked = parse_qs(urlsplit(leaving).query)
    assert (asked["prompt"], asked["max_age"]) == (["login"], ["0"])
    issuer.person = cast(auth_time=int(now) - 3600, iat=int(now))
    assert browser.client.get(browser.at_provider(leaving)).status_code == 403
    assert refusal(acme) == "not_recent"
    issuer.person = cast(iat=int(now))
    answer = browser.sign_in(f"?again=1&next={new_key}")
    assert answer.headers["Location"] == new_key
    assert browser.client.post(new_key, {"name": "x", "kind": "sk"}).status_code != 302


@pytest.mark.parametrize("proof", ["an hour ago", "nothing", "no number", "the future"])
def test_a_sign_in_that_proves_no_fresh_authentication_counts_for_no_dangerous_act(
    acme: Access, issuer: Issuer, proof: str
) -> None:
    """The provider may have gone by a session it had: whoever sits at an unlocked browser comes in like this."""
    now = int(time.time())
    said = {"an hour ago": now - 3600, "nothing": None, "no number": True, "the future": now + 3600}[proof]
    browser = Browser(add_oidc(acme, issuer, role="admin"))
    asked = parse_qs(urlsplit(browser.leave()).query)
    assert int(asked["max_age"][0]) > 24 * 3600  # asked for, so that the provider has to say when; nobody is bothered
    assert "prompt" not in asked
    issuer.person = cast(auth_time=said)
    browser.sign_in()
    assert browser.status(acme) == 200
    new_key = reverse("orgs:key-new", args=[acme.org_id])
    answer = browser.client.post(new_key, {"name": "x", "kind": "sk"})
    assert answer.headers.get("Location", "").startswith(f"{browser.url()}?again=1"), answer.content[:200]
    issuer.person = cast(auth_time=now)
    browser.sign_in(f"?again=1&next={new_key}")
    assert browser.client.post(new_key, {"name": "x", "kind": "sk"}).status_code != 302


# --- a command line, two at once, and parts that are away ------------------------------------------------------------


def test_a_command_line_of_such_a_session_is_held_as_the_session_is(acme: Access, eve: Browser, issuer: Issuer) -> None:
    assert acme.user is not None
    eve.sign_in()
    page = eve.client.post(f"{reverse('orgs:command-line')}?{urlencode(asked())}", {"organization": acme.org_id})
    code = parse_qs(urlsplit(page.headers["Location"]).query)["code"][0]
    program = Caller(redeem(code).body["secret"])
    me = program.get("/v2/me").body
    assert (me["person"], me["role"]) == (f"eve@{DOMAIN}", "viewer")
    with org_scope(acme.org_id):
        key = ApiKey.objects.get(sign_on=eve.sign_on.pk)
    assert key.expires_at is not None
    assert key.expires_at - key.created_at <= timedelta(hours=12, minutes=1)
    TOTP.activate(acme.user, generate_totp_secret())
    wanted = {"name": "Acme staff", "issuer": issuer.url, "client_id": CLIENT_ID, "domains": [DOMAIN], "role": "viewer"}
    change_sign_on(acme, eve.sign_on.pk, WantedSignOn(**wanted, enabled=True, required=True))
    assert program.get("/v2/me").status == 200  # it came the required way
    change_sign_on(acme, eve.sign_on.pk, WantedSignOn(**wanted))
    assert program.get("/v2/me").status == 401


def test_a_command_line_that_was_approved_does_not_outlive_the_way_in(acme: Access, eve: Browser) -> None:
    eve.sign_in()
    page = eve.client.post(f"{reverse('orgs:command-line')}?{urlencode(asked())}", {"organization": acme.org_id})
    code = parse_qs(urlsplit(page.headers["Location"]).query)["code"][0]
    remove_sign_on(acme, eve.sign_on.pk)
    assert redeem(code).code == "invalid_grant"


@pytest.mark.django_db(transaction=True)
def test_two_first_sign_ins_at_once_make_one_account(acme: Access, eve: Browser) -> None:
    browsers = [Browser(eve.sign_on) for _ in range(4)]
    backs = [browser.at_provider(browser.leave()) for browser in browsers]

    def arrive(turn: int) -> int:
        try:
            return browsers[turn].client.get(backs[turn]).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(arrive, range(4))) == {302}
    assert User.objects.filter(email=f"eve@{DOMAIN}").count() == 1
    with org_scope(acme.org_id):
        assert SignOnAccount.objects.count() == 1
        assert Membership.objects.filter(user__email=f"eve@{DOMAIN}").count() == 1
    assert [browser.status(acme) for browser in browsers] == [200] * 4


def test_while_redis_is_away_people_come_in_all_the_same(
    acme: Access, eve: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudsignal.limits.fast_client", lambda: Redis(port=1, socket_connect_timeout=0.2))
    assert eve.sign_in().status_code == 302
    assert eve.status(acme) == 200

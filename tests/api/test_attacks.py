"""Ways around a rule that were once open: each stays as a test."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.db import OperationalError, connection
from django.test import Client
from pytest_django.fixtures import Settings

from cloudsignal.errors import Conflict
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org
from orgs.api_keys import keys
from orgs.credentials.identities import revoke_issued_by
from orgs.credentials.issuing import External, issue_credential, refresh_credential
from orgs.credentials.reads import get_credential
from orgs.models import Membership, MqttIdentity, Organization, User
from orgs.organizations.deletion import delete_organization, restore_organization
from orgs.organizations.lifecycle import resume_organization, suspend_organization
from orgs.people import members
from orgs.permissions import Role
from orgs.providers.providers import Wanted, add_provider
from tests.support.calling import Caller, World
from tests.support.world import member, person

PASSWORD = "correct horse battery"


@pytest.fixture
def ada(transactional_db: None, settings: Settings) -> User:
    """A person with a password and an authenticator app."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user("ada@example.com", PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    TOTP.activate(user, generate_totp_secret())
    RecoveryCodes.activate(user)
    return user


def with_password(ip: str) -> Client:
    """Somebody who knows the password and stands before the second factor."""
    client = Client(REMOTE_ADDR=ip)
    answer = client.post("/accounts/login/", {"login": "ada@example.com", "password": PASSWORD})
    assert answer.headers["Location"] == "/accounts/2fa/authenticate/"
    return client


def test_second_factors_cannot_be_guessed(ada: User) -> None:
    guesser = with_password("192.0.2.1")
    answers = [guesser.post("/accounts/2fa/authenticate/", {"code": f"{code:06}"}) for code in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    (code, *_) = RecoveryCodes(RecoveryCodes.activate(ada).instance).get_unused_codes()
    assert guesser.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 429
    # From the person's own network there is a way in still.
    assert with_password("198.51.100.7").post("/accounts/2fa/authenticate/", {"code": code}).status_code == 302


def test_account_pages_say_when_to_come_back(transactional_db: None) -> None:
    client = Client()
    answers = [client.post("/accounts/password/reset/", {"email": "ada@example.com"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [302] * 5 + [429]
    assert answers[-1].headers["Retry-After"] == "60"
    assert b"Too many requests" in answers[-1].content


def test_links_of_invitations_cannot_be_tried_out(transactional_db: None, settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "public": "2/60"}
    guesser, guest = Client(REMOTE_ADDR="192.0.2.1"), Client(REMOTE_ADDR="198.51.100.7")
    answers = [guesser.get(f"/invitations/inv_{number}.0/") for number in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert guest.get("/invitations/inv_1.0/").status_code == 404


def test_what_a_leaked_key_has_fetched_since_ends_with_it(acme: World) -> None:
    """Whoever had the key may have refreshed what they issued themselves: that is issued by the key all the same."""
    thief = acme.caller()
    first = thief.post("/v2/tokens/create", {"user_email": "ada@example.com"}).body
    proof = {"token_id": first["token_id"], "current_token_password": first["access_token"]}
    second = Caller().post("/v2/tokens/refresh", proof).body
    ended = revoke_issued_by(acme.owner, [f"key:sk_...{thief.key[-4:]}"])
    assert ended.credentials == 2
    assert get_credential(acme.owner, second["token_id"]).state == "revoked"
    proof = {"token_id": second["token_id"], "current_token_password": second["access_token"]}
    assert Caller().post("/v2/tokens/refresh", proof).code == "unauthorized"
    with pytest.raises(Conflict):
        refresh_credential(acme.owner, second["token_id"])


def test_no_two_keys_are_shown_and_audited_under_one_name(acme: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few letters to choose from, keys would soon end on the same four."""
    monkeypatch.setattr(keys, "ALPHABET", "ab")
    names = {str(keys.create_api_key(acme.owner, kind="pk", name="web").key) for _ in range(16)}
    assert len(names) == 16


def test_a_publishable_key_is_not_used_up_for_everybody_by_one(acme: World, settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "tokens_of_key": "2/60", "tokens_of_address": "2/60"}
    key, body = acme.key("pk"), {"token": "a.b.c", "provider": "none"}
    hammer = Caller(key, client=Client(REMOTE_ADDR="192.0.2.1"))
    assert [hammer.post("/v2/tokens/exchange", body).status for _ in range(3)] == [404, 404, 429]
    visitor = Caller(key, client=Client(REMOTE_ADDR="198.51.100.7"))
    assert visitor.post("/v2/tokens/exchange", body).status == 404


def present(access: Access) -> Organization:
    """The organization as it is now."""
    with org_scope(access.org_id):
        return Organization.objects.get()


def test_an_owner_cannot_lift_a_suspension_by_deleting(acme: World) -> None:
    operator = person(operator=True)
    suspend_organization(operator, acme.id, reason="abuse")
    delete_organization(acme.owner, confirm="Acme")
    assert restore_organization(acme.owner).status == "suspended"
    assert present(acme.owner).suspended_reason == "abuse"
    assert resume_organization(operator, acme.id).status == "active"


def test_a_suspension_during_a_deletion_neither_ends_it_nor_is_lost(acme: World) -> None:
    operator = person(operator=True)
    delete_organization(acme.owner, confirm="Acme")
    assert suspend_organization(operator, acme.id).status == "deleting"
    assert present(acme.owner).delete_after is not None
    assert restore_organization(acme.owner).status == "suspended"
    delete_organization(acme.owner, confirm="Acme")
    assert resume_organization(operator, acme.id).status == "deleting"
    with pytest.raises(Conflict):
        resume_organization(operator, acme.id)
    assert restore_organization(acme.owner).status == "active"


def test_ownership_does_not_revive_a_membership_that_has_ended(acme: World) -> None:
    ended = member(acme.owner.org, Role.AUDITOR)
    with org_scope(acme.id):
        membership = Membership.objects.get(user=ended.user)
        membership.ends_at = datetime.now(UTC) - timedelta(days=1)
        membership.save()
    with pytest.raises(Conflict) as refused:
        members.transfer_ownership(acme.owner, membership.pk)
    assert refused.value.code == "membership_ended"
    assert acme.owner.user is not None
    assert access_org(acme.owner.user, acme.id).role is Role.OWNER


def test_every_way_to_power_asks_who_is_there(acme: World) -> None:
    """A stolen session can neither make an owner nor believe a further provider nor cut every client off."""
    admin = member(acme.owner.org, Role.ADMIN)
    with org_scope(acme.id):
        pk = Membership.objects.get(user=admin.user).pk
        Organization.objects.update(mfa_required=True)
    assert acme.owner.user is not None
    TOTP.activate(acme.owner.user, generate_totp_secret())
    stolen = acme.person()
    stolen.confirm(at=time.time() - 400)
    query = f"?organization_id={acme.id}"
    provider = {"name": "x", "kind": "oidc", "issuer": "https://id.example.com", "audience": "x"}
    for method, path, body in (
        ("PATCH", f"/v2/members/{pk}{query}", {"role": "owner"}),
        ("POST", f"/v2/invitations{query}", {"email": "eve@example.com", "role": "owner"}),
        ("POST", f"/v2/identity-providers{query}", provider),
        ("POST", f"/v2/credentials/revoke{query}", {"everything": True}),
        ("PATCH", f"/v2/organizations/{acme.id}", {"mfa_required": False}),
        ("POST", f"/v2/api-keys{query}", {"kind": "sk", "name": "x"}),
    ):
        assert stolen(method, path, body).code == "reauthentication_required", path
    assert stolen.patch(f"/v2/members/{pk}{query}", {"role": "developer"}).status == 200


@pytest.mark.parametrize(
    "odd", [{"email_verified": []}, {"email_verified": {"a": 1}}, {"exp": -99_999_999_999}, {"exp": -(10**18)}], ids=str
)
def test_a_token_that_anybody_can_make_up_never_breaks_the_exchange(odd: dict[str, object], acme: World) -> None:
    """The claims are read before the signature is known to be wrong: "try a token" tells of all of them."""
    wanted = Wanted(name="login", kind="oidc", issuer="https://id.example.com", audience="x", secret="s" * 32)
    add_provider(acme.owner, wanted)
    claims = {"iss": wanted.issuer, "aud": "x", "sub": "eve", "email": "eve@example.com", "exp": 1, **odd}
    token = jwt.encode(claims, "e" * 32, "HS256")
    answer = Caller().post("/v2/tokens/exchange", {"organization_id": acme.id, "token": token})
    assert (answer.status, answer.code) == (401, "unauthorized")


def test_letters_that_only_look_alike_name_different_users(acme: World) -> None:
    """Full case folding makes one of "stra\u00dfe" and "strasse", and of the long s and s."""
    program = acme.caller()

    def user(email: str) -> str:
        answer = program.post("/v2/tokens/create", {"user_email": email})
        assert answer.status == 200, answer.text
        return str(answer.body["mqtt_credentials"]["username"])

    addresses = ("stra\u00dfe@example.com", "strasse@example.com", "\u017fam@example.com", "sam@example.com")
    assert len({user(address) for address in addresses}) == 4
    assert user("Strasse@Example.com") == user("strasse@example.com")
    assert user("\u00df" * 240 + "@example.com")
    made = issue_credential(acme.owner, external=External("login", "user-1", "\u0131da@example.com"))
    add_provider(acme.owner, Wanted("login", "oidc", "https://id.example.com", "x", secret="s" * 32))
    asked = {"user_email": "ida@example.com", "integration_id": "login"}
    assert program.post("/v2/tokens/create", asked).body["mqtt_credentials"]["username"] != made.username


def test_claims_that_come_bit_by_bit_are_bounded_too(acme: World) -> None:
    """Every edge holds the record of every user that is connected to it."""
    program = acme.caller()
    for start in (0, 50):
        claims = {f"c{number}": 1 for number in range(start, start + 50)}
        answer = program.post("/v2/tokens/create", {"user_email": "ada@example.com", "claims": claims})
        assert (answer.status, answer.code) == ((200, "None") if start == 0 else (400, "invalid_request"))
    with org_scope(acme.id):
        assert len(MqttIdentity.objects.get().claims) == 50


@pytest.mark.parametrize("cursor", ["\u00b2-1", "1-\u00b2", "\u0661-\u0661x", "-", "9" * 17 + "-" + "9" * 18])
def test_cursors_made_by_hand_are_refused(cursor: str, acme: World) -> None:
    answer = acme.caller().get(f"/v2/credentials?cursor={quote(cursor)}")
    assert answer.status in {200, 422}
    page = acme.person().client.get(f"/o/{acme.id}/credentials/ending/", {"cursor": cursor})
    assert page.status_code in {200, 422}


def test_a_wrong_host_is_a_bad_request_and_json_where_json_was_promised(acme: World) -> None:
    client = Client(headers={"Host": "evil.example"}, raise_request_exception=False)
    assert client.get("/accounts/login/").status_code == 400
    answer = client.post("/v2/tokens/create", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert client.get("/v2/organizations").json()["code"] == "bad_request"


def test_browsers_are_told_in_json_that_the_database_is_away(acme: World) -> None:
    def away(*_: object) -> None:
        raise OperationalError("away")

    with connection.execute_wrapper(away):
        answer = Caller().get(f"/v2/providers?organization_id={acme.id}", Origin="https://app.example.com")
    assert (answer.status, answer.code) == (503, "temporarily_unavailable")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_refused_change_of_settings_changes_nothing(acme: World) -> None:
    change = {"allowed_origins": ["https://app.example.com"], "name": "evil\u202ename"}
    assert acme.person().patch(f"/v2/organizations/{acme.id}", change).code == "name_unreadable"
    assert present(acme.owner).allowed_origins == []


def test_a_key_that_stands_in_web_pages_tells_what_is_public_and_no_more(acme: World) -> None:
    visitor = acme.caller("pk")
    assert visitor.get("/v2/organizations").status == 403
    assert acme.caller("rk", "org.read").get("/v2/organizations").body["data"][0]["id"] == acme.id
    assert visitor.get("/v2/me").body["organization"] == "Acme"


def test_no_operation_is_without_a_limit(acme: World, settings: Settings) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": "1/60"}
    for path in ("/v2/me", "/v2/organizations"):
        program = acme.caller()
        assert [program.get(path).status for _ in range(2)] == [200, 429], path


def test_a_network_of_many_addresses_is_counted_as_one(acme: World, settings: Settings) -> None:
    settings.RATE_LIMITS = {
        **settings.RATE_LIMITS, "wrong_keys": "2/60", "tokens_of_address": "2/60", "public": "2/60",
    }  # fmt: skip
    code = {"code": "x", "code_verifier": "x", "redirect_uri": "x"}
    for key, method, path, body in (
        ("sk_wrong", "GET", "/v2/me", None),
        ("", "GET", f"/v2/providers?organization_id={acme.id}", None),
        ("", "POST", "/v2/command-line/login", code),
    ):
        callers = [Caller(key, client=Client(REMOTE_ADDR=f"2001:db8::{number}")) for number in range(3)]
        assert [caller(method, path, body).status for caller in callers][2] == 429, path
        elsewhere = Caller(key, client=Client(REMOTE_ADDR="2001:db8:1::1"))
        assert elsewhere(method, path, body).status != 429, path


def test_who_is_there_for_a_while_does_not_stay_by_their_own_word(acme: World) -> None:
    admin = member(acme.owner.org, Role.ADMIN)
    ends = datetime.now(UTC) + timedelta(days=1)
    with org_scope(acme.id):
        Membership.objects.filter(user=admin.user).update(ends_at=ends)
        pk = Membership.objects.get(user=admin.user).pk
    with pytest.raises(Conflict):
        members.change_member(admin, pk, ends_at=None, keep_end=False)
    with pytest.raises(Conflict):
        members.change_member(admin, pk, ends_at=ends + timedelta(days=400), keep_end=False)
    with org_scope(acme.id):
        assert Membership.objects.get(pk=pk).ends_at == ends


def test_a_key_that_is_rotated_twice_has_one_successor_that_lives_as_long(acme: World) -> None:
    """A second click would make one more, which ends with the overlap: what a key that is on its way out has left."""
    old = keys.create_api_key(acme.owner, kind="pk", name="web").key
    successor = keys.rotate_api_key(acme.owner, old.pk).key
    with pytest.raises(Conflict) as refused:
        keys.rotate_api_key(acme.owner, old.pk)
    assert refused.value.code == "rotated_already"
    assert successor.expires_at is None
    assert keys.rotate_api_key(acme.owner, successor.pk).key.expires_at is None


def test_an_operator_who_is_a_member_somewhere_is_an_operator_there_too(acme: World, operator: Caller) -> None:
    """An organization that asks its members for a second factor must not keep an operator from suspending it."""
    with org_scope(acme.id):
        Membership.objects.create(org=acme.owner.org, user=operator.user, role=Role.ADMIN)
        Organization.objects.update(mfa_required=True)
    assert operator.patch(f"/v2/organizations/{acme.id}/quotas", {"connections": 5}).status == 200
    page = operator.client.post(f"/operator/organizations/{acme.id}/suspend/", {"reason": "abuse"})
    assert page.status_code == 302
    assert present(acme.owner).status == "suspended"
    assert operator.patch(f"/v2/organizations/{acme.id}", {"name": "Mine"}).status == 403

"""Identity providers: what a forged, stale or misdirected token is told, and keys that rotate, hang and lie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from pytest_django.fixtures import Settings

from audit.models import Event
from cloudsignal import fetch
from cloudsignal.errors import Conflict, Forbidden, Invalid, NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.credentials.identities import get_identity
from orgs.credentials.issuing import revoke_identity
from orgs.models import IdentityProvider
from orgs.permissions import Role
from orgs.providers import jwks
from orgs.providers.id_tokens import judge
from orgs.providers.providers import Wanted, add_provider, change_provider, remove_provider, try_token
from tests.support.calling import Caller, World
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.world import member

SECRET = "0123456789abcdef0123456789abcdef-shared"


@pytest.fixture
def provider(acme: World, issuer: Issuer) -> IdentityProvider:
    """A generic OIDC provider: keys discovered from the issuer."""
    return add_provider(acme.owner, Wanted("login", "oidc", issuer.url, AUDIENCE))


def b64(data: bytes) -> str:
    """Base64 without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no honest library would make."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def failed(provider: IdentityProvider, token: str) -> str:
    """The first check that fails; empty when the token is fine."""
    verdict = judge(provider, token)
    return verdict.failed.name if verdict.failed else ""


def test_an_honest_token_passes_every_check(provider: IdentityProvider, issuer: Issuer) -> None:
    verdict = judge(provider, issuer.token())
    assert verdict.failed is None
    assert verdict.subject is not None
    assert (verdict.subject.external_id, verdict.subject.email) == ("user-1", "ada@example.com")


def test_each_wrong_claim_is_named(provider: IdentityProvider, issuer: Issuer) -> None:
    now = int(time.time())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"exp": now - 61}, "expiry"), ({"exp": None}, "expiry"), ({"exp": "soon"}, "expiry"),
        ({"nbf": now + 90}, "start"), ({"iat": now + 90}, "start"),
        ({"iss": "https://evil.example"}, "issuer"), ({"iss": None}, "issuer"),
        ({"aud": "others"}, "audience"), ({"aud": None}, "audience"), ({"aud": []}, "audience"),
        ({"sub": None}, "subject"), ({"sub": ""}, "subject"), ({"sub": 7}, "subject"), ({"sub": "x" * 256}, "subject"),
        ({"email": None}, "email"), ({"email": "nobody"}, "email"), ({"email_verified": False}, "email"),
    ]  # fmt: skip
    for change, name in cases:
        token = (
            issuer.token(**change)
            if not isinstance(change.get("sub"), int)
            else forge({"alg": "RS256", "kid": "one"}, issuer.claims(**change), lambda data: _rs256(issuer, data))
        )
        assert failed(provider, token) == name, change


def _rs256(issuer: Issuer, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return bytes(issuer.keys["one"].sign(data, PKCS1v15(), SHA256()))


def test_a_clock_that_is_a_little_off_is_forgiven(provider: IdentityProvider, issuer: Issuer) -> None:
    now = int(time.time())
    assert failed(provider, issuer.token(exp=now - 30)) == ""
    assert failed(provider, issuer.token(nbf=now + 30, iat=now + 30)) == ""


def test_alg_none_is_refused(provider: IdentityProvider, issuer: Issuer) -> None:
    for name in ("none", "None", "NONE", ""):
        assert failed(provider, forge({"alg": name}, issuer.claims(), lambda _: b"")) in {"algorithm", "format"}


def test_a_public_key_is_never_taken_for_a_shared_secret(provider: IdentityProvider, issuer: Issuer) -> None:
    pem = issuer.public_pem("one")
    token = forge({"alg": "HS256", "kid": "one"}, issuer.claims(), lambda data: hmac.digest(pem, data, hashlib.sha256))
    assert failed(provider, token) == "algorithm"


def test_an_algorithm_the_provider_is_not_pinned_to_is_refused(acme: World, issuer: Issuer) -> None:
    pinned = add_provider(acme.owner, Wanted("p", "oidc", issuer.url, AUDIENCE, algorithms=["ES256"]))
    assert failed(pinned, issuer.token()) == "algorithm"
    issuer.add_ec("two")
    assert failed(pinned, issuer.token("two")) == ""


def test_a_changed_token_does_not_verify(provider: IdentityProvider, issuer: Issuer) -> None:
    head, _, signature = issuer.token().split(".")
    body = b64(json.dumps(issuer.claims(sub="somebody-else")).encode())
    assert failed(provider, f"{head}.{body}.{signature}") == "signature"


def test_a_key_brought_along_in_the_header_counts_for_nothing(provider: IdentityProvider, issuer: Issuer) -> None:
    with_key = issuer.token(header={"jwk": issuer.jwks()["keys"][0], "jku": "https://evil.example/keys"})
    assert failed(provider, with_key) == ""
    other = Issuer(port=issuer.port)
    other.add_rsa("one")
    forged = other.token(header={"jwk": other.jwks()["keys"][0], "jku": "https://evil.example/keys"})
    assert failed(provider, forged) == "signature"


def test_garbage_is_named_as_such(provider: IdentityProvider) -> None:
    for token in ("", "x", "a.b.c", "..", "\u00e9.\u00e9.\u00e9", "a" * 20_000, "e30.e30.", ".".join(["e30"] * 5)):
        assert failed(provider, token) in {"format", "algorithm"}, token[:20]


def test_keys_are_fetched_once_and_a_new_one_is_looked_up_at_once(provider: IdentityProvider, issuer: Issuer) -> None:
    assert failed(provider, issuer.token()) == ""
    assert failed(provider, issuer.token()) == ""
    assert issuer.asked == 2  # the configuration and the keys
    issuer.add_rsa("two")
    assert failed(provider, issuer.token("two")) == ""
    assert issuer.asked == 3
    assert failed(provider, issuer.token()) == ""
    assert issuer.asked == 3


def test_a_key_that_was_replaced_under_its_id_is_found_when_a_signature_fails(
    provider: IdentityProvider, issuer: Issuer
) -> None:
    former = issuer.token()
    assert failed(provider, former) == ""
    issuer.add_rsa("one")
    assert failed(provider, issuer.token()) == ""
    assert issuer.asked == 3
    assert failed(provider, issuer.token()) == ""
    assert issuer.asked == 3
    assert failed(provider, former) == "signature"


def test_invented_keys_and_signatures_ask_a_provider_a_few_times_only(
    provider: IdentityProvider, issuer: Issuer
) -> None:
    assert failed(provider, issuer.token()) == ""
    token = issuer.token()
    for number in range(20):
        assert failed(provider, issuer.token(header={"kid": f"invented-{number}"})) == "key"
        assert failed(provider, f"{token[:-20]}{number:08d}{token[-12:]}") == "signature"
    assert issuer.asked == 1 + jwks.LOOKS  # the configuration, and what is looked at most at once
    assert failed(provider, issuer.token()) == ""
    issuer.add_rsa("two")
    assert failed(provider, issuer.token("two")) == "key"
    jwks._sources[f"{issuer.url}/keys"].owed -= jwks.LOOK_EVERY  # so much later
    assert failed(provider, issuer.token("two")) == ""


def test_a_token_without_a_key_id_works_while_there_is_one_key(provider: IdentityProvider, issuer: Issuer) -> None:
    nameless = forge({"alg": "RS256"}, issuer.claims(), lambda data: _rs256(issuer, data))
    assert failed(provider, nameless) == ""
    issuer.add_rsa("two")
    jwks.forget()
    assert failed(provider, nameless) == "key"


@pytest.mark.parametrize("mode", ["html", "huge", "down", "redirect", "secret", "empty"])
def test_a_provider_that_lies_is_not_believed(provider: IdentityProvider, issuer: Issuer, mode: str) -> None:
    issuer.mode = mode
    assert failed(provider, issuer.token()) == "key"


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_provider_that_hangs_costs_a_bounded_time(
    provider: IdentityProvider, issuer: Issuer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudsignal.fetch.SECONDS", 0.7)
    issuer.mode = mode
    verdict = judge(provider, issuer.token())
    assert verdict.failed is not None
    assert "within" in verdict.failed.detail
    assert failed(provider, issuer.token()) == "key"  # not asked again at once


def test_known_keys_go_on_working_while_the_provider_is_away(
    provider: IdentityProvider, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failed(provider, issuer.token()) == ""
    issuer.mode = "down"
    monkeypatch.setattr(jwks, "FRESH_SECONDS", 10_000.0)
    monkeypatch.setattr(jwks, "AGAIN_SECONDS", 0.0)
    issuer.add_rsa("two")
    assert failed(provider, issuer.token("two")) == "key"
    assert failed(provider, issuer.token()) == ""


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_a_short_key_is_refused(provider: IdentityProvider, issuer: Issuer) -> None:
    issuer.keys.clear()
    issuer.add_rsa("one", bits=1024)
    assert failed(provider, issuer.token()) == "key"


def test_private_addresses_are_not_fetched_from(acme: World, issuer: Issuer, settings: Settings) -> None:
    provider = add_provider(acme.owner, Wanted("login", "oidc", issuer.url, AUDIENCE))
    settings.PROVIDER_NETWORKS = ""
    assert failed(provider, issuer.token()) == "key"
    assert issuer.asked == 0
    provider.issuer = provider.jwks_url = f"https://localhost:{issuer.port}"
    verdict = judge(provider, issuer.token(iss=provider.issuer))
    assert verdict.failed is not None
    assert "private address" in verdict.failed.detail
    assert issuer.asked == 0


def test_a_shared_secret_is_kept_encrypted_and_verifies(acme: World, issuer: Issuer) -> None:
    provider = add_provider(acme.owner, Wanted("legacy", "supabase", issuer.url, AUDIENCE, secret=SECRET))
    assert provider.secret is not None
    assert SECRET.encode() not in bytes(provider.secret)
    key = SECRET.encode()
    good = forge({"alg": "HS256"}, issuer.claims(), lambda data: hmac.digest(key, data, hashlib.sha256))
    bad = forge({"alg": "HS256"}, issuer.claims(), lambda data: hmac.digest(b"x" * 32, data, hashlib.sha256))
    assert (failed(provider, good), failed(provider, bad)) == ("", "signature")
    assert failed(provider, issuer.token()) == "algorithm"
    with org_scope(acme.id):
        assert SECRET not in str(list(Event.objects.values("before", "after")))


def test_a_sealed_secret_opens_for_its_own_provider_only(acme: World, issuer: Issuer) -> None:
    first = add_provider(acme.owner, Wanted("one", "supabase", issuer.url, AUDIENCE, secret=SECRET))
    second = add_provider(acme.owner, Wanted("two", "supabase", issuer.url, AUDIENCE, secret="y" * 40))
    second.secret = first.secret
    key = SECRET.encode()
    token = forge({"alg": "HS256"}, issuer.claims(), lambda data: hmac.digest(key, data, hashlib.sha256))
    assert failed(second, token) == "key"


def test_clerk_tokens_name_their_audience_as_azp(acme: World, issuer: Issuer) -> None:
    clerk = add_provider(
        acme.owner, Wanted("clerk", "clerk", issuer.url, "https://app.example.com", jwks_url=f"{issuer.url}/keys")
    )
    assert failed(clerk, issuer.token(aud=None, azp="https://app.example.com")) == ""
    assert failed(clerk, issuer.token(aud=None, azp="https://evil.example")) == "audience"


def test_providers_are_managed_with_an_audit_trail(acme: World, issuer: Issuer) -> None:
    made = add_provider(acme.owner, Wanted("login", "oidc", issuer.url, AUDIENCE))
    change_provider(acme.owner, made.pk, Wanted("login", "oidc", issuer.url, "other"))
    remove_provider(acme.owner, made.pk)
    with org_scope(acme.id):
        rows = list(Event.objects.filter(kind="provider.changed").order_by("ts").values_list("before", "after"))
    assert [(bool(before), bool(after)) for before, after in rows] == [(False, True), (True, True), (True, False)]
    with pytest.raises(NotFound):
        try_token(acme.owner, made.pk, "x")


def test_wrong_providers_are_refused_by_field(acme: World, issuer: Issuer) -> None:
    good = {"name": "login", "kind": "oidc", "issuer": issuer.url, "audience": AUDIENCE}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "No!"}, "name"), ({"name": "email"}, "name"), ({"kind": "ldap"}, "kind"),
        ({"issuer": "http://example.com"}, "issuer"), ({"issuer": "file:///etc/passwd"}, "issuer"),
        ({"issuer": "https://user:pw@example.com"}, "issuer"), ({"audience": " "}, "audience"),
        ({"jwks_url": "ftp://example.com/keys"}, "jwks_url"), ({"secret": "short"}, "secret"),
        ({"secret": SECRET, "jwks_url": "https://example.com"}, "secret"),
        ({"algorithms": ["HS256"]}, "algorithms"), ({"algorithms": ["none"]}, "algorithms"),
        ({"secret": SECRET, "algorithms": ["RS256"]}, "algorithms"),
    ]  # fmt: skip
    for change, name in cases:
        with pytest.raises(Invalid) as refused:
            add_provider(acme.owner, Wanted(**{**good, **change}))
        assert refused.value.field == name, change
    add_provider(acme.owner, Wanted(**good))
    with pytest.raises(Conflict):
        add_provider(acme.owner, Wanted(**good))
    with pytest.raises(Forbidden):
        add_provider(member(acme.owner.org, Role.DEVELOPER), Wanted(**{**good, "name": "other"}))


def test_a_revoked_user_does_not_come_back_by_signing_in_again(
    acme: World, issuer: Issuer, provider: IdentityProvider, nobody: Caller
) -> None:
    body = {"organization_id": acme.id, "token": issuer.token()}
    first = nobody.post("/v2/tokens/exchange", body).body
    local = first["mqtt_credentials"]["username"].partition("@")[0]
    assert get_identity(acme.owner, local).provider == provider.name
    revoke_identity(acme.owner, local)
    again = nobody.post("/v2/tokens/exchange", body)
    assert (again.status, again.code) == (401, "unauthorized")


def test_trying_a_token_explains_and_issues_nothing(acme: World, issuer: Issuer, provider: IdentityProvider) -> None:
    verdict = try_token(acme.owner, provider.pk, issuer.token(aud="others", email=None))
    found = {check.name: check for check in verdict.checks}
    assert [name for name, check in found.items() if not check.passed] == ["audience", "email"]
    assert "others" in found["audience"].detail
    with org_scope(acme.id):
        assert not Event.objects.filter(kind="credential.issued").exists()


def test_of_two_providers_with_one_issuer_the_one_is_meant_whose_audience_it_is(acme: World, nobody: Caller) -> None:
    """Two applications of one tenant at Auth0, say."""
    for name in ("first", "second"):
        add_provider(acme.owner, Wanted(name, "oidc", "https://id.example.com", name, secret=SECRET))
    claims = {"iss": "https://id.example.com", "sub": "user-1", "email": "ada@example.com", "exp": time.time() + 300}
    for name in ("first", "second"):
        token = jwt.encode({**claims, "aud": name}, SECRET, "HS256")
        answer = nobody.post("/v2/tokens/exchange", {"organization_id": acme.id, "token": token})
        assert (answer.status, answer.body.get("provider")) == (200, name), answer.text
    token = jwt.encode({**claims, "aud": "third"}, SECRET, "HS256")
    assert nobody.post("/v2/tokens/exchange", {"organization_id": acme.id, "token": token}).code == "unauthorized"


def test_a_kind_names_all_of_it_and_the_issuer_chooses(acme: World, nobody: Caller, issuer: Issuer) -> None:
    other = "https://elsewhere.example.com"
    for name, url in (("first", issuer.url), ("second", other)):
        add_provider(acme.owner, Wanted(name, "oidc", url, AUDIENCE, secret=SECRET))
    for url, name in ((issuer.url, "first"), (other, "second")):
        token = jwt.encode(issuer.claims(iss=url), SECRET, "HS256")
        answer = nobody.post("/v2/tokens/exchange", {"organization_id": acme.id, "token": token, "provider": "oidc"})
        assert (answer.status, answer.body.get("provider")) == (200, name), answer.text
    refused = nobody.post("/v2/tokens/exchange", {"organization_id": acme.id, "token": token, "provider": "auth0"})
    assert (refused.status, refused.code) == (404, "provider_not_found")


def test_providers_that_hang_leave_threads_for_everybody_else(
    acme: World, issuer: Issuer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can make an organization and a provider: a dozen requests must not be all that the web serves."""
    assert failed(provider, issuer.token()) == ""
    issuer.mode = "hang"
    monkeypatch.setattr(fetch, "SECONDS", 30.0)
    url, others = f"{issuer.url}/keys", fetch.SLOTS + 4
    with ThreadPoolExecutor(others) as pool:
        asked = [
            pool.submit(jwks.find_key, f"{url}?{number % 2}", kid="x", algorithm="RS256") for number in range(others)
        ]
        while sum(one.done() for one in asked) < 4:
            time.sleep(0.01)
        assert sum(one.done() for one in asked) == 4
        # Keys that are known go on being believed, also when it is time to ask for them again.
        jwks._sources[url].fetched_at -= jwks.FRESH_SECONDS
        assert failed(provider, issuer.token()) == ""
        issuer.stopped.set()
    said = [str(one.exception()) for one in asked]
    assert sum("try again in a moment" in text for text in said) == 4

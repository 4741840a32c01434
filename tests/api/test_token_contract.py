"""The token service as CONTRACTS.md promises it, by a client that knows nothing else: httpx, and no project code.

Only the fixtures (an organization, its keys, a provider) come from the project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.support.calling import World
    from tests.support.issuer import Issuer

FIELDS = {
    "access_token", "token_type", "expires_in", "mqtt_credentials", "token_id", "user_email", "provider",
    "expires_at", "refresh_recommended_at",
}  # fmt: skip
TOKEN = re.compile(r"tkn_[0-9A-Za-z]{22,}\Z")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)\Z")


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A client of the running application, over WSGI."""
    from django.core.wsgi import get_wsgi_application

    transport = httpx.WSGITransport(app=get_wsgi_application())
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        yield client


def at(text: str) -> datetime:
    """An ISO 8601 time, which must be UTC."""
    assert UTC_TIME.match(text), text
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def check_token(answer: httpx.Response, org: str, *, ttl: int = 3600) -> dict[str, Any]:
    """An answer that issues a token, field by field."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = answer.json()
    assert body.keys() == FIELDS
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == ttl
    assert TOKEN.match(body["access_token"])
    assert body["mqtt_credentials"] == {
        "username": body["mqtt_credentials"]["username"], "password": body["access_token"],
    }  # fmt: skip
    assert re.fullmatch(rf"[a-z0-9][a-z0-9_-]{{0,62}}@{org}", body["mqtt_credentials"]["username"])
    expires, refresh = at(body["expires_at"]), at(body["refresh_recommended_at"])
    left = (expires - datetime.now(UTC)).total_seconds()
    assert ttl - 45 <= left <= ttl + 1
    assert abs((expires - refresh).total_seconds() - ttl * 0.1) <= 1
    return body


def check_error(answer: httpx.Response, status: int, code: str) -> None:
    """An answer that refuses."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body.keys() == {"error", "error_description"}
    assert body["error"] == code, body
    assert body["error_description"]
    if status == 429:
        assert int(answer.headers["retry-after"]) >= 1


def create(http: httpx.Client, org: str, key: str | None, **more: Any) -> httpx.Response:
    """POST /v2/tokens/create."""
    body = {"organization_id": org, "secret_key": key, "user_email": "ada@example.com", **more}
    body = {name: value for name, value in body.items() if value is not None}
    return http.post("/v2/tokens/create", json=body)


def refresh(http: httpx.Client, issued: dict[str, Any]) -> httpx.Response:
    """POST /v2/tokens/refresh."""
    proof = {"token_id": issued["token_id"], "current_token_password": issued["access_token"]}
    return http.post("/v2/tokens/refresh", json=proof)


def test_create_by_secret_key_in_the_body_or_as_bearer(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    first = check_token(create(http, acme.id, key), acme.id)
    assert first["user_email"] == "ada@example.com"
    bearer = http.post(
        "/v2/tokens/create",
        json={"organization_id": acme.id, "user_email": "bob@example.com"},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert check_token(bearer, acme.id)["user_email"] == "bob@example.com"


def test_ttl_bounds_and_default(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    for ttl in (60, 86_400):
        check_token(create(http, acme.id, key, ttl=ttl), acme.id, ttl=ttl)
    for wrong in (59, 86_401, 0, -1, "3600", 3600.5, True, [], 10**30):
        check_error(create(http, acme.id, key, ttl=wrong), 400, "invalid_request")


def test_a_wrong_type_is_named_and_never_bent_into_shape(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    for change in (
        {"replace_existing": "yes"}, {"replace_existing": 1}, {"replace_existing": None}, {"organization_id": 7},
        {"organization_id": True}, {"integration_id": 7}, {"integration_id": False}, {"user_email": 7},
        {"secret_key": 7}, {"ttl": "60"}, {"ttl": True}, {"claims": []}, {"claims": "x"},
    ):  # fmt: skip
        body = {"organization_id": acme.id, "secret_key": key, "user_email": "ada@example.com", **change}
        answer = http.post("/v2/tokens/create", json=body)
        check_error(answer, 400, "invalid_request")
        assert next(iter(change)) in answer.json()["error_description"], answer.text
    for path, body in (
        ("exchange", {"organization_id": 7, "token": "a.b.c"}),
        ("exchange", {"organization_id": acme.id, "token": True}),
        ("exchange", {"organization_id": acme.id, "token": "a.b.c", "provider": 7}),
        ("exchange", {"organization_id": acme.id, "token": "a.b.c", "provider": "one", "integration_id": "two"}),
        ("refresh", {"token_id": 7, "current_token_password": "x"}),
        ("refresh", {"token_id": "tok_x", "current_token_password": False}),
    ):
        check_error(http.post(f"/v2/tokens/{path}", json=body), 400, "invalid_request")


def test_the_same_user_keeps_username_and_claims(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    first = create(http, acme.id, key, claims={"team": "red"}).json()
    again = create(http, acme.id, key, user_email="ADA@example.com").json()
    other = create(http, acme.id, key, user_email="bob@example.com").json()
    assert again["mqtt_credentials"]["username"] == first["mqtt_credentials"]["username"]
    assert again["token_id"] != first["token_id"]
    assert again["access_token"] != first["access_token"]
    assert other["mqtt_credentials"]["username"] != first["mqtt_credentials"]["username"]
    local = first["mqtt_credentials"]["username"].partition("@")[0]
    patched = http.patch(f"/v2/users/{local}/claims", json={}, headers={"Authorization": f"Bearer {key}"})
    assert patched.json()["claims"] == {"team": "red"}


def test_replace_existing_leaves_the_tokens_of_other_instances_alone(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    issued = [check_token(create(http, acme.id, key, replace_existing=True), acme.id) for _ in range(3)]
    assert len({one["mqtt_credentials"]["username"] for one in issued}) == 1
    for one in issued:
        answer = refresh(http, one)
        check_token(answer, acme.id)


def test_a_user_who_exchanges_or_is_created_on_every_page_is_never_refused_for_it(
    http: httpx.Client, acme: World
) -> None:
    key = acme.key()
    issued = [check_token(create(http, acme.id, key), acme.id) for _ in range(22)]
    check_token(refresh(http, issued[0]), acme.id)
    check_token(refresh(http, issued[-1]), acme.id)


def test_claims_of_a_create_never_change_what_was_assigned(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    first = create(http, acme.id, key, claims={"team": "red"}).json()
    local = first["mqtt_credentials"]["username"].partition("@")[0]
    bearer = {"Authorization": f"Bearer {key}"}
    http.patch(f"/v2/users/{local}/claims", json={"role": "viewer"}, headers=bearer)
    check_token(create(http, acme.id, key, claims={"team": "blue", "role": "root", "line": 4}), acme.id)
    found = http.patch(f"/v2/users/{local}/claims", json={}, headers=bearer).json()["claims"]
    assert found == {"team": "red", "role": "viewer", "line": 4}


def test_create_refusals(http: httpx.Client, acme: World, rival: World) -> None:
    key = acme.key()
    check_error(create(http, acme.id, "sk_wrong"), 401, "unauthorized")
    check_error(create(http, acme.id, None), 401, "unauthorized")
    check_error(create(http, acme.id, rival.key()), 401, "unauthorized")
    check_error(create(http, acme.id, acme.key("pk")), 401, "unauthorized")
    check_error(create(http, "org_aaaaaaaaaaaa", key), 404, "org_not_found")
    check_error(create(http, "nonsense", key), 404, "org_not_found")
    check_error(create(http, acme.id, key, integration_id="nobody"), 404, "provider_not_found")
    check_error(create(http, acme.id, key, user_email=None), 400, "invalid_request")
    check_error(create(http, acme.id, key, user_email="not an address"), 400, "invalid_request")
    check_error(create(http, acme.id, key, user_email="a@b\u0000"), 400, "invalid_request")
    check_error(create(http, acme.id, key, claims={"x": {"y": 1}}), 400, "invalid_request")
    check_error(create(http, acme.id, key, claims=[]), 400, "invalid_request")
    check_error(create(http, acme.id, key, replace_existing="perhaps"), 400, "invalid_request")


def test_a_unicode_address_is_a_user_like_any_other(http: httpx.Client, acme: World) -> None:
    key = acme.key()
    made = check_token(create(http, acme.id, key, user_email="jos\u00e9@b\u00fccher.example"), acme.id)
    same = create(http, acme.id, key, user_email="jose\u0301@b\u00fccher.example").json()
    assert made["user_email"] == "jos\u00e9@b\u00fccher.example"
    assert same["mqtt_credentials"]["username"] == made["mqtt_credentials"]["username"]


def test_unreadable_bodies(http: httpx.Client, acme: World) -> None:
    for path in ("create", "exchange", "refresh"):
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{" * 9999, b'{"a": NaN}', b" " * 5_000_000):
            answer = http.post(f"/v2/tokens/{path}", content=body, headers={"Content-Type": "application/json"})
            check_error(answer, 400, "invalid_request")


def test_everything_else_is_json_too(http: httpx.Client, acme: World) -> None:
    assert http.post("/v2/tokens/create", content=b"a=b").json()["error"] == "invalid_request"
    assert http.get("/v2/tokens/create").json()["error"] == "method_not_allowed"
    assert http.post("/v2/tokens/nothing").json().keys() == {"error", "error_description"}


def test_refresh_gives_a_new_password_and_leaves_the_old_one(http: httpx.Client, acme: World) -> None:
    first = create(http, acme.id, acme.key(), ttl=600).json()
    proof = {"token_id": first["token_id"], "current_token_password": first["access_token"]}
    second = check_token(http.post("/v2/tokens/refresh", json=proof), acme.id, ttl=600)
    assert second["mqtt_credentials"]["username"] == first["mqtt_credentials"]["username"]
    assert second["access_token"] != first["access_token"]
    assert second["user_email"] == first["user_email"]
    again = check_token(http.post("/v2/tokens/refresh", json=proof), acme.id, ttl=600)
    assert again["access_token"] not in {first["access_token"], second["access_token"]}


def test_refresh_refusals(http: httpx.Client, acme: World, rival: World) -> None:
    first = create(http, acme.id, acme.key()).json()
    theirs = create(http, rival.id, rival.key()).json()

    def refresh(token_id: Any, password: Any) -> httpx.Response:
        body = {"token_id": token_id, "current_token_password": password}
        return http.post("/v2/tokens/refresh", json=body)

    check_error(refresh(first["token_id"], "tkn_wrong"), 401, "unauthorized")
    check_error(refresh(first["token_id"], theirs["access_token"]), 401, "unauthorized")
    check_error(refresh("tok_nonsense", first["access_token"]), 401, "unauthorized")
    check_error(refresh("tok_aaaaaaaaaaaa_aaaaaaaaaaaaaaaa", first["access_token"]), 404, "org_not_found")
    check_error(refresh(7, first["access_token"]), 400, "invalid_request")
    check_error(refresh(first["token_id"], None), 400, "invalid_request")
    check_error(http.post("/v2/tokens/refresh", json={}), 400, "invalid_request")


def test_an_expired_token_cannot_be_refreshed(http: httpx.Client, acme: World, expire: Callable[[str], None]) -> None:
    first = create(http, acme.id, acme.key()).json()
    password = expire(first["token_id"])
    body = {"token_id": first["token_id"], "current_token_password": password}
    check_error(http.post("/v2/tokens/refresh", json=body), 401, "token_expired")


@pytest.fixture
def expire(acme: World) -> Callable[[str], str]:
    """Make a token one that has expired, as if an hour had passed; returns its password."""
    from datetime import timedelta

    from cloudsignal.secrets.keyring import pepper
    from cloudsignal.tenancy.scopes import org_scope
    from cloudsignal.wire.credential import secret_mac
    from orgs.models import Credential

    def change(token_id: str) -> str:
        with org_scope(acme.id):
            found = Credential.objects.select_related("identity").get(token_id=token_id)
            found.expires_at = datetime.now(UTC) - timedelta(seconds=5)
            found.mac = secret_mac(
                pepper(), org=acme.id, username=found.identity.username, secret="tkn_known",
                expires_at=int(found.expires_at.timestamp()),
            )  # fmt: skip
            found.save()
        return "tkn_known"

    return change


def test_revoke(http: httpx.Client, acme: World, rival: World) -> None:
    key = acme.key()
    first = create(http, acme.id, key).json()
    body = {"token_id": first["token_id"]}
    check_error(http.post("/v2/tokens/revoke", json=body), 401, "unauthorized")
    for wrong in (rival.key(),):
        answer = http.post("/v2/tokens/revoke", json=body, headers={"Authorization": f"Bearer {wrong}"})
        check_error(answer, 400, "invalid_request")
    bearer = {"Authorization": f"Bearer {key}"}
    done = http.post("/v2/tokens/revoke", json=body, headers=bearer)
    assert done.status_code == 200
    assert done.json()["token_id"] == first["token_id"]
    assert http.post("/v2/tokens/revoke", json=body, headers=bearer).status_code == 200
    proof = {"token_id": first["token_id"], "current_token_password": first["access_token"]}
    check_error(http.post("/v2/tokens/refresh", json=proof), 401, "unauthorized")
    check_error(http.post("/v2/tokens/revoke", json={}, headers=bearer), 400, "invalid_request")


def test_claims_merge_and_go(http: httpx.Client, acme: World, rival: World) -> None:
    key = acme.key()
    bearer = {"Authorization": f"Bearer {key}"}
    local = create(http, acme.id, key).json()["mqtt_credentials"]["username"].partition("@")[0]
    url = f"/v2/users/{local}/claims"
    assert http.patch(url, json={"team": "red", "level": 3}, headers=bearer).json()["claims"] == {
        "team": "red", "level": 3,
    }  # fmt: skip
    assert http.patch(url, json={"claims": {"team": "blue"}}, headers=bearer).json()["claims"] == {
        "team": "blue", "level": 3,
    }  # fmt: skip
    assert http.delete(f"{url}/team", headers=bearer).json()["claims"] == {"level": 3}
    assert http.delete(f"{url}/team", headers=bearer).status_code == 404
    check_error(http.patch(url, json={"x": {"deep": 1}}, headers=bearer), 400, "invalid_request")
    check_error(http.patch(url, json={"team": "red"}), 401, "unauthorized")
    theirs = {"Authorization": f"Bearer {rival.key()}"}
    assert http.patch(url, json={"team": "red"}, headers=theirs).status_code == 404


def test_rate_limits_say_when_to_come_back(http: httpx.Client, acme: World, limit: Callable[[str, str], None]) -> None:
    limit("tokens_of_key", "2/60")
    key = acme.key()
    for _ in range(2):
        check_token(create(http, acme.id, key), acme.id)
    check_error(create(http, acme.id, key), 429, "rate_limited")
    check_token(create(http, acme.id, acme.key()), acme.id)


# --- identity providers ----------------------------------------------------------------------------------------------


@pytest.fixture
def provider(acme: World, issuer: Issuer) -> str:
    """An identity provider of the organization, by name."""
    from orgs.providers.providers import Wanted, add_provider
    from tests.support.issuer import AUDIENCE

    add_provider(acme.owner, Wanted(name="login", kind="oidc", issuer=issuer.url, audience=AUDIENCE))
    return "login"


def exchange(http: httpx.Client, org: str | None, token: Any, **more: Any) -> httpx.Response:
    """POST /v2/tokens/exchange without a key."""
    return http.post("/v2/tokens/exchange", json={"organization_id": org, "token": token, **more})


def test_exchange_and_reissue(http: httpx.Client, acme: World, issuer: Issuer, provider: str) -> None:
    first = check_token(exchange(http, acme.id, issuer.token(), ttl=120), acme.id, ttl=120)
    assert (first["user_email"], first["provider"]) == ("ada@example.com", provider)
    again = check_token(exchange(http, acme.id, issuer.token(email="new@example.com")), acme.id)
    assert again["mqtt_credentials"]["username"] == first["mqtt_credentials"]["username"]
    assert again["user_email"] == "new@example.com"
    other = check_token(exchange(http, acme.id, issuer.token(sub="user-2"), integration_id=provider), acme.id)
    assert other["mqtt_credentials"]["username"] != first["mqtt_credentials"]["username"]


def test_exchange_with_a_key_and_a_provider(http: httpx.Client, acme: World, issuer: Issuer, provider: str) -> None:
    for key in (acme.key("pk"), acme.key("sk")):
        answer = http.post(
            "/v2/tokens/exchange",
            json={"provider": provider, "token": issuer.token(), "ttl": 300},
            headers={"Authorization": f"Bearer {key}"},
        )
        check_token(answer, acme.id, ttl=300)


def test_exchange_refusals(http: httpx.Client, acme: World, rival: World, issuer: Issuer, provider: str) -> None:
    check_error(exchange(http, acme.id, issuer.token(exp=1)), 401, "token_expired")
    check_error(exchange(http, acme.id, issuer.token(email=None)), 422, "email_claim_required")
    check_error(exchange(http, acme.id, issuer.token(aud="others")), 401, "unauthorized")
    check_error(exchange(http, acme.id, "not a token"), 401, "unauthorized")
    check_error(exchange(http, acme.id, None), 400, "invalid_request")
    check_error(exchange(http, None, issuer.token()), 400, "invalid_request")
    check_error(exchange(http, "org_aaaaaaaaaaaa", issuer.token()), 404, "org_not_found")
    check_error(exchange(http, acme.id, issuer.token(), integration_id="other"), 404, "provider_not_found")
    check_error(exchange(http, rival.id, issuer.token()), 404, "provider_not_found")
    check_error(exchange(http, acme.id, issuer.token(), ttl=59), 400, "invalid_request")


def test_create_for_a_provider_finds_the_user_it_knows(
    http: httpx.Client, acme: World, issuer: Issuer, provider: str
) -> None:
    signed_in = exchange(http, acme.id, issuer.token()).json()
    made = check_token(create(http, acme.id, acme.key(), integration_id=provider), acme.id)
    assert made["mqtt_credentials"]["username"] == signed_in["mqtt_credentials"]["username"]
    assert made["provider"] == provider


@pytest.mark.usefixtures("provider")
def test_public_providers_tell_only_what_is_public(http: httpx.Client, acme: World) -> None:
    answer = http.get("/v2/providers", params={"organization_id": acme.id})
    (found,) = answer.json()["providers"]
    assert found.keys() == {"id", "name", "type", "issuer"}
    check_error(http.get("/v2/providers", params={"organization_id": "org_aaaaaaaaaaaa"}), 404, "org_not_found")
    check_error(http.get("/v2/providers"), 400, "invalid_request")


# --- browsers --------------------------------------------------------------------------------------------------------

ORIGIN = "https://app.example.com"


@pytest.fixture
def allowed(acme: World) -> None:
    """Pages of ORIGIN may call for this organization."""
    from cloudsignal.tenancy.scopes import org_scope
    from orgs.models import Organization

    with org_scope(acme.id):
        Organization.objects.filter(pk=acme.id).update(allowed_origins=[ORIGIN])


@pytest.mark.usefixtures("allowed")
def test_a_preflight_is_granted_to_allowed_origins_only(http: httpx.Client, acme: World) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    for path in ("create", "exchange", "refresh", "revoke"):
        granted = http.options(f"/v2/tokens/{path}", headers={"Origin": ORIGIN, **asked})
        assert granted.status_code in {200, 204}
        assert granted.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in granted.headers["access-control-allow-methods"]
        names = granted.headers["access-control-allow-headers"].lower()
        assert "content-type" in names
        assert "authorization" in names
        assert "access-control-allow-credentials" not in granted.headers
        refused = http.options(f"/v2/tokens/{path}", headers={"Origin": "https://evil.example", **asked})
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.usefixtures("allowed")
def test_answers_and_errors_are_readable_for_the_organizations_own_origins(
    http: httpx.Client, acme: World, rival: World
) -> None:
    def ask(org: World, key: str, origin: str) -> httpx.Response:
        body = {"organization_id": org.id, "secret_key": key, "user_email": "ada@example.com"}
        return http.post("/v2/tokens/create", json=body, headers={"Origin": origin})

    fine = ask(acme, acme.key(), ORIGIN)
    assert fine.headers["access-control-allow-origin"] == ORIGIN
    assert "origin" in fine.headers["vary"].lower()
    assert ask(acme, "sk_wrong", ORIGIN).headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in ask(acme, acme.key(), "https://evil.example").headers
    assert "access-control-allow-origin" not in ask(rival, rival.key(), ORIGIN).headers

"""What every operation shares: bodies, idempotency, limits, addresses, the schema and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from django.test import Client
from pytest_django.fixtures import Settings

from cloudsignal.redis import client as redis_client
from tests.support.calling import Caller, World

KEY = {"kind": "pk", "name": "Web"}


def test_what_is_not_there_is_a_problem_not_a_page(nobody: Caller, acme: World) -> None:
    for address in ("/v2/nonsense", "/v2/two%0Alines"):
        missing = nobody.get(address)
        assert (missing.status, missing.code) == (404, "no_such_address")
        assert missing.headers["Content-Type"] == "application/problem+json"
    assert nobody.post("/v2/tokens/nonsense").body.keys() == {"error", "error_description"}
    assert nobody("DELETE", "/v2/users/a/claims/b%0A").body.keys() == {"error", "error_description"}


def test_methods_that_are_not_there_are_405(acme: World) -> None:
    assert acme.caller()("PUT", "/v2/api-keys", {}).status == 405


def test_bodies_that_cannot_be_read_are_400(acme: World) -> None:
    ci = acme.caller()
    bad = [
        b"{", b"\xff\xfe", b'{"a": NaN}', b'{"kind": "pk", "kind": "sk"}', b"[" * 100_000,
        b'{"name": "\\u0000"}', b'{"name": "\\ud800"}', b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}",
    ]  # fmt: skip
    for body in bad:
        answer = ci.post("/v2/api-keys", body)
        assert (answer.status, answer.code) == (400, "malformed"), (body[:40], answer.text)
    assert ci.post("/v2/api-keys", [1]).status == 422
    assert ci.post("/v2/api-keys", "text").status == 422


def test_a_huge_body_is_413_and_a_strange_one_415(acme: World, settings: Settings) -> None:
    settings.API_BODY_MAX = 1000
    assert acme.caller().post("/v2/api-keys", b" " * 1001).status == 413
    assert acme.caller().post("/v2/api-keys", b"kind=pk", content_type="text/plain").status == 415


def test_a_key_may_be_sent_as_bearer_only(acme: World) -> None:
    assert Caller().get("/v2/api-keys", Authorization=f"Basic {acme.key()}").status == 401
    assert Caller().get("/v2/api-keys").status == 401


def test_a_session_needs_its_csrf_token_to_change_anything(acme: World) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert acme.owner.user is not None
    strict.force_login(acme.owner.user)
    url = f"/v2/api-keys?organization_id={acme.id}"
    assert strict.get(url).status_code == 200
    assert strict.post(url, KEY, content_type="application/json").status_code == 403


def test_the_same_idempotency_key_does_the_work_once(acme: World) -> None:
    ci = acme.caller()
    first = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    again = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len([row for row in ci.get("/v2/api-keys").body["data"] if row["kind"] == "pk"]) == 1


def test_an_idempotency_key_belongs_to_one_request_and_one_caller(acme: World, rival: World) -> None:
    ci = acme.caller()
    ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    other = ci.post("/v2/api-keys", {**KEY, "name": "Other"}, Idempotency_Key="one")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    theirs = rival.caller().post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (theirs.status, theirs.headers.get("Idempotent-Replayed")) == (201, None)


def test_a_refusal_frees_its_idempotency_key(acme: World) -> None:
    ci = acme.caller()
    assert ci.post("/v2/api-keys", {"kind": "pk", "name": ""}, Idempotency_Key="one").status == 422
    assert ci.post("/v2/api-keys", KEY, Idempotency_Key="one").status == 201


def test_a_kept_answer_cannot_be_read_on_redis(acme: World) -> None:
    secret = acme.caller().post("/v2/api-keys", KEY, Idempotency_Key="one").body["secret"]
    stored = [redis_client().get(name) for name in redis_client().scan_iter(match="cs1:idempotency:*")]
    assert len(stored) == 1
    assert secret.encode() not in stored[0]


def test_too_many_requests_are_429_with_the_time_to_wait(acme: World, limit: Callable[[str, str], None]) -> None:
    limit("api", "2/60")
    ci = acme.caller()
    statuses = [ci.get("/v2/api-keys").status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert 1 <= int(ci.get("/v2/api-keys").headers["Retry-After"]) <= 60


def test_allow_lists_go_by_the_address_that_the_front_found(acme: World) -> None:
    body = {"kind": "sk", "name": "x", "ip_allow": ["203.0.113.0/24"]}
    bound = Caller(acme.caller().post("/v2/api-keys", body).body["secret"])
    for name in ("X_Forwarded_For", "X_Real_IP", "Forwarded", "X_Client_IP", "Remote_Addr"):
        assert bound.get("/v2/api-keys", **{name: "203.0.113.9"}).status == 403
    bound.client.defaults["REMOTE_ADDR"] = "203.0.113.9"
    assert bound.get("/v2/api-keys").status == 200


def test_the_schema_is_openapi_3_1_and_names_every_path(nobody: Caller, acme: World) -> None:
    answer = nobody.client.get("/v2/schema/")
    found = json.loads(answer.content)
    assert found["openapi"].startswith("3.1")
    assert "/v2/api-keys" in found["paths"]


def test_the_docs_page_asks_no_other_host_for_anything(nobody: Caller, acme: World) -> None:
    page = nobody.client.get("/v2/docs/").content.decode()
    assert re.search(r"POST</code>\s*<code[^>]*>/v2/api-keys</code>", page)
    assert 'src="http' not in page
    assert 'href="http' not in page

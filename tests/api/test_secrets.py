"""No secret anywhere but in the one answer that shows it: database, Redis, logs, audit, error pages."""

from __future__ import annotations

import logging

import pytest
from django.core import mail
from pytest_django.fixtures import Settings

from cloudsignal.logs import JsonFormatter
from cloudsignal.redis import client as redis_client
from orgs.people import invitations
from orgs.providers.providers import Wanted, add_provider
from orgs.sso.connections import WantedSignOn, add_sign_on
from tests.support.calling import Caller, World
from tests.support.databases import Databases

CLIENT_SECRET = "marker-client-secret-marker-client-secret"
SHARED = "marker-shared-secret-marker-shared-secret"


def dump(databases: Databases) -> str:
    """Every row of every table, as the superuser sees it."""
    found = []
    with databases.admin() as admin:
        tables = admin.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            found += [row[0] for row in admin.execute(f"SELECT t::text FROM {table} t").fetchall()]  # noqa: S608
    return "\n".join(found)


def everything_on_redis() -> bytes:
    """Every value of every key."""
    redis, found = redis_client(), []
    for key in redis.scan_iter():
        kind = redis.type(key)
        if kind == b"string":
            found.append(redis.get(key))
        elif kind == b"hash":
            found += [part for pair in redis.hgetall(key).items() for part in pair]
        elif kind == b"stream":
            found += [part for _, entry in redis.xrange(key) for part in entry.values()]
        elif kind == b"list":
            found += redis.lrange(key, 0, -1)
        found.append(key)
    return b"\n".join(bytes(part) for part in found)


def test_secrets_are_nowhere(
    acme: World, databases: Databases, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.DEBUG = False
    mail.outbox = []
    caplog.set_level(logging.DEBUG)
    owner, ci = acme.person(), acme.caller()
    secrets = {ci.key, SHARED}
    query = f"?organization_id={acme.id}"
    for kind in ("sk", "pk"):
        made = owner.post(f"/v2/api-keys{query}", {"kind": kind, "name": "x"}, Idempotency_Key=f"k-{kind}")
        secrets.add(made.body["secret"])
    issued = ci.post("/v2/credentials", {"username": "device"}, Idempotency_Key="one").body
    token = ci.post("/v2/tokens/create", {"user_email": "ada@example.com"}).body
    proof = {"token_id": token["token_id"], "current_token_password": token["access_token"]}
    fresh = Caller().post("/v2/tokens/refresh", proof).body
    secrets |= {issued["password"], token["access_token"], fresh["access_token"]}
    bulk = ci("POST", "/v2/credentials/bulk", b"username\nbulk-1\n", **{"content-type": "text/csv"})
    secrets.add(bulk.body["issued"][0]["password"])
    add_provider(acme.owner, Wanted("legacy", "supabase", "https://id.example.com", "x", secret=SHARED))
    secrets.add(CLIENT_SECRET)
    wanted = WantedSignOn("staff", issuer="https://id.example.com", client_id="dashboard", secret=CLIENT_SECRET)
    sign_on = add_sign_on(acme.owner, "oidc", wanted)
    page = f"/o/{acme.id}/settings/sign-on/{sign_on.pk}/"
    invitation = invitations.invite(acme.owner, email="eve@example.com", role="viewer")
    secrets.add(invitations.link_of(invitation).rstrip("/").rpartition(".")[2])
    answers = [
        Caller("sk_marker-wrong").get("/v2/me").text,
        ci.post("/v2/tokens/refresh", {**proof, "token_id": "x"}).text,
        ci.post("/v2/credentials", {"username": issued["password"]}).text,
        ci.get(f"/v2/users/{issued['password']}").text,
        ci.get("/v2/credentials").text, ci.get("/v2/api-keys").text, ci.get("/v2/identity-providers").text,
        ci.get("/v2/invitations").text, ci.get("/v2/audit/events").text,
        owner.get(f"/v2/organizations/{acme.id}/export").text, owner.client.get(page).content.decode(),
    ]  # fmt: skip
    logged = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    places = {
        "the database": dump(databases), "Redis": everything_on_redis().decode("utf-8", "replace"),
        "the logs": logged, "an answer": "\n".join(answers),
    }  # fmt: skip
    assert all(len(secret) > 20 for secret in secrets)
    for where, text in places.items():
        for secret in secrets:
            assert secret not in text, f"{secret[:6]}... stands in {where}"
    assert issued["token_id"] in places["the database"]  # the search can find what is there
    assert issued["token_id"] in places["Redis"]

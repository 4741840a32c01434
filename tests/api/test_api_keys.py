"""API keys: made, shown once, used, rotated, revoked; and every use attributable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from audit.models import Event
from cloudsignal.tenancy.scopes import org_scope
from orgs.models import ApiKey
from orgs.permissions import Role
from tests.support.calling import Caller, World


def test_a_new_key_is_shown_once_and_then_masked(acme: World) -> None:
    made = acme.person().post(f"/v2/api-keys?organization_id={acme.id}", {"kind": "sk", "name": "CI"})
    assert made.status == 201, made.text
    secret = made.body["secret"]
    assert secret.startswith("sk_")
    listed = acme.person().get(f"/v2/api-keys?organization_id={acme.id}")
    assert [row["key"] for row in listed.body["data"]] == [f"sk_...{secret[-4:]}"]
    assert secret not in listed.text
    with org_scope(acme.id):
        assert secret not in str(list(ApiKey.objects.values()))


def test_a_key_signs_in_and_is_named_in_the_audit(acme: World) -> None:
    ci = acme.caller()
    assert ci.post("/v2/api-keys", {"kind": "pk", "name": "Web"}).status == 201
    with org_scope(acme.id):
        actors = list(Event.objects.filter(kind="api_key.created").order_by("ts").values_list("actor", flat=True))
    assert actors[-1] == f"key:sk_...{ci.key[-4:]}"
    listed = ci.get("/v2/api-keys").body["data"]
    assert next(row for row in listed if row["kind"] == "sk")["last_used_at"] is not None


def test_a_restricted_key_does_what_its_scopes_say_and_no_more(acme: World) -> None:
    reader = acme.caller("rk", "org.read")
    assert reader.get("/v2/api-keys").status == 200
    refused = reader.post("/v2/api-keys", {"kind": "pk", "name": "x"})
    assert (refused.status, refused.code) == (403, "forbidden")


def test_a_key_cannot_make_a_key_that_may_do_more(acme: World) -> None:
    maker = acme.caller("rk", "api_keys.manage", "org.read")
    refused = maker.post("/v2/api-keys", {"kind": "sk", "name": "x"})
    assert (refused.status, refused.code) == (403, "beyond_own_rights")
    assert maker.post("/v2/api-keys", {"kind": "rk", "name": "x", "scopes": ["org.read"]}).status == 201


def test_a_publishable_key_reads_nothing_of_the_organization(acme: World) -> None:
    assert acme.caller("pk").get("/v2/api-keys").status == 403


def test_a_key_of_another_organization_sees_nothing(acme: World, rival: World) -> None:
    assert acme.caller().get(f"/v2/api-keys?organization_id={rival.id}").status == 404
    theirs = rival.caller().get("/v2/api-keys").body["data"][0]["id"]
    assert acme.caller().get(f"/v2/api-keys/{theirs}").status == 404
    assert acme.caller().delete(f"/v2/api-keys/{theirs}").status == 404
    assert rival.caller().get(f"/v2/api-keys/{theirs}").body["state"] == "active"


def test_rotation_lets_both_keys_work_until_the_overlap_ends(acme: World) -> None:
    old = acme.caller()
    pk = old.get("/v2/api-keys").body["data"][0]["id"]
    new = Caller(old.post(f"/v2/api-keys/{pk}/rotate", {"overlap": 3600}).body["secret"])
    assert old.get("/v2/api-keys").status == 200
    assert new.get("/v2/api-keys").status == 200
    with org_scope(acme.id):
        ApiKey.objects.filter(pk=pk).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert old.get("/v2/api-keys").status == 401
    assert new.get("/v2/api-keys").status == 200


def test_a_revoked_key_is_refused_at_once(acme: World) -> None:
    ci, owner = acme.caller(), acme.person()
    pk = ci.get("/v2/api-keys").body["data"][0]["id"]
    assert owner.delete(f"/v2/api-keys/{pk}?organization_id={acme.id}").body["state"] == "revoked"
    refused = ci.get("/v2/api-keys")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_revoking_tells_what_ends_and_with_dry_run_ends_nothing(acme: World) -> None:
    leaked, owner = acme.caller(), acme.person()
    child = leaked.post("/v2/api-keys", {"kind": "sk", "name": "child"}).body
    leaked.post("/v2/credentials", {"username": "device"})
    pk = next(
        key["id"] for key in owner.get(f"/v2/api-keys?organization_id={acme.id}").body["data"] if key["name"] == "test"
    )
    url = f"/v2/api-keys/{pk}?organization_id={acme.id}"
    wanted = {
        "keys": [child["key"]], "providers": [], "invitations": [], "identities": 1, "credentials": 1, "sessions": 0,
        "joined": 0,
    }  # fmt: skip
    foreseen = owner.delete(f"{url}&dry_run=true").body
    assert (foreseen["state"], foreseen["ended"]) == ("active", wanted)
    assert Caller(child["secret"]).get("/v2/api-keys").status == 200
    done = owner.delete(url).body
    assert (done["state"], done["ended"]) == ("revoked", wanted)
    assert Caller(child["secret"]).get("/v2/api-keys").status == 401
    assert [one["state"] for one in owner.get(f"/v2/credentials?organization_id={acme.id}").body["data"]] == ["revoked"]


def test_an_allow_list_binds_a_key_to_its_networks(acme: World) -> None:
    body = {"kind": "sk", "name": "x", "ip_allow": ["203.0.113.0/24"]}
    bound = Caller(acme.caller().post("/v2/api-keys", body).body["secret"])
    assert (bound.get("/v2/api-keys").status, bound.get("/v2/api-keys").code) == (403, "ip_not_allowed")
    bound.client.defaults["REMOTE_ADDR"] = "203.0.113.9"
    assert bound.get("/v2/api-keys").status == 200


def test_wrong_input_is_named(acme: World) -> None:
    ci = acme.caller()
    cases: list[tuple[dict[str, object], str]] = [
        ({"kind": "zz", "name": "x"}, "kind"),
        ({"kind": "sk", "name": ""}, "name"),
        ({"kind": "sk", "name": "x", "scopes": ["org.read"]}, "scopes"),
        ({"kind": "rk", "name": "x"}, "scopes"),
        ({"kind": "rk", "name": "x", "scopes": ["nonsense"]}, "scopes"),
        ({"kind": "rk", "name": "x", "scopes": ["org.delete"]}, "scopes"),
        ({"kind": "sk", "name": "x", "ip_allow": ["here"]}, "ip_allow"),
        ({"kind": "sk", "name": "x", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"kind": "sk", "name": "x", "colour": "red"}, "colour"),
    ]
    for body, name in cases:
        refused = ci.post("/v2/api-keys", body)
        assert (refused.status, refused.body["field"]) == (422, name), refused.text
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_guessing_keys_gets_slow_but_locks_nobody_else_out(acme: World, limit: Callable[[str, str], None]) -> None:
    limit("wrong_keys", "3/60")
    ci, thief = acme.caller(), Caller("sk_guess")
    assert [thief.get("/v2/api-keys").status for _ in range(4)] == [401, 401, 401, 429]
    assert int(thief.get("/v2/api-keys").headers["Retry-After"]) >= 1
    assert ci.get("/v2/api-keys").status == 200


def test_people_may_read_or_manage_by_role(acme: World) -> None:
    for role, expected in {Role.ADMIN: 201, Role.DEVELOPER: 403, Role.AUDITOR: 403, Role.VIEWER: 403}.items():
        caller = acme.person(role)
        assert caller.get(f"/v2/api-keys?organization_id={acme.id}").status == 200
        made = caller.post(f"/v2/api-keys?organization_id={acme.id}", {"kind": "pk", "name": "x"})
        assert made.status == expected, made.text

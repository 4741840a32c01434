"""Credentials, users, sessions, policy and audit over the API: what a CI pipeline and a backend do all day."""

from __future__ import annotations

from cloudsignal.redis import client as redis_client
from cloudsignal.secrets.keyring import pepper
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode
from cloudsignal.wire.credential import open_credential
from cloudsignal.wire.report import LiveSession
from orgs.permissions import Role
from tests.support.calling import World
from tests.support.sessions import publish

RULES = 'version: "3"\nrules:\n  - id: all\n    topic: "a/#"\n'


def test_a_credential_is_shown_once_works_at_once_and_ends_at_once(acme: World) -> None:
    ci = acme.caller()
    made = ci.post("/v2/credentials", {"username": "press-4", "ttl": 120, "claims": {"line": 4}})
    assert made.status == 201, made.text
    record = open_credential(
        redis_client().hget(keys.credential(acme.id, "press-4"), "b"), pepper(), org=acme.id, username="press-4"
    )
    assert [secret.token_id for secret in record.secrets] == [made.body["token_id"]]
    assert record.claims == {"line": 4}
    listed = ci.get("/v2/credentials?state=active&username=press").body["data"]
    assert [row["token_id"] for row in listed] == [made.body["token_id"]]
    assert "password" not in listed[0]
    assert ci.delete(f"/v2/credentials/{made.body['token_id']}").body["state"] == "revoked"
    record = open_credential(
        redis_client().hget(keys.credential(acme.id, "press-4"), "b"), pepper(), org=acme.id, username="press-4"
    )
    assert record.secrets[0].revoked


def test_lists_are_paged_by_cursor(acme: World) -> None:
    ci = acme.caller()
    for number in range(5):
        ci.post("/v2/credentials", {"username": f"d{number}"})
    for path, name in (("/v2/users", "username"), ("/v2/credentials", "token_id"), ("/v2/audit/events", "id")):
        seen, cursor = [], ""
        while True:
            answer = ci.get(f"{path}?limit=2&cursor={cursor}").body
            seen += [row[name] for row in answer["data"]]
            cursor = answer["next_cursor"]
            if not cursor:
                break
        assert len(seen) == len(set(seen)) >= 5, path
        assert ci.get(f"{path}?limit=0").status == 422
        assert ci.get(f"{path}?limit=x").status == 422
    assert ci.get("/v2/credentials?cursor=nonsense").status == 422


def test_a_file_of_clients_is_issued_whole_or_not_at_all(acme: World) -> None:
    ci = acme.caller()
    ci.post("/v2/credentials", {"username": "old"})
    file = b"username,ttl,static,claim.team,note\nold,60,,red,\nnew,,yes,blue,by the door\n,3600,no,,\n"
    made = ci("POST", "/v2/credentials/bulk", file, **{"content-type": "text/csv"})
    assert made.status == 201, made.text
    assert made.body["count"] == 3
    assert [row["username"].partition("@")[0] for row in made.body["issued"]][:2] == ["old", "new"]
    assert made.body["issued"][1]["expires_at"] is None
    for row in made.body["issued"]:
        local = row["username"].partition("@")[0]
        stored = redis_client().hget(keys.credential(acme.id, local), "b")
        record = open_credential(stored, pepper(), org=acme.id, username=local)
        assert row["token_id"] in {secret.token_id for secret in record.secrets}
    assert ci.get("/v2/users/new").body["claims"] == {"team": "blue"}
    wrong = b"username,ttl\nfine,60\nNOT FINE,60\nlate,5\nfine,60\n"
    refused = ci("POST", "/v2/credentials/bulk", wrong, **{"content-type": "text/csv"})
    assert (refused.status, [error["line"] for error in refused.body["errors"]]) == (422, [3, 4, 5])
    assert ci.get("/v2/users/fine").status == 404
    for body in (b"", b"username", b"colour\nred\n", b"username,username\na,b\n", b"\xff", b'username\n"a'):
        answer = ci("POST", "/v2/credentials/bulk", body, **{"content-type": "text/csv"})
        assert answer.status in {400, 422}, body


def test_all_that_one_key_has_issued_is_revoked_together(acme: World) -> None:
    good, leaked = acme.caller(), acme.caller()
    kept = good.post("/v2/credentials", {"username": "kept"}).body["token_id"]
    lost = leaked.post("/v2/credentials", {"username": "lost"}).body["token_id"]
    actor = f"key:sk_...{leaked.key[-4:]}"
    reach = {"identities": 1, "credentials": 1, "sessions": 0}
    assert good.post("/v2/credentials/revoke", {"issued_by": actor, "dry_run": True}).body == reach
    assert good.get(f"/v2/credentials/{lost}").body["state"] == "active"
    ended = good.post("/v2/credentials/revoke", {"issued_by": actor})
    assert ended.body == reach
    blind = acme.caller("rk", "credentials.manage")  # may revoke, may not read who is connected
    assert blind.post("/v2/credentials/revoke", {"issued_by": actor}).body["sessions"] is None
    assert good.get(f"/v2/credentials/{lost}").body["state"] == "revoked"
    assert good.get(f"/v2/credentials/{kept}").body["state"] == "active"
    assert good.post("/v2/credentials/revoke", {}).code == "say_which"
    assert good.post("/v2/credentials/revoke", {"everything": True}).body["credentials"] == 1
    assert good.get(f"/v2/credentials/{kept}").body["state"] == "revoked"


def test_a_user_is_revoked_with_every_secret(acme: World) -> None:
    ci = acme.caller()
    token = ci.post("/v2/credentials", {"username": "device"}).body["token_id"]
    assert ci.delete(f"/v2/users/device@{acme.id}").body["revoked_at"]
    assert ci.get(f"/v2/credentials/{token}").body["state"] == "revoked"
    assert ci.get("/v2/users/nobody").status == 404


def test_a_session_is_listed_and_closed_by_its_own_organization(acme: World, rival: World) -> None:
    session = LiveSession(
        session="s1", org=acme.id, username="device", client_id="c", node="n1", ip="192.0.2.1", port=1,
        transport="mqtts", mqtt_version="5", tls_version="TLSv1.3", tls_cipher="X", token_id="t",
        connected_at=1.0, expires_at=0,
    )  # fmt: skip
    publish(redis_client(), session)
    assert rival.caller().get("/v2/sessions").body["data"] == []
    assert rival.caller().delete("/v2/sessions/s1").status == 404
    ci = acme.caller()
    assert [row["session"] for row in ci.get("/v2/sessions").body["data"]] == ["s1"]
    assert ci.delete("/v2/sessions/s1").status == 200
    changes = [decode(entry[b"b"], Change) for _, entry in redis_client().xrange(keys.CHANGES)]
    assert [change.session for change in changes if change.kind == "close"] == ["s1"]


def test_the_draft_is_guarded_by_its_etag(acme: World) -> None:
    ci = acme.caller()
    first = ci.get("/v2/policy/draft")
    etag = first.headers["ETag"]
    assert first.body["etag"] == etag
    saved = ci.put("/v2/policy/draft", {"text": RULES}, If_Match=etag)
    assert (saved.status, saved.body["text"]) == (200, RULES)
    late = ci.put("/v2/policy/draft", {"text": "mine"}, If_Match=etag)
    assert (late.status, late.code, late.body["status"]) == (412, "draft_changed", 412)
    assert ci.get("/v2/policy/draft").body["text"] == RULES
    assert ci.post("/v2/policy/deployments", {}, If_Match=etag).status == 412
    late = ci.post("/v2/policy/deployments", {"over": "dep_other"})
    assert (late.status, late.code, late.body["status"]) == (412, "deployment_changed", 412)
    assert ci.post("/v2/policy/rollback", {"version": 1, "over": "dep_other"}).status == 412


def test_a_policy_is_validated_simulated_compared_deployed_and_rolled_back(acme: World) -> None:
    ci = acme.caller()
    found = ci.post("/v2/policy/validate", {"text": RULES}).body
    assert (found["deployable"], found["rules"]) == (True, 1)
    assert [(each["level"], each["code"]) for each in found["findings"]] == [("warning", "wildcard-publish")]
    assert found["digest"].startswith("sha256:")
    broken = ci.post("/v2/policy/validate", {"text": "rules: ["}).body
    assert (broken["deployable"], broken["digest"]) == (False, None)
    assert broken["findings"][0]["level"] == "error"
    ask = {"text": RULES, "username": "d", "action": "pub", "topic": "a/b"}
    verdict = ci.post("/v2/policy/simulate", ask).body
    assert (verdict["allowed"], verdict["rule"]) == (True, "all")
    verdict = ci.post("/v2/policy/simulate", {**ask, "topic": "b"}).body
    assert (verdict["allowed"], verdict["rule"]) == (False, None)
    assert ci.post("/v2/policy/simulate", {**ask, "topic": "a/+"}).code == "bad_topic"
    ci.put("/v2/policy/draft", {"text": RULES})
    diff = ci.post("/v2/policy/diff", {}).body
    assert diff["relation"] == "wider"
    assert diff["widened"][0]["witness_topic"].startswith("a")
    made = ci.post("/v2/policy/deployments", {"note": "first"})
    assert (made.status, made.body["version"]) == (201, 2)
    assert ci.get(f"/v2/policy/deployments/{made.body['id']}").body["deployment"]["status"] == "pending"
    assert ci.get("/v2/policy/versions/2").body["source"] == RULES
    assert ci.post("/v2/policy/deployments", {}).code == "nothing_to_deploy"
    assert ci.post("/v2/policy/rollback", {"version": 1}).body["kind"] == "rollback"
    assert ci.post("/v2/policy/rollback", {"version": 77}).status == 404
    first = ci.get("/v2/policy/deployments?limit=1").body
    assert (first["data"][0]["kind"], len(first["data"])) == ("rollback", 1)
    assert ci.get(f"/v2/policy/deployments?limit=5&cursor={first['next_cursor']}").body["next_cursor"] is None


def test_a_failing_test_in_the_policy_refuses_the_deployment(acme: World) -> None:
    ci = acme.caller()
    text = RULES + "tests:\n  - name: must not\n    as: d\n    do: pub\n    topic: a/b\n    expect: deny\n"
    found = ci.post("/v2/policy/validate", {"text": text}).body
    assert found["deployable"] is False, found
    ci.put("/v2/policy/draft", {"text": text})
    refused = ci.post("/v2/policy/deployments", {})
    assert refused.status == 422
    assert refused.body["errors"]


def test_the_audit_is_searched_by_those_who_may(acme: World) -> None:
    ci = acme.caller()
    ci.post("/v2/credentials", {"username": "device"})
    found = ci.get("/v2/audit/events?kind=credential.issued&username=device").body["data"]
    assert [event["actor"] for event in found] == [f"key:sk_...{ci.key[-4:]}"]
    assert ci.get(f"/v2/audit/events/{found[0]['cursor']}").body["id"] == found[0]["id"]
    assert ci.get("/v2/audit/events/nonsense").status == 404
    assert ci.get("/v2/audit/events?since=yesterday").status == 422
    assert ci.get("/v2/audit/events?since=2026-01-01T00:00:00").status == 422
    query = f"?organization_id={acme.id}"
    assert acme.person(Role.AUDITOR).get(f"/v2/audit/events{query}").status == 200
    assert acme.person(Role.DEVELOPER).get(f"/v2/audit/events{query}").status == 403


def test_whoami_and_usage(acme: World) -> None:
    ci = acme.caller("rk", "org.read")
    assert ci.get("/v2/me").body == {
        "kind": "key", "name": f"rk_...{ci.key[-4:]}", "operator": False, "organization_id": acme.id,
        "organization": "Acme", "person": None, "role": None, "expires_at": None, "permissions": ["org.read"],
    }  # fmt: skip
    assert acme.person().get("/v2/me").body["kind"] == "person"
    acme.caller().post("/v2/credentials", {"username": "device"})
    usage = ci.get("/v2/usage").body
    assert (usage["identities"], usage["credentials"], usage["sessions"]) == (1, 1, 0)

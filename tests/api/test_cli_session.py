"""Signing a command line in: codes that are used up, proofs that must fit, keys that never outgrow their person."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.utils import timezone

from audit.models import Event
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, Unavailable
from cloudsignal.redis import client as redis_client
from cloudsignal.redis import fast_client
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org
from orgs.api_keys import keys, revocation
from orgs.api_keys.cli_login import LoginRequest, approve_login, read_request
from orgs.models import ApiKey, Membership, Organization
from orgs.people.members import add_member, remove_member
from orgs.permissions import CLI_SESSION, PERMISSIONS, Role
from tests.support.calling import Caller, World
from tests.support.cli_login import BACK, LOGOUT, VERIFIER, asked, challenge, redeem
from tests.support.world import member, person

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings


def sign_in(access: Access) -> Caller:
    """A command line of the person, signed in."""
    made = redeem(approve_login(access, read_request(asked())))
    assert made.status == 201, made.text
    return Caller(made.body["secret"])


def test_a_code_and_its_proof_give_a_key_of_that_person(acme: World) -> None:
    made = redeem(approve_login(acme.owner, read_request(asked())))
    assert made.status == 201, made.text
    body = made.body
    assert (body["organization_id"], body["person"]) == (acme.id, acme.owner.user.email if acme.owner.user else "")
    assert body["name"] == f"CLI of {body['person']} on laptop"
    program = Caller(body["secret"])
    me = program.get("/v2/me").body
    assert (me["kind"], me["person"], me["role"], me["organization"]) == ("key", body["person"], "owner", "Acme")
    assert set(me["permissions"]) == set(CLI_SESSION)
    listed = program.get("/v2/api-keys")
    assert body["secret"] not in listed.text
    assert listed.body["data"][0]["person"] == body["person"]


def test_what_it_does_is_in_the_audit_under_its_name_and_the_persons(acme: World) -> None:
    program = sign_in(acme.owner)
    assert program.post("/v2/credentials", {"username": "sensor"}).status == 201
    with org_scope(acme.id):
        actor = Event.objects.get(kind="credential.issued").actor
    assert acme.owner.user is not None
    assert actor == f"key:rk_...{program.key[-4:]} of {acme.owner.user.email}"


def test_a_code_works_once_and_showing_it_again_ends_the_key_it_gave(acme: World) -> None:
    code = approve_login(acme.owner, read_request(asked()))
    program = Caller(redeem(code).body["secret"])
    assert program.get("/v2/me").status == 200
    again = redeem(code)
    assert (again.status, again.code) == (400, "invalid_grant")
    assert program.get("/v2/me").status == 401
    assert redeem(code).status == 400


def test_of_two_who_show_a_code_at_once_one_gets_a_key(acme: World) -> None:
    for _ in range(5):
        code = approve_login(acme.owner, read_request(asked()))
        barrier = threading.Barrier(4)

        def show(code: str = code, barrier: threading.Barrier = barrier) -> int:
            try:
                barrier.wait(10)
                return redeem(code).status
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            statuses = [each.result() for each in [pool.submit(show) for _ in range(4)]]
        assert sorted(statuses) == [201, 400, 400, 400]


def test_nobody_signs_in_while_redis_is_away_and_keys_work_on(acme: World, settings: Settings) -> None:
    program = sign_in(acme.owner)
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    fast_client.cache_clear()
    try:
        with pytest.raises(Unavailable):
            approve_login(acme.owner, read_request(asked()))
        refused = redeem("x" * 43)
        assert (refused.status, refused.code) == (503, "unavailable")
        assert program.get("/v2/me").status == 200
    finally:
        fast_client.cache_clear()


@pytest.mark.parametrize(
    ("verifier", "redirect_uri"),
    [(VERIFIER[:-1] + "!", BACK), ("x" * 43, BACK), ("", BACK), (challenge(), BACK), ("é" * 50, BACK),
     (VERIFIER, "http://127.0.0.1:54322/callback"), (VERIFIER, "https://evil.example/callback")],
)  # fmt: skip
def test_a_wrong_proof_is_refused_and_uses_the_code_up(verifier: str, redirect_uri: str, acme: World) -> None:
    code = approve_login(acme.owner, read_request(asked()))
    refused = redeem(code, verifier, redirect_uri)
    assert (refused.status, refused.code) in {(400, "invalid_grant"), (422, "invalid")}
    if refused.status == 400:
        assert redeem(code).code == "invalid_grant"
    with org_scope(acme.id):
        assert not ApiKey.objects.exists() or refused.status == 422


def test_a_code_of_yesterday_or_of_nobody_is_refused(acme: World) -> None:
    code = approve_login(acme.owner, read_request(asked()))
    name = next(iter(redis_client().scan_iter(match="cs1:login:code:*")))
    assert 0 < redis_client().ttl(name) <= 60
    assert code.encode() not in redis_client().get(name) + name
    redis_client().delete(name)
    for shown in (code, "x", "\u202e" * 40, "a" * 200):
        assert redeem(shown).code == "invalid_grant"


def test_who_can_write_redis_can_make_no_code(acme: World) -> None:
    code = approve_login(acme.owner, read_request(asked()))
    stored = redis_client().get(next(iter(redis_client().scan_iter(match="cs1:login:code:*"))))
    forged = f"cs1:login:code:{hashlib.sha256(b'mine').hexdigest()}"
    redis_client().set(forged, stored)
    assert redeem("mine").code == "invalid_grant"
    assert redeem(code).status == 201


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": uri}
        for uri in (
            "", "https://evil.example/callback", "http://evil.example:1/callback", "http://localhost:5000/callback",
            "http://127.0.0.1/callback", "http://127.0.0.1:0/callback", "http://127.0.0.1:70000/callback",
            "http://127.0.0.1:5000/callback?x=1", "http://127.0.0.1:5000/other", "http://127.0.0.1:5000/callback#f",
            "http://user@127.0.0.1:5000/callback", "http://127.0.0.1:5000@evil.example/callback",
            "http://127.0.0.1:5000/callback\n", "http://127.0.0.1:٥٠٠٠/callback", "//127.0.0.1:5000/callback",
            "javascript:alert(1)//http://127.0.0.1:5000/callback",
        )
    ]
    + [
        {"response_type": "token"}, {"code_challenge_method": "plain"}, {"code_challenge": "short"}, {"state": ""},
        {"state": "x" * 200}, {"state": "a b c d e f g h i j"},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_our_program_never_sends_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        read_request(asked(**change))


def test_what_a_machine_calls_itself_is_shown_harmlessly() -> None:
    found = read_request(asked(machine="a\x1b[31m\u202eb\n" + "c" * 100))
    assert found.machine == ("a[31mb" + "c" * 100)[:40]


@pytest.mark.parametrize("role", list(Role))
def test_a_command_line_may_what_its_persons_role_says_and_never_more(role: Role, acme: World) -> None:
    program = sign_in(member(acme.owner.org, role))
    assert set(program.get("/v2/me").body["permissions"]) == PERMISSIONS[role] & CLI_SESSION
    refused = program.post("/v2/api-keys", {"kind": "sk", "name": "lasting"})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert program.post("/v2/invitations", {"email": "x@example.com", "role": "admin"}).status == 403
    allowed = program.put("/v2/policy/draft", {"text": "rules: []"}).status == 200
    assert allowed is (role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER})


def test_a_role_that_falls_takes_its_command_line_along_at_once(acme: World) -> None:
    developer = member(acme.owner.org, Role.DEVELOPER)
    program = sign_in(developer)
    assert program.post("/v2/credentials", {}).status == 201
    with org_scope(acme.id):
        Membership.objects.filter(user=developer.user).update(role=Role.VIEWER)
    refused = program.post("/v2/credentials", {})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert "viewer" in refused.body["detail"]


def test_a_membership_that_ends_takes_its_command_line_along_for_good(acme: World) -> None:
    leaving = member(acme.owner.org, Role.DEVELOPER)
    assert leaving.user is not None
    program = sign_in(leaving)
    with org_scope(acme.id):
        row = Membership.objects.get(user=leaving.user)
    remove_member(acme.owner, row.pk)
    assert program.get("/v2/me").status == 401
    with org_scope(acme.id):
        add_member(acme.owner, leaving.user, role=Role.DEVELOPER, ends_at=None)
    assert program.get("/v2/me").status == 401


def test_a_membership_that_ran_out_does_not_bring_old_command_lines_back(acme: World) -> None:
    auditor = member(acme.owner.org, Role.AUDITOR)
    assert auditor.user is not None
    program = sign_in(auditor)
    with org_scope(acme.id):
        Membership.objects.filter(user=auditor.user).update(ends_at=timezone.now() - timedelta(seconds=1))
    assert program.get("/v2/me").status == 401
    with org_scope(acme.id):
        add_member(acme.owner, auditor.user, role=Role.AUDITOR, ends_at=None)
    assert program.get("/v2/me").status == 401


def test_a_person_who_is_locked_out_is_locked_out_here_too(acme: World) -> None:
    program = sign_in(acme.owner)
    assert acme.owner.user is not None
    acme.owner.user.is_active = False
    acme.owner.user.save()
    assert program.get("/v2/me").status == 401


def test_an_operator_who_is_no_member_has_no_command_line_here(acme: World) -> None:
    operator = access_org(person(operator=True), acme.id)
    with pytest.raises(Forbidden):
        approve_login(operator, read_request(asked()))


def test_a_second_factor_that_the_organization_requires_is_required_of_command_lines(acme: World) -> None:
    program = sign_in(acme.owner)
    with org_scope(acme.id):
        Organization.objects.filter(pk=acme.id).update(mfa_required=True)
    refused = program.get("/v2/me")
    assert (refused.status, refused.code) == (403, "mfa_required")


@pytest.mark.parametrize("status", ["suspended", "deleting"])
def test_command_lines_wait_while_the_organization_is_not_active(status: str, acme: World) -> None:
    program = sign_in(acme.owner)
    with org_scope(acme.id):
        Organization.objects.filter(pk=acme.id).update(status=status)
    refused = program.get("/v2/me")
    assert (refused.status, refused.code) == (403, "org_not_active")
    org = replace(acme.owner, org=Organization(pk=acme.id, name="Acme", status=status))
    with pytest.raises(Conflict):
        approve_login(org, read_request(asked()))


def test_signing_out_ends_the_key_and_only_that(acme: World) -> None:
    one, other = sign_in(acme.owner), sign_in(acme.owner)
    done = one.post(LOGOUT)
    assert (done.status, done.body["state"]) == (200, "revoked")
    assert one.get("/v2/me").status == 401
    assert one.post(LOGOUT).status == 401
    assert other.get("/v2/me").status == 200


def test_keys_of_programs_do_not_end_themselves(acme: World) -> None:
    # A publishable key stands in web pages: anybody could end it.
    for kind in ("pk", "sk"):
        program = acme.caller(kind)
        assert program.post(LOGOUT).code == "needs_command_line"
    assert acme.person().post(LOGOUT).status == 401


def test_an_expired_key_says_so(acme: World) -> None:
    program = sign_in(acme.owner)
    with org_scope(acme.id):
        ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    refused = program.get("/v2/me")
    assert (refused.status, refused.body["detail"]) == (401, "The API key is expired.")


def test_a_command_lines_key_is_not_rotated_into_one_that_outlives_its_person(acme: World) -> None:
    sign_in(member(acme.owner.org, Role.DEVELOPER))
    with org_scope(acme.id):
        key = ApiKey.objects.get()
    with pytest.raises(Conflict):
        keys.rotate_api_key(acme.owner, key.pk)


def test_everybody_may_revoke_their_own_and_nobody_elses(acme: World) -> None:
    viewer, developer = member(acme.owner.org, Role.VIEWER), member(acme.owner.org, Role.DEVELOPER)
    program = sign_in(viewer)
    with org_scope(acme.id):
        key = ApiKey.objects.get()
    with pytest.raises(Forbidden):
        revocation.revoke_api_key(developer, key.pk)
    assert program.get("/v2/me").status == 200
    revocation.revoke_api_key(viewer, key.pk)
    assert program.get("/v2/me").status == 401


def test_one_persons_command_lines_do_not_use_up_the_organizations_keys(
    acme: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PERSONAL_MAX", 2)
    viewer = member(acme.owner.org, Role.VIEWER)
    first = sign_in(viewer)
    sign_in(viewer)
    with pytest.raises(Limit):
        keys.create_personal_key(viewer, machine="")
    first.post(LOGOUT)
    sign_in(viewer)
    monkeypatch.setattr(keys, "KEYS_MAX", 1)
    acme.key()


def test_a_key_of_one_organization_opens_no_other(acme: World, rival: World) -> None:
    assert acme.owner.user is not None
    with org_scope(rival.id):
        Membership.objects.create(org=rival.owner.org, user=acme.owner.user, role=Role.OWNER)
    program = sign_in(acme.owner)
    assert program.get(f"/v2/credentials?organization_id={rival.id}").status == 404
    assert program.get(f"/v2/credentials?organization_id={acme.id}").status == 200


def test_signing_in_all_the_time_is_limited(acme: World, limit: Callable[[str, str], None]) -> None:
    limit("command_lines", "2/60")
    for _ in range(2):
        approve_login(acme.owner, read_request(asked()))
    with pytest.raises(Limit):
        approve_login(acme.owner, read_request(asked()))
    approve_login(member(acme.owner.org, Role.VIEWER), read_request(asked()))


def test_the_phrase_is_the_same_on_both_sides() -> None:
    found: LoginRequest = read_request(asked())
    assert len(found.phrase) == 9
    assert found.phrase != read_request(asked(code_challenge=challenge("y" * 43))).phrase

"""Who may what: every operation, for every role of every organization, for keys, operators, strangers and nobody.

The crawler asks with the victim's ids and with mixed ones. Nothing of the victim may appear, nothing of it may change.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver

from orgs.access.api_keys import SECRET
from orgs.permissions import PERMISSIONS, Permission, Role
from tests.support.calling import Caller, World
from tests.support.databases import Databases
from tests.support.operations import MARKER, OPERATIONS, call, fill, fingerprint


def routes() -> set[tuple[str, str]]:
    """Every (method, path) under /v2/ that the application serves."""
    found = set()
    for pattern, prefix in _walk(get_resolver().url_patterns, ""):
        path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", prefix + str(pattern.pattern))
        view = getattr(pattern.callback, "view_class", None)
        if path.startswith("/v2/") and view is not None:
            found |= {(method, path) for method in view.needs}
    return found


def _walk(patterns: Any, prefix: str) -> Any:
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield pattern, prefix
        else:
            yield from _walk(pattern.url_patterns, prefix + str(pattern.pattern))


def test_every_operation_is_in_the_table_with_its_gate() -> None:
    assert {(operation.method, operation.path) for operation in OPERATIONS} == routes()


def test_views_ask_for_what_the_table_says() -> None:
    table = {(operation.method, operation.path): operation.gate for operation in OPERATIONS}
    for pattern, prefix in _walk(get_resolver().url_patterns, ""):
        path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", prefix + str(pattern.pattern))
        view = getattr(pattern.callback, "view_class", None)
        if path.startswith("/v2/") and view is not None and view.scope == "org":
            for method, permission in view.needs.items():
                # Anybody may leave, so the service decides who else may remove a member.
                leaving = (method, path) == ("DELETE", "/v2/members/{member_id}")
                assert leaving or table[method, path] is permission, (method, path)


def test_the_crawler_finds_no_way_into_another_organization(
    acme: World, rival: World, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, own = fill(acme), fill(rival, "otter")
    before = fingerprint(databases, acme.id)
    thieves = {role.value: rival.person(role) for role in Role}
    thieves |= {"sk": rival.caller("sk"), "rk": rival.caller("rk", *sorted(SECRET)), "pk": rival.caller("pk")}
    thieves["nobody"] = Caller()
    asked = 0
    for who, thief in thieves.items():
        for operation in OPERATIONS:
            for org_id, ids in ((acme.id, victim), (rival.id, victim), (acme.id, {**own, "organization_id": acme.id})):
                public = operation.path in {"/v2/me", "/v2/organizations"} or operation.gate == "person"
                if public or (org_id == rival.id and "{" not in operation.path and operation.gate != "token"):
                    continue
                answer = call(thief, operation, ids, org_id)
                asked += 1
                where = f"{who}: {operation.name} as {org_id}: {answer.status} {answer.text[:200]}"
                if operation.path == "/v2/providers" and operation.gate == "token":
                    continue  # public fields of any organization
                alike = {"/v2/tokens/create", "/v2/audit/log/tile/{tile}"}
                if org_id == rival.id and ("{number}" in operation.path or operation.path in alike):
                    continue  # both have a version 1 and a first tile; and a key may issue for its own
                mine = ids is not victim and operation.gate == "token"  # its own token, by its own key
                assert mine or answer.status in {400, 401, 403, 404, 422}, where
                assert MARKER not in answer.text, where
    assert fingerprint(databases, acme.id) == before
    with capsys.disabled():
        print(f"\ncrawler: {len(thieves)} callers x {len(OPERATIONS)} operations, {asked} requests, no leak")


def test_roles_and_keys_may_do_what_the_registry_says_and_no_more(
    acme: World, operator: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = fill(acme)
    people = {role.value: (acme.person(role), PERMISSIONS[role]) for role in Role}
    programs = {
        "sk": (acme.caller("sk"), SECRET),
        "rk": (acme.caller("rk", "org.read", "policy.simulate"), {Permission.ORG_READ, Permission.POLICY_SIMULATE}),
        "pk": (acme.caller("pk"), frozenset[Permission]()),
    }
    asked = 0
    for who, (caller, held) in (people | programs).items():
        for operation in sorted(OPERATIONS, key=lambda each: each.method == "DELETE"):
            if not isinstance(operation.gate, Permission):
                continue
            ids = fill(acme) if operation.method == "DELETE" and not ids else ids
            answer = call(caller, operation, ids, acme.id)
            asked += 1
            where = f"{who}: {operation.name}: {answer.status} {answer.text[:200]}"
            if operation.gate in held:
                assert answer.status not in {401, 403}, where
            else:
                assert (answer.status, answer.code) == (403, "forbidden"), where
    for operation in OPERATIONS:
        if operation.gate == "operator":
            assert call(acme.person(), operation, ids, acme.id).status == 404
            assert call(acme.caller(), operation, ids, acme.id).status in {403, 404}
            assert call(Caller(), operation, ids, acme.id).status == 401
            assert call(operator, operation, ids, acme.id).status in {200, 409}, operation.name
            asked += 4
        if operation.gate == "person":
            assert call(acme.caller(), operation, ids, acme.id).code == "needs_person", operation.name
            assert call(Caller(), operation, ids, acme.id).status == 401
        if operation.gate == "key":
            assert call(acme.caller(), operation, ids, acme.id).code == "needs_command_line"
            assert call(acme.person(), operation, ids, acme.id).status == 401
            assert call(Caller(), operation, ids, acme.id).status == 401
    with capsys.disabled():
        print(f"\nroles: {len(people) + len(programs)} callers, {asked} requests as the registry says")


def test_a_key_with_the_one_scope_that_an_operation_asks_for_may_do_it(acme: World) -> None:
    """Nobody should have to give a program more than the table says it needs.

    But for what would give more than the key has: a successor with every scope, what the stored documents say, a role
    with more rights, and a provider that issues credentials.
    """
    more = {
        "POST /v2/api-keys/{key_id}/rotate", "POST /v2/policy/simulate", "POST /v2/policy/diff",
        "PATCH /v2/members/{member_id}", "POST /v2/invitations", "POST /v2/identity-providers",
        "PUT /v2/identity-providers/{provider_id}",
    }  # fmt: skip
    ids = fill(acme)
    for operation in sorted(OPERATIONS, key=lambda each: each.method == "DELETE"):
        if operation.gate in SECRET and operation.by_key and operation.name not in more:
            answer = call(acme.caller("rk", str(operation.gate)), operation, ids, acme.id)
            assert answer.status not in {401, 403}, f"{operation.name}: {answer.text[:300]}"

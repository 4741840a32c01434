"""The crawler once more, by a session that came through single sign-on: the person is an owner of both organizations,
and the identity provider of one of them opens nothing of the other."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from django.test import Client
from django.urls import reverse

from cloudsignal.tenancy.scopes import org_scope
from orgs.models import Membership, SignOnAccount, SingleSignOn
from orgs.permissions import Role
from orgs.sso.web.sessions import MARK
from tests.support.calling import Caller, World
from tests.support.crawling import asks, send
from tests.support.databases import Databases
from tests.support.operations import MARKER, OPERATIONS, call, fill, fingerprint
from tests.support.pages import TABLE
from tests.support.world import person

NOT_OF_ONE = {"/v2/me", "/v2/organizations", "/v2/command-line/login"}
"""Operations that name no organization."""


def came_through(rival: World, victim: World, sign_on_id: str) -> Client:
    """The browser of an owner of both, who came through the rival's single sign-on."""
    user = person()
    for world in (rival, victim):
        with org_scope(world.id):
            Membership.objects.create(org=world.owner.org, user=user, role=Role.OWNER)
    with org_scope(rival.id):
        SingleSignOn.objects.update(enabled=True)
        SignOnAccount.objects.create(org=rival.owner.org, sign_on_id=sign_on_id, user=user, subject="s-1")
    client = Client()
    client.force_login(user)
    session = client.session
    session[MARK] = {"org_id": rival.id, "sign_on_id": sign_on_id, "at": time.time()}
    session.save()
    return client


def test_what_one_provider_vouches_for_opens_nothing_of_another_organization(
    acme: World, rival: World, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, own = fill(acme), fill(rival, "otter")
    client = came_through(rival, acme, own["sign_on_id"])
    assert client.get(reverse("platform:home", args=[rival.id])).status_code == 200
    before = fingerprint(databases, acme.id)
    statuses: Counter[int] = Counter()
    for ask in asks(victim, own):
        if ask.own:
            continue
        status, text, _ = send(client, ask)
        statuses[status] += 1
        assert (status, MARKER in text) == (404, False), f"{ask.method} {ask.url}: {status}"
    for operation in OPERATIONS:
        if operation.gate in {"public", "token", "key"} or operation.path in NOT_OF_ONE:
            continue
        answer = call(Caller(client=client), operation, victim, acme.id)
        statuses[answer.status] += 1
        told = f"{operation.method} {operation.path}: {answer.status} {answer.text[:200]}"
        assert answer.status in {403, 404, 422}, told
        assert MARKER not in answer.text, told
    for name in (name for name, row in TABLE.items() if row.scope == "operator" and "approve" not in name):
        if TABLE[name].get and "suspend" not in name:
            assert client.get(reverse(name)).status_code == 404, name
    assert fingerprint(databases, acme.id) == before
    with capsys.disabled():
        print(f"\nthrough single sign-on: {sum(statuses.values())} requests, no leak ({dict(statuses)})")

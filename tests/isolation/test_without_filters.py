"""Row-level security alone: with every filter by organization taken out of the code, nothing foreign comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.models import QuerySet

from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.models import Credential, Organization
from tests.support.calling import World
from tests.support.crawling import asks, send
from tests.support.databases import Databases
from tests.support.operations import MARKER, OPERATIONS, call, fill, fingerprint
from tests.support.pages import PAGES, TABLE

BY_ORGANIZATION = {"org", "org_id", "org__in"}
"""What the code filters by; of organizations themselves also the primary key."""


@contextmanager
def without_filters() -> Iterator[None]:
    """Let every query set forget by which organization it was to filter."""
    original = QuerySet._filter_or_exclude  # type: ignore[attr-defined]

    def forgetful(self: QuerySet[Any], negate: bool, args: Any, kwargs: dict[str, Any]) -> Any:
        forgotten = BY_ORGANIZATION | ({"pk", "id"} if self.model is Organization else set())
        return original(self, negate, args, {name: kwargs[name] for name in kwargs if name not in forgotten})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuerySet, "_filter_or_exclude", forgetful)
        yield


def test_the_filters_are_really_gone(acme: World, rival: World) -> None:
    fill(acme), fill(rival, "otter")
    with platform_scope():
        assert set(Credential.objects.filter(org=rival.owner.org).values_list("org_id", flat=True)) == {rival.id}
        with without_filters():
            found = set(Credential.objects.filter(org=rival.owner.org).values_list("org_id", flat=True))
            assert found == {acme.id, rival.id}
            with org_scope(rival.id):
                assert set(Credential.objects.all().values_list("org_id", flat=True)) == {rival.id}


def test_postgres_alone_returns_nothing_foreign(
    acme: World, rival: World, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, own = fill(acme), fill(rival, "otter")
    before = fingerprint(databases, acme.id)
    owner, key = rival.person(), rival.caller()
    asked = seen = 0
    with without_filters():
        for ask in asks(victim, own):
            _, text, _ = send(owner.client, ask)
            asked += 1
            assert MARKER not in text, f"{ask.method} {ask.url}: {text[:300]}"
        for name in sorted(name for name, row in TABLE.items() if row.scope == "org" and row.get):
            if set(PAGES[name].pattern.converters) == {"org_id"}:
                _, text, _ = send(owner.client, _own_page(name, rival.id))
                asked += 1
                seen += "otter" in text
                assert MARKER not in text, f"{name}: {text[:300]}"
        for operation in sorted(OPERATIONS, key=lambda each: each.method == "DELETE"):
            for caller in (owner, key):
                for org_id, ids in ((rival.id, victim), (acme.id, victim), (rival.id, own)):
                    if operation.gate == "operator" or (ids is own and operation.method != "GET"):
                        continue
                    answer = call(caller, operation, ids, org_id)
                    asked += 1
                    seen += "otter" in answer.text
                    if operation.path == "/v2/providers" and operation.gate == "token":
                        continue  # public fields of any organization
                    assert MARKER not in answer.text, f"{operation.name} as {org_id}: {answer.text[:300]}"
    assert fingerprint(databases, acme.id) == before
    assert seen > 10, "the rival does not even see its own rows: the test shows nothing"
    with capsys.disabled():
        print(f"\nwithout filters: {asked} requests, nothing foreign, nothing changed ({seen} showed the asker's own)")


def _own_page(name: str, org_id: str) -> Any:
    from django.urls import reverse

    from tests.support.crawling import Ask

    return Ask("get", reverse(name, args=[org_id]), name, own=True)

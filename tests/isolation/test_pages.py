"""The crawler of the pages: as every role of every organization, with every other organization's ids."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.calling import World
from tests.support.crawling import asks, send, thieves
from tests.support.databases import Databases
from tests.support.operations import MARKER, fill, fingerprint

WITHOUT_IDS = {"acl:preset", "acl:version", "acl:rollback", "orgs:provider-new", "orgs:sign-on-new"}
"""Pages whose address names a kind, or a number that every organization counts by itself."""


def test_no_page_leads_into_another_organization(
    acme: World, rival: World, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    callers = thieves(acme, rival)
    victim, own = fill(acme), fill(rival, "otter")
    before = fingerprint(databases, acme.id)
    statuses: Counter[int] = Counter()
    pages = set()
    for who, client in callers.items():
        for ask in asks(victim, own):
            status, text, where = send(client, ask)
            told = f"{who}: {ask.method} {ask.name} at {ask.url}: {status} {text[:300]}"
            statuses[status] += 1
            pages.add(ask.name)
            assert MARKER not in text, told
            if who == "nobody":
                assert (status, where.startswith("/accounts/login/")) == (302, True), told
            elif ask.own and who not in {"former member", "stranger"}:
                # Their own organization with foreign ids: not found, or not theirs to do.
                assert status in {403, 404} or ask.name in WITHOUT_IDS, told
            else:
                assert status == 404, told
    assert fingerprint(databases, acme.id) == before
    with capsys.disabled():
        print(
            f"\ncrawler: {len(callers)} callers x {len(pages)} pages x 3 ways, {sum(statuses.values())} requests, "
            f"no leak ({', '.join(f'{count} x {status}' for status, count in sorted(statuses.items()))})"
        )

"""One way to a row of an organization: found there alone, locked where asked, refused in the same words everywhere."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cloudsignal.errors import NotFound
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.rows import get_or_404
from orgs.models import Membership
from tests.support.world import organization

PROJECT = Path(__file__).parents[2]


@pytest.mark.django_db
def test_a_row_is_found_in_its_own_organization_only() -> None:
    mine, other = organization(), organization("Other")
    with org_scope(mine.org_id):
        membership = Membership.objects.get(org=mine.org)
        assert get_or_404(Membership, mine.org_id, "The member", pk=membership.pk) == membership
    with platform_scope(), pytest.raises(NotFound, match="The member does not exist") as refused:
        get_or_404(Membership, other.org_id, "The member", code="no_member", pk=membership.pk)
    assert refused.value.code == "no_member"


@pytest.mark.django_db
def test_a_row_is_locked_alone_where_a_lock_is_asked_for() -> None:
    mine = organization()
    with org_scope(mine.org_id):
        pk = Membership.objects.get(org=mine.org).pk
        with CaptureQueriesContext(connection) as asked:
            get_or_404(Membership, mine.org_id, "The member", related=["user"], pk=pk)
            get_or_404(Membership, mine.org_id, "The member", related=["user"], lock=True, pk=pk)
    assert ["FOR UPDATE OF" in query["sql"] for query in asked.captured_queries] == [False, True]


def hand_written(source: str) -> list[int]:
    """The lines that refuse what ``.first()`` did not find: ``if found is None: raise NotFound``, right behind it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(block, list):
                for before, after in pairwise(block):
                    text = ast.unparse(after)
                    if ".first()" in ast.unparse(before) and " is None:\n    raise NotFound" in text:
                        lines.append(after.lineno)
    return lines


NOT_OF_AN_ORGANIZATION = {"acl/services/clusters.py", "orgs/access/grants.py", "orgs/organizations/lifecycle.py"}
"""Rows of the platform: nodes, clusters, and organizations themselves."""


def test_nobody_writes_the_getter_by_hand_again() -> None:
    found = {
        str(path.relative_to(PROJECT)): lines
        for app in ("acl", "audit", "orgs", "cloudsignal")
        for path in sorted((PROJECT / app).rglob("*.py"))
        if path.name != "rows.py" and (lines := hand_written(path.read_text()))
    }
    assert set(found) <= NOT_OF_AN_ORGANIZATION, found


def test_a_getter_by_hand_would_be_seen() -> None:
    source = (
        "def get():\n    row = Row.objects.filter(pk=1).first()\n    if row is None:\n        raise NotFound('It')\n"
    )
    assert hand_written(source) == [3]

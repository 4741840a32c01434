"""Events of changes: one or many, they are the same rows, and only the audit writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.forms import model_to_dict

from audit import kinds
from audit.models import Event
from audit.services.record import AuditedChange, record, record_many
from cloudsignal.tenancy.scopes import org_scope
from tests.support.world import organization

PROJECT = Path(__file__).parents[2]
AFTER = {"claims": {"room": "hall", "n": [1, 2.5, True, None]}, "hint": "ab\"\\'é\U0001f600", "empty": ""}


@pytest.mark.django_db
def test_many_are_written_as_one_is() -> None:
    access = organization()
    with org_scope(access.org_id):
        one = record(access, kinds.CLAIMS_CHANGED, target="identity:x", username="x", before={"a": 1}, after=AFTER)
        record_many(access, kinds.CLAIMS_CHANGED, [AuditedChange("identity:x", "x", {"a": 1}, AFTER)])
        rows = list(Event.objects.filter(org_id=access.org_id, kind=kinds.CLAIMS_CHANGED).order_by("ts"))
    first, second = (model_to_dict(row, exclude=["ts", "id", "log_leaf", "salt"]) for row in rows)
    assert rows[0].pk == one.pk
    assert first == second
    assert first["after"] == AFTER
    assert rows[0].ts < rows[1].ts


@pytest.mark.django_db
def test_a_thousand_are_two_statements_each_with_its_own_facts_and_id(django_assert_num_queries: object) -> None:
    access = organization()
    changes = [AuditedChange(f"credential:{number}", f"d-{number}", after={"n": number}) for number in range(1000)]
    with org_scope(access.org_id):
        with django_assert_num_queries(2):  # type: ignore[operator]
            record_many(access, kinds.CREDENTIAL_ISSUED, changes)
        record_many(access, kinds.CREDENTIAL_ISSUED, [])
        rows = list(Event.objects.filter(org_id=access.org_id, kind=kinds.CREDENTIAL_ISSUED))
    found = {(row.target, row.username, (row.after or {})["n"], row.before) for row in rows}
    assert found == {(change.target, change.username, (change.after or {})["n"], None) for change in changes}
    assert len({row.id for row in rows}) == 1000


@pytest.mark.django_db(transaction=True)
def test_many_outside_of_a_transaction_or_of_no_kind_are_refused() -> None:
    access = organization()
    with pytest.raises(RuntimeError, match="transaction of the change"):
        record_many(access, kinds.CREDENTIAL_ISSUED, [AuditedChange("x")])
    with org_scope(access.org_id), pytest.raises(KeyError):
        record_many(access, "nothing.known", [AuditedChange("x")])


def test_only_the_audit_names_its_table() -> None:
    naming = {
        str(path.relative_to(PROJECT))
        for root in ("acl", "cloudsignal", "orgs")
        for path in (PROJECT / root).rglob("*.py")
        if re.search(r"\baudit_event\b", path.read_text())
    }
    assert naming == {"cloudsignal/cli/checks/services.py"}, "which asks what the role of ingest may do with it"

"""A task has one name, written once: rows, the schedule and the worker take it from the same place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudsignal import task_names
from cloudsignal.celery import app
from cloudsignal.models import OutboxRow
from cloudsignal.outbox import defer, withdraw
from cloudsignal.tenancy.scopes import platform_scope

PROJECT = Path(__file__).parents[2]
NAMES = {value for name, value in vars(task_names).items() if name.isupper()}
SOURCES = {
    str(path.relative_to(PROJECT)): path.read_text()
    for root in ("acl", "audit", "cloudsignal", "orgs")
    for path in (PROJECT / root).rglob("*.py")
    if "migrations" not in path.parts
}
LITERAL = re.compile(r"""["'](?:acl|audit|cloudsignal|orgs)\.tasks\.\w+["']""")


def places(pattern: re.Pattern[str], *allowed: str) -> list[str]:
    """Modules that match, but for those that may."""
    return sorted(name for name, text in SOURCES.items() if pattern.search(text) and name not in allowed)


def test_every_name_is_a_task_and_every_task_has_its_name() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.split(".")[0] in {"acl", "audit", "cloudsignal", "orgs"}}
    assert ours == NAMES


def test_a_name_is_written_nowhere_else() -> None:
    assert places(LITERAL, "cloudsignal/task_names.py") == []
    assert LITERAL.search('enqueue("acl.tasks.push_bundle")'), "it would be seen"


def test_outbox_rows_are_made_by_the_outbox_alone() -> None:
    assert places(re.compile(r"\bOutboxRow\b"), "cloudsignal/outbox.py", "cloudsignal/models.py") == []


def test_an_organization_is_published_in_one_place() -> None:
    one = "orgs/publishing.py"
    assert places(re.compile(r"\bPUSH_BUNDLE\b"), "cloudsignal/task_names.py", "acl/tasks.py", one) == []
    assert places(re.compile(r"\.bump\(\)"), one) == []


@pytest.mark.django_db
def test_a_row_that_nobody_has_begun_to_send_can_be_taken_back() -> None:
    with platform_scope():
        rows = [defer(task_names.PUSH_BUNDLE, org="", key=key) for key in ("begun", "waits")]
        OutboxRow.objects.filter(pk=rows[0]).update(attempts=1)
        assert withdraw(rows) == 1
        assert list(OutboxRow.objects.values_list("key", flat=True)) == ["begun"]


@pytest.mark.django_db(transaction=True)
def test_a_row_outside_of_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError, match="transaction of the change"):
        defer(task_names.PUSH_BUNDLE, org="", key="x")

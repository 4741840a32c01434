"""What import-linter cannot see: views, API and tasks import models for their types, but never query them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
THIN = sorted(
    path
    for pattern in (
        "**/web/**/*.py",
        "**/web.py",
        "**/api/**/*.py",
        "**/api.py",
        "*/*_urls.py",
        "cloudsignal/console/**/*.py",
        "*/tasks.py",
        "*/management/commands/*.py",
    )
    for path in PROJECT.glob(pattern)
    if path.parts[len(PROJECT.parts)] in {"cloudsignal", "orgs", "acl", "audit"} and path.stat().st_size
)


def queries(source: str) -> list[int]:
    """The lines on which a manager is asked (``Model.objects``)."""
    managers = {"objects", "_default_manager"}
    nodes = ast.walk(ast.parse(source))
    return [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in managers]


def test_there_is_something_to_look_at() -> None:
    assert len(THIN) > 10


@pytest.mark.parametrize("path", THIN, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_query_outside_services_and_access(path: Path) -> None:
    lines = queries(path.read_text())
    assert not lines, f"{path.relative_to(PROJECT)} queries on line {lines[0]}; call access or services"


def test_a_query_would_be_seen() -> None:
    assert queries("from orgs.models import User\nUser.objects.filter(pk=1)\n") == [2]

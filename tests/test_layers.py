"""What import-linter cannot see: views, API and tasks import models for their types, but never query them."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.support.imports import APPS, PROJECT

PATTERNS = (
    "*/web/**/*.py",
    "*/*/web/**/*.py",
    "*/*/web.py",
    "*/api/**/*.py",
    "*/*/api/**/*.py",
    "*/*/api.py",
    "*/*_urls.py",
    "cloudsignal/console/**/*.py",
    "*/tasks.py",
    "*/management/commands/*.py",
)
"""Where views, API operations, tasks and commands stand, within the four apps."""


def thin_files(root: Path, pattern: str) -> list[Path]:
    """The files under ``root`` that ``pattern`` finds in the four apps; empty ones hold nothing that could query."""
    found = sorted(path for app in APPS for path in root.glob(pattern) if path.is_relative_to(root / app))
    return [path for path in found if path.stat().st_size]


def queries(source: str) -> list[int]:
    """The lines on which a manager is asked (``Model.objects``)."""
    managers = {"objects", "_default_manager"}
    nodes = ast.walk(ast.parse(source))
    return [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in managers]


def violations(root: Path) -> list[str]:
    """Where something thin queries, as ``path:line``; and patterns that find no file, which would guard nothing."""
    found = {pattern: thin_files(root, pattern) for pattern in PATTERNS}
    empty = [f"the pattern {pattern} finds no file" for pattern, files in found.items() if not files]
    return empty + [
        f"{path.relative_to(root)}:{line} queries; call services or reads"
        for path in sorted({path for files in found.values() for path in files})
        for line in queries(path.read_text("utf-8"))
    ]


def test_no_query_outside_services_and_reads() -> None:
    assert violations(PROJECT) == []


def test_every_module_named_web_or_api_is_looked_at() -> None:
    """A room that is new, or lies deeper, is not left out in silence."""
    thin = {path for pattern in PATTERNS for path in thin_files(PROJECT, pattern)}
    files = [path for app in APPS for path in (PROJECT / app).rglob("*.py") if path.stat().st_size]
    named = [path for path in files if {"web", "api"} & set(path.relative_to(PROJECT).with_suffix("").parts)]
    assert [path for path in named if path not in thin] == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_planted_query_is_refused_with_its_place(pattern: str, tmp_path: Path) -> None:
    for file in {path for each in PATTERNS for path in thin_files(PROJECT, each)}:
        copy = tmp_path / file.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    planted = thin_files(tmp_path, pattern)[0]
    source = planted.read_text("utf-8")
    planted.write_text(source + "User.objects.filter(pk=1)\n", "utf-8")
    place = f"{planted.relative_to(tmp_path)}:{source.count(chr(10)) + 1} queries"
    assert any(found.startswith(place) for found in violations(tmp_path))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_that_finds_no_file_is_refused_by_name(pattern: str, tmp_path: Path) -> None:
    for file in {path for each in PATTERNS for path in thin_files(PROJECT, each)} - set(thin_files(PROJECT, pattern)):
        copy = tmp_path / file.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    assert f"the pattern {pattern} finds no file" in violations(tmp_path)

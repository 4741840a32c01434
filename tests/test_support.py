"""Where tests keep what they share: in tests/support, never in a test module of somebody else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HARNESSES = ("support", "benchmarks", "edge/clients", "edge/conformance", "edge/fuzz")
"""Folders of helpers: what everybody shares, and what belongs to one collection of tests."""
TOOLS = {"policy/mutate.py"}
"""Programs that a test runs."""
FILES = sorted(TESTS.rglob("*.py"))


def borrowed(source: str) -> list[str]:
    """The test modules that a source imports from."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        found += [name for name in modules if any(part.startswith("test_") for part in name.split(".")[1:])]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "from tests.edge.test_session import Bench",
        "from tests.edge import test_session",
        "import tests.edge.test_session as other",
        "def late():\n    from tests.edge.test_session import Bench",
    ],
)
def test_a_helper_taken_from_a_test_module_is_found(source: str) -> None:
    assert len(borrowed(source)) == 1


def test_no_test_module_is_imported_by_another() -> None:
    assert len(FILES) > 200
    taken = {str(path.relative_to(TESTS)): borrowed(path.read_text()) for path in FILES}
    assert not {path: names for path, names in taken.items() if names}, "move what they share to tests/support"


def test_helpers_lie_in_support() -> None:
    names = [str(path.relative_to(TESTS)) for path in FILES]
    known = [name for name in names if name.startswith(tuple(f"{folder}/" for folder in HARNESSES))]
    assert len(known) > 50
    stray = [
        name
        for name in set(names) - set(known) - TOOLS
        if not Path(name).name.startswith("test_") and Path(name).name not in {"__init__.py", "conftest.py"}
    ]
    assert not stray, "move them to tests/support"

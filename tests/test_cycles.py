"""No module imports itself through others: at the top, in a function, or for types only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.imports import APPS, PROJECT, cycles, graph, modules, places


def named_cycles(root: Path) -> list[str]:
    """The cycles under ``root``, each as its imports."""
    found = graph(root)
    return [f"import cycle of {len(cycle)} modules:\n" + "\n".join(places(found, cycle)) for cycle in cycles(found)]


def test_no_module_imports_itself_through_others() -> None:
    found = named_cycles(PROJECT)
    assert not found, "\n\n".join(found)


def test_every_module_of_the_project_is_looked_at() -> None:
    found = graph()
    assert found.keys() == modules(PROJECT).keys()
    assert {name.partition(".")[0] for name in found} == set(APPS)
    assert all(any(target != name for target in found[name]) for name in ("orgs.tasks", "acl.tasks", "audit.tasks"))


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("cloudsignal/errors.py", "from orgs.access.grants import access_org\n"),
        ("orgs/models/organization.py", "if TYPE_CHECKING:\n    from orgs.access import grants\n"),
        ("acl/models/policy.py", "def late() -> None:\n    import acl.services.drafts\n"),
        ("audit/kinds.py", "from .services import record\n"),
    ],
    ids=["at the top", "for types only", "in a function", "relative"],
)
def test_a_planted_cycle_is_named_with_its_place(tmp_path: Path, module: str, planted: str) -> None:
    for app in APPS:
        shutil.copytree(PROJECT / app, tmp_path / app, ignore=shutil.ignore_patterns("__pycache__", "migrations"))
    file = tmp_path / module
    file.write_text(file.read_text("utf-8") + planted, "utf-8")
    found = named_cycles(tmp_path)
    assert len(found) == 1
    assert f"{module}:" in found[0]

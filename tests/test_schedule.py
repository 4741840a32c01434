"""How `make test` spreads the files over its workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.schedule import LONG, TESTS, lane

CONFTEST = """
import pytest
from tests.support.schedule import Lanes, mark
pytest_xdist_make_scheduler = lambda config, log: Lanes(config, log)
pytest_itemcollected = mark
@pytest.fixture
def stack(): pass
"""
SYSTEM = "import pytest\npytestmark = pytest.mark.stack\ndef test_one(): pass\ndef test_two(): pass\n"
BROWSER = SYSTEM.replace("stack", "browser")


@pytest.mark.parametrize("name", LONG)
def test_a_file_that_begins_early_is_there_and_in_no_lane(name: str) -> None:
    assert (TESTS / name).exists()
    assert not lane(TESTS / name)


def run(folder: Path, files: dict[str, str], *options: str) -> str:
    """What pytest says of these test files."""
    for name, text in {"conftest": CONFTEST, **files}.items():
        (folder / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "xdist", *options]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def test_browsers_share_one_worker_and_whole_systems_another(tmp_path: Path) -> None:
    plain = "def test_one(): pass\ndef test_two(): pass\n"
    both = SYSTEM.replace("= pytest.mark.stack", "= [pytest.mark.stack, pytest.mark.browser]")
    files = {"test_a": SYSTEM, "test_b": plain, "test_c": BROWSER, "test_d": plain, "test_e": SYSTEM, "test_f": both}
    said = run(tmp_path, files, "-n", "3", "--dist", "loadfile")
    workers: dict[str, set[str]] = {}
    for worker, file in re.findall(r"^\[(gw\d)\].* PASSED (test_\w)\.py", said, re.MULTILINE):
        workers.setdefault(file, set()).add(worker)
    assert len(workers) == 6, said
    assert workers["test_a"] == workers["test_e"]
    assert workers["test_c"] == workers["test_f"]
    assert len(workers["test_a"] | workers["test_c"]) == 2


def test_a_test_of_the_whole_system_that_does_not_say_so_is_refused(tmp_path: Path) -> None:
    unmarked = "def test_one(stack): pass\n"
    files = {"test_a": f"import pytest\npytestmark = pytest.mark.stack\n{unmarked}"}
    assert "1 passed" in run(tmp_path, files)
    assert "test_b.py::test_one: mark it with pytest.mark.stack" in run(tmp_path, files | {"test_b": unmarked})

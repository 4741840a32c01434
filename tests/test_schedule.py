"""How `make test` spreads the files over its workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.schedule import LONG, TESTS, in_lane

CONFTEST = """
from tests.support.schedule import OneLane
pytest_xdist_make_scheduler = lambda config, log: OneLane(config, log)
"""
SYSTEM = "import pytest\npytestmark = pytest.mark.stack\ndef test_one(): pass\ndef test_two(): pass\n"
BROWSER = SYSTEM.replace("stack", "browser")


@pytest.mark.parametrize("name", LONG)
def test_a_file_that_begins_early_is_there_and_not_in_the_lane(name: str) -> None:
    assert (TESTS / name).exists()
    assert not in_lane(TESTS / name)


def test_whole_systems_and_browsers_share_one_worker(tmp_path: Path) -> None:
    texts = {"conftest": CONFTEST, "test_a": SYSTEM, "test_b": "def test_one(): pass\ndef test_two(): pass\n"}
    texts |= {"test_c": BROWSER, "test_d": texts["test_b"], "test_e": SYSTEM}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "xdist", "-n", "3", "--dist", "loadfile"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    workers: dict[str, set[str]] = {}
    for worker, file in re.findall(r"^\[(gw\d)\].* PASSED (test_\w)\.py", run.stdout, re.MULTILINE):
        workers.setdefault(file, set()).add(worker)
    assert len(workers) == 5, run.stdout + run.stderr
    assert workers["test_a"] == workers["test_c"] == workers["test_e"]
    assert len(workers["test_a"]) == 1
    assert not (workers["test_b"] | workers["test_d"]) & workers["test_a"]

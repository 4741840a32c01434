"""MQTT clients of Node: a script of tests/edge/node, run once."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.npm import installed

PROJECT = Path(__file__).parents[1] / "edge" / "node"


def run(script: str, options: dict[str, object], *, seconds: float = 60) -> Any:
    """Run a script of ``tests/edge/node``; returns what it printed."""
    node = shutil.which("node")
    assert node, "node is not installed; run `make setup`"
    command = [node, str(PROJECT / script), f"{installed(PROJECT)}/", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

"""``docs/edge-proof.md`` names a test for each promise; every one of them exists."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PROOF = HERE.parents[1] / "docs" / "edge-proof.md"


def test_every_test_named_as_proof_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PROOF.read_text()))
    written = {
        name
        for path in HERE.parent.rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 90
    assert named <= written, sorted(named - written)


def test_every_promise_has_a_test() -> None:
    rows = [line for line in PROOF.read_text().splitlines() if line.startswith("|")]
    promises = [row for row in rows if not row.startswith(("| promise", "| ---"))]
    assert all("`test_" in row.split("|")[2] for row in promises)

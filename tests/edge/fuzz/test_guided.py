"""The parser under a fuzzer that is led by coverage. Atheris exists for Linux on x86-64; elsewhere the rest must do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

MEMORY_MB = 512
"""What the fuzzer may grow to, its corpus included; it begins at 50."""


def fuzz(folder: Path, *limits: str) -> int:
    """Run it; returns how many inputs were tried. A finding is kept in ``folder`` and shown."""
    corpus = folder / "corpus"
    corpus.mkdir()
    options = [*limits, f"-rss_limit_mb={MEMORY_MB}", "-timeout=10", "-max_len=4096", f"-artifact_prefix={folder}/"]
    if "FUZZ_SEED" in os.environ:
        options.append(f"-seed={os.environ['FUZZ_SEED']}")
    # Through a shell that stays: a program that replaces a fork of this process would inherit its peak of memory.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, sys.executable, "-m", "tests.edge.fuzz.guided", str(corpus), *options]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    found = [path.read_bytes().hex() for path in folder.iterdir() if path.is_file()]
    assert answer.returncode == 0, f"{answer.stdout[-1000:]}\n{answer.stderr[-4000:]}\ninput: {found}"
    done = re.search(r"Done (\d+) runs", answer.stderr)
    assert done, answer.stderr[-2000:]
    print(f"guided fuzzing: {done[1]} inputs, nothing found")
    return int(done[1])


if find_spec("atheris"):

    def test_a_guided_fuzzer_finds_nothing_in_a_few_thousand_inputs(tmp_path: Path) -> None:
        assert fuzz(tmp_path, "-runs=4000") >= 4_000

    @pytest.mark.soak
    def test_a_guided_fuzzer_finds_nothing_in_ten_minutes(tmp_path: Path) -> None:
        assert fuzz(tmp_path, "-max_total_time=600") > 100_000

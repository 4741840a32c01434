"""Logs: appended, rotated, quoted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloudsignal.supervisor import logfile


def test_a_log_is_appended_to_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for text in (b"one\n", b"two\n"):
        descriptor = logfile.open_log(path)
        os.write(descriptor, text)
        os.close(descriptor)
    assert [line for line in path.read_text().splitlines() if not line.startswith("---")] == ["one", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation_keeps_the_newest_and_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    descriptor = logfile.open_log(path)
    for number in range(6):
        os.write(descriptor, f"run {number} {'x' * 200}\n".encode())
        assert logfile.rotate(path, max_bytes=100, keep=3)
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert path.read_text() == "after\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert [path.with_name(f"a.log.{number}").read_text()[:5] for number in (1, 2, 3)] == ["run 5", "run 4", "run 3"]


def test_a_small_or_missing_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert not logfile.rotate(path)
    path.write_text("small")
    assert not logfile.rotate(path, max_bytes=5)
    assert path.read_text() == "small"


def test_last_words_are_those_of_the_newest_run(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert logfile.last_words(path) == []
    path.write_text("--- then started\nold\n--- now started\n\nfirst\nsecond\n\n")
    assert logfile.last_words(path, lines=5) == ["first", "second"]
    assert logfile.last_words(path) == ["second"]

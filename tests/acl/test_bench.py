"""The bench: documents are looked at beside the web, one at a time for each organization, with limits that hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acl import bench as bench_module
from acl.bench import IN_ALL, PER_ORG, Bench, Crowded
from cloudsignal.errors import Invalid, Limit


def wait_for(path: str) -> int:
    """Held up until ``path`` is there; the process it ran in."""
    while not Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


def spin() -> None:
    """Never done."""
    while True:
        pass


def grow() -> int:
    """Wants more memory than there is for it."""
    return len(bytearray(2**31))


def environment() -> set[str]:
    """What the process knows of its surroundings."""
    return set(os.environ)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(processes=2, cpu_seconds=1)
    yield made
    made.close()


def until(true: object) -> None:
    for _ in range(1_000):
        if true():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError("it never became true")


def test_functions_run_in_another_process_that_knows_no_secret(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    there = bench.run("org_a", wait_for, str(tmp_path / "go"))
    assert there != os.getpid()
    assert bench.run("org_b", wait_for, str(tmp_path / "go")) == there, "it is used again"
    assert bench.run("org_a", environment) <= {"PATH", "PYTHONPATH", "LC_CTYPE"}


def test_an_organization_waits_for_itself_and_no_other_for_it(bench: Bench, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    with ThreadPoolExecutor(8) as threads:
        held = [threads.submit(bench.run, "org_a", wait_for, go) for _ in range(PER_ORG)]
        until(lambda: len(bench._waiting) == PER_ORG - 1)
        with pytest.raises(Limit) as refused:
            bench.run("org_a", wait_for, go)
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "policy_busy", 2)
        assert bench.run("org_b", environment), "one place is always left for others"
        Path(go).touch()
        assert len({each.result(20) for each in held}) == 1, "one after the other"


def test_threads_are_left_for_pages_whoever_asks(bench: Bench, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    with ThreadPoolExecutor(IN_ALL) as threads:
        held = [threads.submit(bench.run, f"org_{number}", wait_for, go) for number in range(IN_ALL)]
        until(lambda: len(bench._waiting) == IN_ALL - 2)
        with pytest.raises(Crowded) as refused:
            bench.run("org_more", wait_for, go)
        assert (refused.value.status, refused.value.retry_after) == (503, 2)
        Path(go).touch()
        for each in held:
            each.result(20)


def test_a_call_without_end_is_ended_and_the_next_one_works(bench: Bench) -> None:
    with pytest.raises(Invalid) as refused:
        bench.run("org_a", spin)
    assert refused.value.code == "policy_too_costly"
    assert "1 s of one core" in refused.value.message
    assert bench.run("org_a", environment)


def test_memory_is_bounded_and_what_went_wrong_is_told(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="MemoryError"):
        bench.run("org_a", grow)
    assert bench.run("org_a", environment)


def test_who_gives_up_waiting_leaves_no_trace(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "WAIT", 0.2)
    go = str(tmp_path / "go")
    with bench._place("org_a"), pytest.raises(Crowded):
        bench.run("org_a", wait_for, go)
    assert not bench._waiting
    assert not bench._running


def test_a_call_for_which_the_machine_has_no_time_may_be_asked_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.run("org_a", environment)
    monkeypatch.setattr(bench_module, "WAIT", 0.2)
    with pytest.raises(Crowded):
        bench.run("org_a", wait_for, str(tmp_path / "go"))
    monkeypatch.setattr(bench_module, "WAIT", 20)
    assert bench.run("org_a", environment), "the one that did not answer is replaced"

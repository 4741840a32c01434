"""One part: ready, back-off, one-shot, hang, stop. The programs are small Python scripts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from cloudsignal.supervisor import part as part_module
from cloudsignal.supervisor.console import Console
from cloudsignal.supervisor.health import http_ok, steadily
from cloudsignal.supervisor.part import Part, Runner, State, ending
from tests.support.ports import free_port

SLEEP = "import time; time.sleep(60)"


async def yes(started: float) -> bool:
    return True


class Bench:
    """Makes parts out of Python snippets and runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = io.StringIO()
        self.runners: dict[str, Runner] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def part(self, name: str, code: str, **more: object) -> Runner:
        ready = more.pop("ready", yes)
        part = Part(name, [sys.executable, "-c", code], dict(os.environ), ready, **more)  # type: ignore[arg-type]
        runner = Runner(part, log=self.folder / f"{name}.log", console=Console(self.output), changed=lambda: None)
        self.runners[name] = runner
        return runner

    def run(self) -> None:
        self.tasks = [asyncio.create_task(runner.run(self.runners)) for runner in self.runners.values()]

    async def until(self, condition: Callable[[], object], *, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.output.getvalue()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))
        await asyncio.gather(*self.tasks)


@contextlib.asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    bench = Bench(folder)
    try:
        yield bench
    finally:
        await bench.stop()


def test_a_killed_part_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", SLEEP)
            b.run()
            await b.until(lambda: runner.state is State.READY)
            assert runner.process is not None
            first = runner.process.pid
            os.kill(first, signal.SIGKILL)
            await b.until(lambda: runner.restarts == 1 and runner.state is State.READY)
            assert runner.process.pid != first
            assert "was killed (SIGKILL)" in b.output.getvalue()
            assert "ready again" in b.output.getvalue()
        assert runner.process.returncode == -signal.SIGTERM

    asyncio.run(run())


def test_a_part_that_lacks_something_says_so_once_and_is_not_ended_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_module, "WAITING_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(part_module, "LOOK_SECONDS", 0.01)
    wants: list[str | None] = ["reaches no broker: it is frozen"]
    asked: list[float] = []

    async def lacks(started: float) -> str | None:
        asked.append(started)
        return wants[0]

    async def ready(started: float) -> bool:
        return wants[0] == ""

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("edge", SLEEP, ready=ready, lacks=lacks, start_seconds=0.05)
            b.run()
            await b.until(lambda: len(asked) > 20)
            assert (runner.state, runner.restarts, runner.trouble) == (State.STARTING, 0, wants[0])
            wants[0] = None
            seen = len(asked)
            await b.until(lambda: len(asked) > seen + 5)
            assert runner.trouble, "nobody can say that it has what it lacked"
            wants[0] = ""
            await b.until(lambda: runner.state is State.READY)
            assert not runner.trouble
            wants[0] = "reaches no broker: it is gone"
            await b.until(lambda: runner.trouble)
            assert (runner.state, runner.restarts) == (State.READY, 0)
        said = b.output.getvalue()
        assert said.count("reaches no broker: it is frozen") == said.count("reaches no broker: it is gone") == 1

    asyncio.run(run())


def test_pauses_double_up_to_the_cap_and_it_never_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(part_module, "BACKOFF_MOST", 0.04)

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", "print('the disk is full'); raise SystemExit(3)")
            b.run()
            await b.until(lambda: runner.restarts >= 6)
        pauses = [float(text) for text in re.findall(r"again in ([0-9.]+) s", b.output.getvalue())]
        assert runner._pause == 0.04
        assert len(pauses) < 6, "the console stays calm"
        assert "exited with code 3" in b.output.getvalue()
        assert "| the disk is full" in b.output.getvalue()

    asyncio.run(run())


def test_a_steady_part_starts_again_with_the_shortest_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "STEADY_SECONDS", 0.0)

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", SLEEP)
            b.run()
            for restart in range(3):
                await b.until(lambda: runner.restarts == restart and runner.state is State.READY)  # noqa: B023
                assert runner.process is not None
                runner.process.kill()
                await b.until(lambda: runner.restarts == restart + 1)  # noqa: B023
            assert runner._pause == pytest.approx(2 * part_module.BACKOFF_FIRST)

    asyncio.run(run())


def test_a_part_waits_for_those_it_comes_after(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def open_gate(started: float) -> bool:
        return gate.exists()

    async def run() -> None:
        async with bench(tmp_path) as b:
            first = b.part("first", SLEEP, ready=open_gate)
            second = b.part("second", SLEEP, after=("first",))
            b.run()
            await b.until(lambda: first.process is not None)
            await asyncio.sleep(0.2)
            assert (first.state, second.state, second.process) == (State.STARTING, State.WAITING, None)
            gate.touch()
            await b.until(lambda: second.state is State.READY)

    asyncio.run(run())


def test_a_one_shot_is_done_at_zero_and_tried_again_otherwise(tmp_path: Path) -> None:
    code = (
        f"import pathlib; p = pathlib.Path({str(tmp_path / 'once')!r}); there = p.exists(); p.touch(); exit(not there)"
    )

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("shot", code, one_shot=True)
            after = b.part("after", SLEEP, after=("shot",))
            b.run()
            await b.until(lambda: after.state is State.READY)
            assert (runner.state, runner.restarts) == (State.DONE, 1)
            assert runner.up.is_set()

    asyncio.run(run())


def test_provisioning_happens_once_and_before_it_counts_as_ready(tmp_path: Path) -> None:
    calls: list[State] = []

    async def run() -> None:
        async with bench(tmp_path) as b:

            async def provision() -> None:
                calls.append(runner.state)

            runner = b.part("a", SLEEP, provision=provision)
            b.run()
            await b.until(lambda: runner.state is State.READY)
            assert runner.process is not None
            runner.process.kill()
            await b.until(lambda: runner.restarts == 1 and runner.state is State.READY)

    asyncio.run(run())
    assert calls == [State.STARTING]


def test_what_goes_away_while_it_is_provisioned_is_provisioned_after_its_next_answer(tmp_path: Path) -> None:
    calls: list[State] = []

    async def run() -> None:
        async with bench(tmp_path) as b:

            async def provision() -> None:
                calls.append(runner.state)
                if len(calls) == 1:
                    raise ConnectionError

            runner = b.part("a", SLEEP, provision=provision)
            b.run()
            await b.until(lambda: runner.state is State.READY)

    asyncio.run(run())
    assert calls == [State.STARTING, State.STARTING]


def test_a_part_that_is_stopped_while_it_prepares_is_not_started(tmp_path: Path) -> None:
    preparing, go_on = threading.Event(), threading.Event()

    def prepare() -> None:
        preparing.set()
        go_on.wait(60)

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", SLEEP, prepare=prepare)
            b.run()
            await b.until(preparing.is_set)
            await runner.stop()
            go_on.set()
            await b.until(lambda: all(task.done() for task in b.tasks))
            assert runner.process is None

    asyncio.run(run())


def test_a_part_that_never_gets_ready_is_started_again(tmp_path: Path) -> None:
    async def no(started: float) -> bool:
        return False

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", SLEEP, ready=no, start_seconds=0.3)
            b.run()
            await b.until(lambda: runner.restarts >= 1)
            assert "not ready after" in b.output.getvalue()

    asyncio.run(run())


def test_a_silent_part_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "SILENT_SECONDS", 1800.0)
    monkeypatch.setattr(part_module, "LOOK_SECONDS", 0.05)
    alive = tmp_path / "alive"
    alive.touch()

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", SLEEP, alive_file=alive)
            b.run()
            await b.until(lambda: runner.state is State.READY)
            await asyncio.sleep(0.4)
            assert runner.restarts == 0
            os.utime(alive, (time.time() - 3600, time.time() - 3600))
            await b.until(lambda: runner.restarts == 1)
            alive.touch()
            assert "silent" in b.output.getvalue()

    asyncio.run(run())


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_part_that_does_not_answer_any_more_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_module, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(part_module, "LOOK_SECONDS", 0.05)
    port = free_port()

    async def answers() -> bool:
        return await http_ok(f"http://127.0.0.1:{port}/", seconds=0.3)

    async def run() -> None:
        async with bench(tmp_path) as b:
            code = SERVER.replace("int(sys.argv[1])", str(port))
            runner = b.part("web", code, ready=steadily(answers), alive=answers, stop_seconds=0.2)
            b.run()
            await b.until(lambda: runner.state is State.READY)
            await asyncio.sleep(1.5)
            assert runner.restarts == 0
            assert runner.process is not None
            first = runner.process.pid
            os.kill(first, signal.SIGSTOP)
            await b.until(lambda: runner.restarts >= 1 and runner.state is State.READY)
            assert runner.process.pid != first
            assert "silent" in b.output.getvalue()

    asyncio.run(run())


def test_a_part_that_ignores_its_stop_signal_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", code, stop_seconds=0.3)
            b.run()
            await b.until(lambda: "up" in runner.log.read_text() if runner.log.exists() else False)
            await runner.stop()
            assert runner.process is not None
            assert runner.process.returncode == -signal.SIGKILL
            assert "did not stop" in b.output.getvalue()

    asyncio.run(run())


def test_what_a_killed_part_had_started_does_not_outlive_it(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"

    async def run() -> None:
        async with bench(tmp_path) as b:
            runner = b.part("a", code)
            b.run()
            await b.until(lambda: runner.log.exists() and runner.log.read_text().splitlines()[-1].isdigit())
            child = psutil.Process(int(runner.log.read_text().splitlines()[-1]))
            assert runner.process is not None
            runner.process.kill()
            await b.until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

    asyncio.run(run())


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path) as b:
            part = Part("gone", ["/nonexistent/program"], {}, yes)
            runner = Runner(part, log=tmp_path / "gone.log", console=Console(b.output), changed=lambda: None)
            b.runners["gone"] = runner
            b.run()
            await b.until(lambda: runner.restarts >= 1)
            assert "could not be started" in b.output.getvalue()
            assert "/nonexistent/program" in b.output.getvalue()

    asyncio.run(run())


def test_endings_are_told_in_words() -> None:
    assert ending(3) == "exited with code 3"
    assert ending(-9) == "was killed (SIGKILL)"
    assert ending(-62) == "was killed (signal 62)"

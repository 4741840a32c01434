"""Check the running parts of a data folder, or the usual ports when nothing runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudsignal.cli.checks.result import Result, fine, problem, warning
from cloudsignal.supervisor import state
from cloudsignal.supervisor.assembly import MQTTS_PORT, WEB_PORT, WSS_PORT
from cloudsignal.supervisor.ports import holder, is_free

USUAL = {"dashboard": (WEB_PORT, "--web-port"), "mqtts": (MQTTS_PORT, "--mqtts-port"), "wss": (WSS_PORT, "--wss-port")}
SETTLED = {"ready", "done"}


def running(data: Path) -> dict[str, Any]:
    """``run.json`` when a supervisor holds the data folder, else nothing."""
    return state.read(data / "run.json") if state.is_running(data / "lock") else {}


def check(data: Path) -> Iterator[Result]:
    """One result for each part that runs, or for each usual port when nothing does."""
    now = running(data)
    if not now:
        yield fine("supervisor", f"not running on {data} (start it with `cloudsignal up`)")
        yield from _ports()
        return
    since = time.time() - float(now.get("started", time.time()))
    what = f"process {now.get('pid')} on {data}, for {_span(since)}; dashboard {now['urls'].get('web', '')}"
    yield fine("supervisor", what)
    for name, part in now.get("parts", {}).items():
        yield _part(name, part)


def _part(name: str, part: dict[str, Any]) -> Result:
    condition, restarts = part.get("state"), part.get("restarts", 0)
    if trouble := part.get("trouble"):
        return problem(
            f"part {name}", str(trouble), "start that broker, or fix MQTT_UPSTREAM_URL; see the checks below"
        )
    if condition not in SETTLED:
        return problem(f"part {name}", f"{condition}, {restarts} restarts", f"read its log: {part.get('log')}")
    pid = part.get("pid")
    if condition == "ready" and (not pid or state.birth(pid) != part.get("born")):
        return problem(f"part {name}", f"process {pid} is gone", f"read its log: {part.get('log')}")
    text = f"{condition} for {_span(time.time() - float(part['since']))}" + (f", process {pid}" if pid else "")
    if restarts:
        return warning(f"part {name}", f"{text}, {restarts} restarts", f"its log says why: {part.get('log')}")
    return fine(f"part {name}", text)


def _ports() -> Iterator[Result]:
    for what, (port, option) in USUAL.items():
        if is_free(port):
            yield fine(f"port {port}", f"free ({what})")
        else:
            fix = f"nothing to do, the next free port is taken; or stop it, or choose one with {option}"
            yield warning(f"port {port}", f"held by {holder(port)} ({what})", fix)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

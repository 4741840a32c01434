"""How much one organization's attack costs another: ``make bench-neighbors`` prints one JSON object.

For each attack another organization's client (or API user) measures its own round trips, first alone, then while the
attack runs; ``p99_ratio`` is the p99 under attack divided by the p99 alone of the same run, ``stall_ms`` the slowest
single answer under attack. ``worst_p99_ratio`` and ``worst_stall_ms`` are the largest of all attacks. The attacks are
those of ``tests/support``, at the sizes that once broke something; each runs in a process of its own with the lowest
priority, because in the field an attacker brings a machine along. ``attacker_events`` counts what the audit tells of
the attacker: an attack that did not happen would show in it. ``attacker_mib`` is what the edge's memory grew by,
``attacker_mib_per_session`` the same for each of the ten sessions of the attack on memory.

Edge, broker, PostgreSQL, Valkey, web and workers are real and of this run alone. ``QUICK=1`` makes it short and rough.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.parts import ALLOW_ALL
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.system import Stack
from tests.support.wire import dial_tls

QUICK = os.environ.get("QUICK") == "1"
SECONDS = 2.0 if QUICK else 10.0
SETTLE = 0.5
"""Seconds between an attack's first blow and the first measurement under it."""
PAUSE = 0.003
NEIGHBOR = "127.0.9.3"
"""The neighbor's address: in another network than the attacker's."""
EDGE = ("user_properties", "connects", "filters", "memory", "frames", "journal", "retained", "silence")
WEB = ("bodies", "documents")
NOTHING = "version: '3'\nrules: []"
GOALS = {"p99_ratio": 5.0, "stall_ms": 500.0}

SEED = """
import json
from orgs.access.grants import access_org
from orgs.models import User
from orgs.api_keys.keys import create_api_key
from orgs.organizations.lifecycle import create_organization
keys = []
for name in ("Attacker", "Neighbor"):
    user = User.objects.create_user(f"{name.lower()}@example.com", "correct horse battery")
    access = access_org(user, create_organization(user, name=name).pk)
    keys.append(create_api_key(access, kind="sk", name="bench").secret)
print(json.dumps(keys))
"""


def main() -> int:
    """Measure and print."""
    chosen = set(sys.argv[1:])
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="cs-neighbors-", dir="/tmp") as folder:
        for name in EDGE:
            if not chosen or name in chosen:
                found[name] = at_the_edge(name, Path(folder) / name)
                print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    if not chosen or chosen & set(WEB):
        found |= at_the_web([name for name in WEB if not chosen or name in chosen])
    result = {
        "worst_p99_ratio": max(one["p99_ratio"] for one in found.values()),
        "worst_stall_ms": max(one["stall_ms"] for one in found.values()),
        "missed": sorted(name for name, one in found.items() if any(one[goal] > most for goal, most in GOALS.items())),
        "attacks": found,
        "seconds_each": SECONDS,
        "quick": QUICK,
    }
    print(json.dumps(result))
    return 0


def at_the_edge(name: str, folder: Path) -> dict[str, float]:
    """One attack on an edge of its own, next to a client of another organization that publishes with QoS 1."""
    folder.mkdir()
    rig = build_rig(folder)
    try:
        attacker = rig.plane.issue(rig.org(NOTHING if name == "journal" else ALLOW_ALL))
        probe = signing_in(rig) if name == "silence" else publishing(rig)
        options = {
            "port": rig.edge.port, "wss_port": rig.edge.wss_port, "ca": str(rig.authority.file),
            "username": attacker.username, "password": attacker.password,
        }  # fmt: skip
        process = psutil.Process(rig.edge.pid)
        before = process.memory_info().rss
        found = compare(name, options, probe)
        found["attacker_events"] = sum(event.count for event in rig.plane.events(org=attacker.org))
        grown = max(0, process.memory_info().rss - before) / 1024 / 1024
    finally:
        stop_rig(rig)
    found["attacker_mib"] = round(grown, 1)
    if name == "memory":
        found["attacker_mib_per_session"] = round(grown / 10, 2)
    return found


def at_the_web(names: list[str]) -> dict[str, dict[str, float]]:
    """Attacks on the web process, next to the health check and to another organization's API, both at one address."""
    stack = Stack(edges=1)
    stack.start()
    found: dict[str, dict[str, float]] = {}
    try:
        stack.wait_ready()
        attacker, neighbor = json.loads(stack.django(SEED))
        with httpx.Client(base_url=stack.url, trust_env=False, timeout=60) as client:
            for name in names:
                probes = {
                    name: asking(client, "/v2/me", {"Authorization": f"Bearer {neighbor}"}),
                    f"{name}_health": asking(client, "/healthz", {}),
                }
                for title, probe in probes.items():
                    found[title] = compare(name, {"url": stack.url, "key": attacker}, probe)
                    print(title, json.dumps(found[title]), file=sys.stderr, flush=True)
    finally:
        stack.remove()
    return found


def compare(name: str, options: dict[str, Any], probe: Callable[[], bool | None]) -> dict[str, float]:
    """The probe's times alone and under the attack."""
    for _ in range(20):
        probe()
    alone = times(probe)
    with attacking(name, options) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"begun\n", f"the attack {name} did not begin"
        time.sleep(SETTLE)
        attacked = times(probe)
        assert attacker.poll() is None, f"the attack {name} ended early"
    return {
        "p99_ratio": round(p99(attacked) / p99(alone), 2),
        "p50_ratio": round(statistics.median(attacked) / statistics.median(alone), 2),
        "stall_ms": round(max(attacked) * 1000, 1),
        "alone_p99_ms": round(p99(alone) * 1000, 2),
        "alone_stall_ms": round(max(alone) * 1000, 1),
        "answers": len(attacked),
    }


@contextlib.contextmanager
def attacking(name: str, options: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The attacker's process, which ends by itself a little after the measurement."""
    given = json.dumps({**options, "seconds": SECONDS + SETTLE + 5.0})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.neighbors_attack", name, given], stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def times(probe: Callable[[], bool | None]) -> list[float]:
    """How long each answer took, in seconds, for :data:`SECONDS`. A probe that returns ``False`` got none."""
    found: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        started = time.perf_counter()
        if probe() is not False:
            found.append(time.perf_counter() - started)
        time.sleep(PAUSE)
    return found


def p99(found: list[float]) -> float:
    """The 99th percentile."""
    return sorted(found)[min(len(found) - 1, int(len(found) * 0.99))]


def publishing(rig: Rig) -> Callable[[], None]:
    """A client of another organization that publishes and waits for the acknowledgement."""
    issued = rig.plane.issue(rig.org(), "neighbor")
    wire = dial_tls(rig.edge.port, rig.authority.client_context(), source=NEIGHBOR)
    assert wire.connect(version=5, client_id="neighbor", username=issued.username, password=issued.password).code == 0
    return lambda: wire.publish("a/b", b"x" * 64, qos=1) and None


def signing_in(rig: Rig) -> Callable[[], None]:
    """A client of another organization that connects, signs in and leaves."""
    issued = rig.plane.issue(rig.org(), "neighbor")
    context = rig.authority.client_context()

    def once() -> None:
        wire = dial_tls(rig.edge.port, context, source=NEIGHBOR)
        assert wire.connect(version=5, client_id="n", username=issued.username, password=issued.password).code == 0
        wire.disconnect()

    return once


def asking(client: httpx.Client, path: str, headers: dict[str, str]) -> Callable[[], bool]:
    """Somebody else's request to the web process; one beyond its own rate limit counts for nothing."""

    def once() -> bool:
        answer = client.get(path, headers=headers)
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            time.sleep(0.2)
            return False
        assert answer.status_code == httpx.codes.OK, answer.text
        return True

    return once


if __name__ == "__main__":
    sys.exit(main())

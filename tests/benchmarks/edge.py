"""How fast is the edge? Ratios to the bare Mosquitto over TLS in the same run: ``python -m tests.benchmarks.edge``.

Same generator (``mqtt_load.c``), same certificates, 64-byte payloads; the edge has a policy of 1,000 rules, audit and
counters on. Rounds alternate between the two, in rotating order; each figure is the median of the ratios of its
rounds, so that a machine that gets slower half-way does not decide. Rounds in which the hypervisor or programs that
have nothing to do with it took more than 6 % of the time are repeated once; ``others_cpu`` says how much that was in
the rounds that counted. A machine that is busy with other things spoils every ratio of rates, so there is a
``core_ratio`` beside each: what the busiest process (server, broker or generator) needs of a core for one message,
bare over edge, which is the ratio of rates where each process has a core to itself. Prints progress on stderr and, as
the last line, one JSON object on stdout.
``QUICK=1`` stays under a minute and is for trends only; ``QUICK=0`` (default) takes about six.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cloudsignal.wire.bundle import Quotas
from tests.support.parts import Broker, Issued, Process, wait_for
from tests.support.ports import free_port
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.wire import Wire

QUICK = os.environ.get("QUICK", "0") not in {"", "0"}
ROUNDS = 1 if QUICK else 5
SECONDS = 1 if QUICK else 2
NOISE = 0.06
RULES = 1_000
IDLE = 500 if QUICK else 4_000
SWAP = 1_000 if QUICK else 9_800

CASES = {
    # name: mode, count, window, qos, version, rate, vary
    "qos0": ("pairs", 10, 100, 0, 4, 0, False),
    "qos1": ("pairs", 10, 20, 1, 4, 0, False),
    "qos1_v5": ("pairs", 200, 20, 1, 5, 0, False),
    "fanout50": ("fanout", 50, 20, 0, 4, 0, False),
    "scatter": ("pairs", 200, 1, 0, 4, 0, False),
    "sizes": ("pairs", 10, 100, 0, 4, 0, True),
    "connect": ("connect", 16, 0, 0, 4, 0, False),
    "latency": ("rate", 100, 0, 0, 4, 15_000, False),
}

GOALS = {"qos0": 1.0, "qos1": 1.0, "fanout50": 1.0, "scatter": 0.45, "connect": 0.6}


@dataclass
class Target:
    """One of the two servers."""

    name: str
    port: int
    username: str
    password: str
    processes: dict[str, int]
    """Those whose work is counted, by name."""
    beside: list[int] = field(default_factory=list)
    """Others that belong to the benchmark."""


@dataclass
class Measured:
    """One run of the generator."""

    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]
    """Microseconds per message or connect, by process of the server's side."""
    load: float
    """Share of a core the generator used."""
    steal: float
    others: float
    """Share of the machine that programs used which do not belong here."""

    @property
    def busiest(self) -> float:
        """Microseconds of a core the process that limits the rate needs for one message or connect."""
        return max(*self.cpu.values(), self.load / self.rate * 1e6)

    @property
    def noise(self) -> float:
        """Share of the machine that was not ours."""
        return self.steal + self.others


def build_load(folder: Path) -> Path:
    """Compile the generator."""
    source, program = Path(__file__).with_name("mqtt_load.c"), folder / "mqtt_load"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("a C compiler is needed for the load generator (apt install gcc libc6-dev)")
    libraries = [found for name in ("ssl", "crypto") if (found := ctypes.util.find_library(name))]
    if len(libraries) != 2:
        sys.exit("the load generator needs OpenSSL's libraries (apt install libssl3)")
    command = [compiler, "-O2", "-Wall", "-o", program, source, *(f"-l:{name}" for name in libraries)]
    subprocess.run(command, check=True)
    return program


class BareBroker(Process):
    """Mosquitto with TLS and a password file, nothing in front."""

    def __init__(self, folder: Path, rig: Rig) -> None:
        folder.mkdir()
        super().__init__(folder / "bare.log")
        self.port = free_port()
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", passwords, "bench", "secret"], check=True, capture_output=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"certfile {rig.edge.env['EDGE_TLS_CERT']}",
            f"keyfile {rig.edge.env['EDGE_TLS_KEY']}",
            "tls_version tlsv1.2",
            "allow_anonymous false",
            f"password_file {passwords}",
            "set_tcp_nodelay true",
            "max_inflight_messages 20",
            "max_queued_messages 1000",
            "connection_messages false",
            "sys_interval 0",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        self.config = folder / "bare.conf"
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it."""
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        assert program
        self.launch([program, "-c", str(self.config)])
        time.sleep(0.5)


def policy() -> str:
    """1,000 rules, of which the last one lets the benchmark through."""
    rules = [
        {"id": f"device-{n}", "who": f"device-{n}", "topic": [f"things/{n}/+/state", f"things/{n}/cmd/#"]}
        for n in range(RULES - 1)
    ]
    return json.dumps({"version": "3", "rules": [*rules, {"id": "bench", "topic": "bench/#"}]})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> tuple[float, float, float]:
    """Stolen, busy and total time of all processors."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [int(value) / tick for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return fields[7], sum(fields[:8]) - fields[3] - fields[4] - fields[7], sum(fields[:8])


def run_load(program: Path, target: Target, case: str) -> Measured:
    """One run of one case against one server."""
    mode, count, window, qos, version, rate, vary = CASES[case]
    command = [str(program), mode, target.port, count, window, qos, version, SECONDS, rate]
    command += [target.username, target.password, *(["vary"] if vary else [])]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        before: dict[str, float] = {}
        used: dict[str, float] = {}
        ours = [*target.processes.values(), *target.beside, load.pid, os.getpid()]
        own = steal = others = 0.0
        machine = (0.0, 0.0, 0.0)
        result: dict[str, float] = {}
        for line in load.stdout:
            if line.startswith("BEGIN"):
                before = {name: cpu_seconds(pid) for name, pid in target.processes.items()}
                own, machine = sum(map(cpu_seconds, ours)), machine_seconds()
            elif line.startswith("END"):
                used = {name: cpu_seconds(pid) - before[name] for name, pid in target.processes.items()}
                stolen, busy, took = (now - then for now, then in zip(machine_seconds(), machine, strict=True))
                steal = stolen / max(0.1, took)
                others = max(0.0, busy - (sum(map(cpu_seconds, ours)) - own)) / max(0.1, took)
            elif line.startswith("{"):
                result = json.loads(line)
    if not result:
        sys.exit(f"the generator failed in case {case} against {target.name}")
    messages = max(1.0, result["count"])
    cpu = {name: seconds / messages * 1e6 for name, seconds in used.items()}
    return Measured(
        rate=result["count"] / result["seconds"],
        p50=result["p50_us"],
        p99=result["p99_us"],
        cpu=cpu,
        load=result["cpu"] / result["seconds"],
        steal=steal,
        others=others,
    )


def compare(program: Path, bare: Target, edge: Target, cases: list[str]) -> dict[str, object]:
    """All cases, in rounds; returns the figures."""
    pairs: dict[str, list[tuple[Measured, Measured]]] = {case: [] for case in cases}
    for number in range(ROUNDS):
        for case in cases:
            for _attempt in range(2):
                order = [bare, edge] if number % 2 else [edge, bare]
                measured = {target.name: run_load(program, target, case) for target in order}
                if QUICK or max(one.noise for one in measured.values()) <= NOISE:
                    break
            b, e = measured["bare"], measured["edge"]
            pairs[case].append((b, e))
            print(
                f"{number + 1}/{ROUNDS} {case:9} bare {b.rate:9,.0f}/s  edge {e.rate:9,.0f}/s"
                f"  ratio {e.rate / b.rate:.2f}"
                f"  cpu us {' '.join(f'{name} {value:.1f}' for name, value in {**b.cpu, **e.cpu}.items())}"
                f"  p50 {b.p50:.0f}/{e.p50:.0f}  p99 {b.p99:.0f}/{e.p99:.0f}"
                f"  generator {b.load:.2f}/{e.load:.2f}  steal {max(b.steal, e.steal):.0%}"
                f"  others {max(b.others, e.others):.0%}",
                file=sys.stderr,
            )
    figures: dict[str, object] = {}
    if not pairs:
        return figures
    every = [one for rounds in pairs.values() for pair in rounds for one in pair]
    figures["steal"] = round(statistics.median(one.steal for one in every), 3)
    figures["others_cpu"] = round(statistics.median(one.others for one in every), 3)
    figures["generator_cpu"] = round(statistics.median(one.load for one in every), 2)
    for case, rounds in pairs.items():
        if case == "latency":
            figures["p50_added_us"] = round(statistics.median(e.p50 - b.p50 for b, e in rounds), 1)
            figures["p99_added_us"] = round(statistics.median(e.p99 - b.p99 for b, e in rounds), 1)
            figures["p99_us"] = round(statistics.median(e.p99 for _, e in rounds), 1)
            continue
        ratios = [e.rate / b.rate for b, e in rounds]
        figures[f"{case}_ratio"] = round(statistics.median(ratios), 3)
        figures[f"{case}_range"] = [round(min(ratios), 2), round(max(ratios), 2)]
        figures[f"{case}_core_ratio"] = round(statistics.median(b.busiest / e.busiest for b, e in rounds), 3)
        figures[f"{case}_rate"] = round(statistics.median(e.rate for _, e in rounds))
        figures[f"{case}_edge_cpu_us"] = round(statistics.median(e.cpu["edge"] for _, e in rounds), 2)
        figures[f"{case}_bare_cpu_us"] = round(statistics.median(b.cpu["bare"] for b, _ in rounds), 2)
        figures[f"{case}_generator_cpu"] = round(max(max(b.load, e.load) for b, e in rounds), 2)
    return figures


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Idle:
    """Connections that only exist."""

    def __init__(self, program: Path, target: Target, count: int, *, keep_alive: int = 0) -> None:
        command = [str(program), "idle", target.port, count, 0, 0, 4, 1, keep_alive, target.username, target.password]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("READY"), "the idle connections did not come about"

    def close(self) -> tuple[int, int]:
        """Drop them all; returns how many pings were sent and answered. Fails when a connection was lost before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.poll() is None, "a connection was lost"
        self._process.stdin.close()
        said = json.loads(self._process.stdout.readline())
        self._process.wait(60)
        return said["pings"], said["pongs"]


def bytes_per_idle_session(rig: Rig, program: Path, target: Target) -> int:
    """Growth of the edge's resident memory per idle session with one subscription."""
    before = resident(rig.edge.pid)
    idle = Idle(program, target, IDLE)
    time.sleep(1)
    grown = resident(rig.edge.pid) - before
    idle.close()
    time.sleep(2)
    return grown // IDLE


class Prober(threading.Thread):
    """Publishes to itself all the time and remembers how long each round trip took."""

    def __init__(self, client: Wire) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._done = False
        self.trips: list[float] = []

    def run(self) -> None:
        self._client.subscribe("bench/probe")
        while not self._done:
            started = time.perf_counter()
            self._client.publish("bench/probe")
            self._client.delivery()
            self.trips.append(time.perf_counter() - started)
            time.sleep(0.0005)

    def finish(self) -> None:
        self._done = True
        self.join(10)


def swap_stall(rig: Rig, program: Path, target: Target, issued: Issued) -> tuple[float, float]:
    """Longest round trip in ms without and with a new policy arriving under :data:`SWAP` live sessions."""
    idle = Idle(program, target, SWAP)
    worst: list[float] = []
    for deploy in (False, True):
        prober = Prober(rig.client(issued, client_id="prober"))
        prober.start()
        time.sleep(1.0)
        prober.trips.clear()
        if deploy:
            document = json.loads(policy())
            document["rules"][0]["note"] = "changed"
            revision = rig.plane.deploy(issued.org, json.dumps(document), quotas=UNLIMITED)
            rig.plane.enforced(issued.org, revision)
        time.sleep(2.0)
        prober.finish()
        worst.append(max(prober.trips) * 1000)
    idle.close()
    return worst[0], worst[1]


UNLIMITED = Quotas(connections=0, messages_per_minute=0, packet_bytes=262_144, subscriptions_per_session=100)


def main() -> int:
    """Measure everything and print one JSON line."""
    cases = sys.argv[1:] or ([case for case in CASES if case != "qos1_v5"] if QUICK else list(CASES))
    folder = Path(tempfile.mkdtemp(prefix="cs-bench-", dir="/tmp"))
    program = build_load(folder)
    rig = build_rig(folder, broker=Broker(folder), EDGE_WSS="off", EDGE_ADDRESS_CONNECTIONS="1000000")
    bare_broker = BareBroker(folder / "bare", rig)
    bare_broker.start()
    try:
        org = rig.org(policy(), quotas=UNLIMITED)
        issued = rig.plane.issue(org, "bench", ttl=0)
        wait_for(lambda: rig.client(issued), what="the edge")
        everybody = [bare_broker.pid, rig.edge.pid, rig.broker.pid, rig.valkey.pid]
        processes = {"edge": rig.edge.pid, "broker": rig.broker.pid, "redis": rig.valkey.pid}
        bare = Target("bare", bare_broker.port, "bench", "secret", {"bare": bare_broker.pid}, everybody[1:])
        edge = Target("edge", rig.edge.port, issued.username, issued.password, processes, everybody[:1])
        figures: dict[str, object] = {}
        if not sys.argv[1:] or "idle" in cases:
            figures["bytes_per_idle_session"] = bytes_per_idle_session(rig, program, edge)
            quiet, stall = swap_stall(rig, program, edge, issued)
            figures["policy_swap_10000_stall_ms"] = round(stall, 1)
            figures["policy_swap_sessions"] = SWAP
            figures["no_swap_stall_ms"] = round(quiet, 1)
            print(f"idle {figures}", file=sys.stderr)
        figures |= compare(program, bare, edge, [case for case in cases if case in CASES])
        figures["quick"] = QUICK
        print(json.dumps(figures))
        missed = [name for name, goal in GOALS.items() if float(str(figures.get(f"{name}_ratio", goal))) < goal]
        if missed:
            print(f"below goal: {', '.join(missed)}", file=sys.stderr)
    finally:
        bare_broker.stop()
        stop_rig(rig)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

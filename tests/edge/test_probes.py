"""Probes of broker nodes: what is wrong in plain words, in bounded time, told once, and nothing flaps."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from audit.kinds import BROKER_BACK, BROKER_LOST, BROKERS_AGREE, BROKERS_DISAGREE
from cloudsignal.config import Environment, Upstream
from cloudsignal.edge.broker import probe as one_probe
from cloudsignal.edge.broker import probes as all_probes
from cloudsignal.edge.broker.housekeeping import Housekeeping, HousekeepingError
from cloudsignal.edge.broker.pool import BrokerPool, Reached
from cloudsignal.edge.broker.probe import ProbeResult, client_id, probe
from cloudsignal.edge.broker.probes import Probes, Watched
from cloudsignal.edge.redis import Store
from cloudsignal.ids import PROBE_ORG
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.codec import decode
from cloudsignal.wire.report import Heartbeat
from cloudsignal.wire.sealed import unchecked
from tests.support.broker_nodes import TlsNode, upstream_url
from tests.support.parts import Authority, Broker, Edge, Plane, Valkey, metrics, wait_for
from tests.support.vernemq_status import StatusPages

UP, DOWN = ProbeResult("reachable", latency_ms=2.0), ProbeResult("unreachable", "no answer within 1.5 s")


class Sink:
    """Events in the journal."""

    taken = 0

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)

    note = record

    def again(self, key: object) -> bool:
        return False

    def fold(self, key: object, event: AuditEvent) -> None:
        self.record(event)

    def kinds(self) -> list[tuple[str, str]]:
        """Kind and broker of each event."""
        return [(event.kind, str(event.details.get("broker", ""))) for event in self.events]


def pool_of(url: str) -> BrokerPool:
    return BrokerPool(Environment({"MQTT_UPSTREAM_URL": url}).upstream())


async def probed(pool: BrokerPool) -> ProbeResult:
    node = next(node for node in await pool.nodes() if ":" not in node.ip)
    return await probe(pool, node, edge="edge-1")


@pytest.fixture(scope="module")
def cluster(workdir: Path) -> Iterator[tuple[Path, Authority, list[TlsNode]]]:
    """Two nodes behind TLS. A test leaves them running."""
    folder = Path(tempfile.mkdtemp(dir=workdir))
    authority = Authority(folder / "tls")
    nodes = [TlsNode(folder / f"node-{number}", authority) for number in (1, 2)]
    for node in nodes:
        node.start()
    yield folder, authority, nodes
    for node in nodes:
        with suppress(AssertionError, ProcessLookupError):
            node.thaw()
        node.stop(kill=True)


# --- one probe -----------------------------------------------------------------------------------------------------


def test_a_probe_signs_in_pings_and_leaves_in_a_name_that_no_tenant_has(broker: Broker) -> None:
    broker.stop()
    broker.config.write_text(broker.config.read_text().replace("connection_messages false", "connection_messages true"))
    broker.start()
    found = asyncio.run(probed(BrokerPool(Upstream(path=str(broker.socket)))))
    assert (found.state, found.why) == ("reachable", "")
    assert 0 < found.latency_ms < one_probe.SLOW_MS
    name = client_id("edge-1", str(broker.socket))
    assert name.startswith(f"{PROBE_ORG}:%probe-edge-1-")
    wait_for(lambda: f"Client {name} disconnected." in broker.output(), what="the end of the probe")
    assert f"as {name} (p5, c1, k{one_probe.KEEP_ALIVE}, u'{PROBE_ORG}')" in broker.output()


def test_a_client_certificate_that_the_broker_rejects_is_said_in_plain_words(
    cluster: tuple[Path, Authority, list[TlsNode]], workdir: Path
) -> None:
    _, authority, nodes = cluster
    folder = Path(tempfile.mkdtemp(dir=workdir))
    stranger = Authority(folder / "stranger")
    found = asyncio.run(probed(pool_of(upstream_url(authority, folder, nodes[:1], signer=stranger))))
    assert found.state == "refused"
    assert found.why == "client certificate rejected: its signature does not verify with the broker's authority"
    found = asyncio.run(probed(pool_of(f"mqtts://localhost:{nodes[0].port}?ca={authority.file}")))
    assert found == ProbeResult(
        "refused", "client certificate rejected: it asks for a client certificate, and none is configured"
    )
    found = asyncio.run(probed(pool_of(upstream_url(stranger, folder, nodes[:1], signer=authority))))
    assert found.state == "refused"
    assert found.why.startswith("its certificate is not trusted: ")


def test_a_frozen_broker_and_one_that_is_gone_cost_a_bounded_time(
    cluster: tuple[Path, Authority, list[TlsNode]], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_probe, "WITHIN", 0.2)
    _, authority, (node, _) = cluster
    pool = pool_of(upstream_url(authority, Path(tempfile.mkdtemp(dir=workdir)), [node]))
    node.freeze()
    try:
        assert asyncio.run(probed(pool)).why.startswith("no answer within")
    finally:
        node.thaw()
    assert asyncio.run(probed(BrokerPool(Upstream(path="/nowhere.sock")))).why == "its socket does not exist"


NO_MQTT = "what answers is no MQTT broker"
ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "an HTTP server": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unreachable", NO_MQTT),
    "a length without an end": (
        b"\x20\xff\xff\xff\x7f" + b"\0" * 99_999,
        "unreachable",
        "what answers is no MQTT broker",
    ),
    "another packet": (b"\xd0\x00", "unreachable", NO_MQTT),
    "a short CONNACK": (b"\x20\x01\x00", "unreachable", NO_MQTT),
    "nothing": (b"", "refused", "closed the connection before it had answered"),
    "not authorized": (
        b"\x20\x03\x00\x87\x00",
        "refused",
        f"{PROBE_ORG}, the username of probes, may not sign in",
    ),
    "not ready": (b"\x20\x03\x00\x88\x00", "refused", "it takes no sign-ins now"),
    "use another server": (b"\x20\x03\x00\x9c\x00", "refused", "0x9c: use another server"),
    "moved": (b"\x20\x03\x00\x9d\x00", "refused", "0x9d: the server has moved"),
    "a goodbye": (b"\x20\x03\x00\x00\x00\xe0\x01\x8b", "refused", "ended the connection with 0x8b"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_answers_is_told_apart_and_never_believed(workdir: Path, answer: str) -> None:
    said, state, why = ANSWERS[answer]
    path = str(Path(tempfile.mkdtemp(dir=workdir)) / "s")

    async def run() -> ProbeResult:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(said)
            writer.close()

        async with await asyncio.start_unix_server(serve, path):
            return await probed(BrokerPool(Upstream(path=path)))

    found = asyncio.run(run())
    assert found.state == state, found
    assert why in found.why


# --- what counts of it -----------------------------------------------------------------------------------------------


def states(*found: ProbeResult) -> list[tuple[str, float, bool]]:
    """State, since when, and whether it was a transition, after each probe; the clock counts probes."""
    watched = Watched("b")
    return [
        (state, watched.state.since, changed)
        for now, one in enumerate(found, 1)
        for changed in [watched.note(one, float(now))]
        for state in [watched.state.state]
    ]


def test_two_failures_in_a_row_lose_a_node_and_one_success_brings_it_back() -> None:
    assert states(UP, DOWN, UP, DOWN, DOWN, DOWN, UP) == [
        ("reachable", 1.0, False), ("reachable", 1.0, False), ("reachable", 1.0, False), ("reachable", 1.0, False),
        ("unreachable", 4.0, True), ("unreachable", 4.0, False), ("reachable", 7.0, True),
    ]  # fmt: skip
    assert states(DOWN, DOWN) == [("unknown", 0.0, False), ("unreachable", 1.0, True)]


def test_a_node_that_is_slow_twice_is_slow_and_not_lost() -> None:
    slow = ProbeResult("slow", "took 700 ms", 700.0)
    assert states(UP, slow, UP, slow, slow, UP) == [
        (state, 1.0, False) for state in ("reachable", "reachable", "reachable", "reachable", "slow", "reachable")
    ]


async def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(1_500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses ten times as short; a probe has all of its time, so that a busy machine loses no node."""
    for module, name, seconds in (
        (all_probes, "EVERY", 0.2), (all_probes, "AGAIN", 0.05), (all_probes, "CERTAIN", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, seconds)


def test_a_lost_node_is_told_once_and_once_that_it_is_back(
    cluster: tuple[Path, Authority, list[TlsNode]], workdir: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    _, authority, nodes = cluster
    pool = pool_of(upstream_url(authority, Path(tempfile.mkdtemp(dir=workdir)), nodes))
    sink, told = Sink(), []

    async def run() -> None:
        probes = Probes(pool, edge="edge-1", sink=sink, changed=lambda: told.append(1))
        task = asyncio.get_running_loop().create_task(probes.run())
        await until(lambda: [state.state for state in probes.states()] == ["reachable"] * 2, "both reachable")
        assert not sink.events
        assert probes.reaches_one
        for node in nodes:
            node.freeze()
        try:
            await until(lambda: not probes.reaches_one, "both lost")
            seen = {each.state.label: each for each in probes.watched}
            before = [each.failures for each in seen.values()]
            await until(lambda: all(n < e.failures for n, e in zip(before, seen.values(), strict=True)), "more")
        finally:
            for node in nodes:
                node.thaw()
        await until(lambda: [state.state for state in probes.states()] == ["reachable"] * 2, "both back")
        task.cancel()

    with caplog.at_level(logging.WARNING, "cloudsignal.edge.broker.probes"):
        asyncio.run(run())
    labels = sorted(node.label for node in nodes)
    assert sorted(sink.kinds()) == sorted((kind, label) for kind in (BROKER_LOST, BROKER_BACK) for label in labels)
    lost = next(event for event in sink.events if event.kind == BROKER_LOST)
    assert (lost.node, lost.org, lost.reason) == ("edge-1", "", "unreachable")
    assert str(lost.details["why"]).startswith("no answer within")
    said = [record.message for record in caplog.records if record.name == "cloudsignal.edge.broker.probes"]
    assert [message.partition(",")[0] for message in said] == [
        "no broker can be reached",
        "a broker can be reached again",
    ]
    assert len(told) >= 4


@pytest.mark.parametrize("answer", ["answers", "refuses", "falls silent"])
def test_a_node_that_only_turns_probes_away_is_not_taken_for_a_lost_one(
    answer: str, workdir: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_probe, "WITHIN", 0.2)
    path = str(Path(tempfile.mkdtemp(dir=workdir)) / "s")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer == "refuses":
            writer.write(b"\x20\x03\x00\x88\x00")
        elif answer == "answers":
            writer.write(b"\x20\x03\x00\x00\x00\xd0\x00")
        with suppress(OSError):
            await reader.read()
        writer.close()

    async def run() -> list[Reached]:
        pool, found = BrokerPool(Upstream(path=path)), []
        probes = Probes(pool, edge="edge-1", sink=Sink(), changed=lambda: None)
        async with await asyncio.start_unix_server(serve, path):
            task = asyncio.get_running_loop().create_task(probes.run())
            [node] = await pool.nodes()
            for probed in range(1, 4):
                await until(lambda: any(each.probes >= probed for each in probes.watched), "a probe")  # noqa: B023
                found.append(pool.state(node).reached)
            task.cancel()
        return found

    unknown, lost = Reached.UNKNOWN, Reached.UNREACHABLE
    assert (
        asyncio.run(run())
        == {
            "answers": [Reached.REACHABLE] * 3,
            "refuses": [unknown] * 3,
            "falls silent": [unknown, lost, lost],
        }[answer]
    )


def test_a_node_that_refuses_housekeeping_with_a_code_is_not_taken_for_a_lost_one(workdir: Path) -> None:
    path = str(Path(tempfile.mkdtemp(dir=workdir)) / "s")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x20\x03\x00\x88\x00")
        writer.close()

    async def run() -> Reached:
        pool = BrokerPool(Upstream(path=path))
        async with await asyncio.start_unix_server(serve, path):
            with pytest.raises(HousekeepingError, match="0x88"):
                await Housekeeping(pool, Store("redis://127.0.0.1:1/0")).list_retained(PROBE_ORG)
        return pool.state((await pool.nodes())[0]).reached

    assert asyncio.run(run()) is Reached.UNKNOWN


def test_a_name_that_leads_nowhere_is_a_broker_that_is_lost(workdir: Path, quick: None) -> None:
    sink = Sink()

    async def run() -> None:
        probes = Probes(pool_of("mqtts://broker.invalid:8883"), edge="edge-1", sink=sink, changed=lambda: None)
        task = asyncio.get_running_loop().create_task(probes.run())
        await until(probes.troubles, "the trouble")
        [state] = probes.states()
        assert state.label == "broker.invalid:8883"
        assert state.why.startswith("its name cannot be resolved: ")
        task.cancel()

    asyncio.run(run())
    assert sink.kinds() == [(BROKER_LOST, "broker.invalid:8883")]


def test_members_that_disagree_are_told_once_and_only_when_it_lasts(
    broker: Broker, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    pages, sink = StatusPages("VerneMQ@a"), Sink()
    pages.members["VerneMQ@b"] = True

    async def run() -> None:
        upstream = Upstream(path=str(broker.socket), status=pages.url)
        probes = Probes(BrokerPool(upstream), edge="edge-1", sink=sink, changed=lambda: None)
        task = asyncio.get_running_loop().create_task(probes.run())
        await until(lambda: [state.cluster for state in probes.states()] == ["agree"], "agreement")
        assert probes.states()[0].members == ("VerneMQ@a", "VerneMQ@b")
        pages.members["VerneMQ@b"], pages.drops = False, 7
        await until(lambda: probes.states()[0].cluster == "unknown", "doubt")
        assert not sink.events
        await until(lambda: probes.states()[0].cluster == "disagree", "disagreement")
        assert (probes.states()[0].members, probes.states()[0].missing) == (("VerneMQ@a",), ("VerneMQ@b",))
        assert probes.states()[0].drops == 7
        asked = pages.asked
        await until(lambda: pages.asked > asked + 9, "more readings")
        pages.members["VerneMQ@b"] = True
        await until(lambda: probes.states()[0].cluster == "agree", "agreement")
        task.cancel()

    try:
        asyncio.run(run())
    finally:
        pages.stop()
    assert [event.kind for event in sink.events] == [BROKERS_DISAGREE, BROKERS_AGREE]
    assert "VerneMQ@a does not see VerneMQ@b" in str(sink.events[0].details["why"])


# --- a whole edge ----------------------------------------------------------------------------------------------------


def readyz(edge: Edge) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.metrics_port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_with_every_broker_frozen_each_probe_of_the_edge_tells_the_truth_and_again_when_they_are_back(
    cluster: tuple[Path, Authority, list[TlsNode]], workdir: Path
) -> None:
    _, authority, nodes = cluster
    folder = Path(tempfile.mkdtemp(dir=workdir))
    valkey = Valkey(folder)
    valkey.start()
    plane = Plane(valkey.redis, folder)
    edge = Edge(
        folder,
        redis_url=valkey.url,
        upstream=upstream_url(authority, folder, nodes),
        verify_key=plane.verify_key,
        authority=authority,
    )

    def beats() -> list[str]:
        blob = valkey.redis.get(keys.node("edge-1"))
        return [state.state for state in decode(unchecked(blob), Heartbeat).brokers] if blob else []  # type: ignore[arg-type]

    try:
        edge.start()
        wait_for(lambda: beats() == ["reachable"] * 2, what="both reachable in the heartbeat")
        assert readyz(edge) == (200, {"status": "ok", "brokers": {node.label: "reachable" for node in nodes}})
        assert metrics(edge)[f'cloudsignal_edge_broker_up{{broker="{nodes[0].label}"}}'] == 1
        for node in nodes:
            node.freeze()
        wait_for(lambda: beats() == ["unreachable"] * 2, what="both lost in the heartbeat")
        status, body = readyz(edge)
        assert status == 503
        assert str(body["why"]).startswith("it reaches no broker: ")
        assert metrics(edge)[f'cloudsignal_edge_broker_up{{broker="{nodes[1].label}"}}'] == 0
        assert metrics(edge)[f'cloudsignal_edge_broker_probes_failed_total{{broker="{nodes[1].label}"}}'] >= 2
        wait_for(lambda: len(plane.events(kind=BROKER_LOST)) == 2, what="the events")
        assert edge.output().count("no broker can be reached") == 1
        for node in nodes:
            node.thaw()
        wait_for(lambda: beats() == ["reachable"] * 2, what="both back in the heartbeat")
        assert readyz(edge)[0] == 200
        wait_for(lambda: len(plane.events(kind=BROKER_BACK)) == 2, what="the events")
        assert len(plane.events(kind=BROKER_LOST)) == 2
    finally:
        for node in nodes:
            node.thaw()
        edge.stop(kill=True)
        valkey.stop(kill=True)

"""Several edge processes before one broker, and the bounds of one."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudsignal.edge.audit.events import make_event
from cloudsignal.edge.audit.journal import Journal
from tests.benchmarks.edge import UNLIMITED, Idle, Target, build_load, resident
from tests.support.parts import ALLOW_ALL, Edge, Watched, wait_for
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.wire import ClosedError, dial_tls


@pytest.fixture(scope="module")
def pair(workdir: Path) -> Iterator[tuple[Rig, Edge]]:
    """Two edges on one port (SO_REUSEPORT), the second one reachable on a port of its own through the plaintext one."""
    rig = build_rig(Path(tempfile.mkdtemp(dir=workdir)))
    second = Edge(
        rig.edge.folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-2",
    )
    second.start()
    yield rig, second
    second.stop()
    stop_rig(rig)


def test_every_node_reports_a_deploy(pair: tuple[Rig, Edge]) -> None:
    rig, _ = pair
    org = rig.plane.new_org()
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL), nodes=2)


@pytest.mark.parametrize("version", [4, 5])
def test_a_client_id_is_taken_over_across_nodes_and_belongs_to_its_username_on_both(
    pair: tuple[Rig, Edge], version: int
) -> None:
    rig, second = pair
    org = rig.plane.new_org()
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL), nodes=2)
    alice, bob = rig.plane.issue(org, "alice"), rig.plane.issue(org, "bob")
    first = rig.client(alice, version=version, client_id="one")
    context = second.authority.client_context()
    thief = dial_tls(second.port, context)
    answer = thief.connect(version=version, username=bob.username, password=bob.password, client_id="one")
    assert answer.code == (0x85 if version == 5 else 2)
    again = dial_tls(second.port, context)
    answer = again.connect(version=version, username=alice.username, password=alice.password, client_id="one")
    assert answer.code == 0
    first.closed()
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.reason, event.node) == ("taken_over", "edge-1")
    again.ping()


def test_messages_pass_between_clients_of_two_nodes(pair: tuple[Rig, Edge]) -> None:
    rig, second = pair
    org = rig.plane.new_org()
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL), nodes=2)
    issued = rig.plane.issue(org)
    reader = rig.client(issued, client_id="reader")
    reader.subscribe("a/#", qos=1)
    writer = dial_tls(second.port, second.authority.client_context())
    writer.connect(version=4, username=issued.username, password=issued.password, client_id="writer")
    writer.publish("a/b", b"across", qos=1)
    assert reader.delivery().payload == b"across"


def test_two_processes_share_one_port(pair: tuple[Rig, Edge]) -> None:
    rig, _ = pair
    org = rig.plane.new_org()
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL), nodes=2)
    issued = rig.plane.issue(org)
    third = Edge(
        rig.edge.folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-3",
        EDGE_MQTTS=rig.edge.env["EDGE_MQTTS"],
    )
    third.port = rig.edge.port
    third.start()
    try:
        rig.plane.enforced(org, rig.plane.revisions[org], nodes=3)
        clients = [rig.client(issued, client_id=f"c{number}") for number in range(24)]
        wait_for(lambda: len(rig.plane.events(org=org, kind="connect")) == 24, what="24 connects")
        nodes = {event.node for event in rig.plane.events(org=org, kind="connect")}
        assert nodes == {"edge-1", "edge-3"}
        for client in clients:
            client.disconnect()
    finally:
        third.stop()


def test_a_slow_reader_leaves_the_memory_of_the_edge_flat(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    org = rig.org(quotas=UNLIMITED)
    issued = rig.plane.issue(org)
    reader, writer = rig.client(issued, client_id="r", version=4), rig.client(issued, client_id="w", version=4)
    reader.subscribe("big")
    before = resident(rig.edge.pid)
    payload = b"x" * 50_000
    for _ in range(2_000):  # 100 MB that nobody reads
        writer.send(writer.message("big", payload))
    writer.ping()
    assert resident(rig.edge.pid) - before < 24 * 1024 * 1024
    assert reader.delivery().payload == payload


def test_a_client_that_sends_and_never_reads_cannot_fill_the_memory(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    org = rig.org("version: '3'\nrules: []", quotas=UNLIMITED)
    client = rig.client(rig.plane.issue(org), version=4)
    before = resident(rig.edge.pid)
    flood = b"".join(client.message("no", b"", qos=1, packet_id=n % 60_000 + 1) for n in range(20_000))
    client.sock.settimeout(3)
    with pytest.raises(TimeoutError):
        client.sock.sendall(flood * 300)
    assert resident(rig.edge.pid) - before < 24 * 1024 * 1024
    other = rig.client(rig.plane.issue(rig.org()))
    other.ping()


def watched(edge: Edge) -> Watched:
    assert isinstance(edge, Watched)
    return edge


@pytest.mark.soak
def test_ten_thousand_idle_sessions_are_steady(workdir: Path, tmp_path: Path) -> None:
    """Two processes on one port, because the descriptors of one may not do; ``SOAK_SECONDS`` instead of ten minutes.

    Nobody is dropped, every ping is answered, memory stays where it is, and a full garbage collection, forced every
    few seconds, keeps nobody waiting for long.
    """
    seconds = int(os.environ.get("SOAK_SECONDS", "600"))
    folder = Path(tempfile.mkdtemp(dir=workdir))
    rig = build_rig(folder, edge=Watched, EDGE_ADDRESS_CONNECTIONS="1000000")
    second = Watched(
        folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-2",
        EDGE_MQTTS=rig.edge.env["EDGE_MQTTS"],
        EDGE_ADDRESS_CONNECTIONS="1000000",
    )
    second.port = rig.edge.port
    second.start()
    try:
        org = rig.org(quotas=UNLIMITED)
        issued = rig.plane.issue(org, "idle", ttl=0)
        target = Target("edge", rig.edge.port, issued.username, issued.password, {})
        idle = Idle(build_load(tmp_path), target, 10_000, keep_alive=60)
        time.sleep(min(30, seconds / 4))
        settled = [resident(edge.pid) for edge in (rig.edge, second)]
        probe = rig.client(issued, client_id="probe", keep_alive=0)
        end, slowest = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            started = time.monotonic()
            probe.ping()
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.02)
        grown = [resident(edge.pid) - before for edge, before in zip((rig.edge, second), settled, strict=True)]
        pings, pongs = idle.close()
        pauses = [pause for edge in (rig.edge, second) for _, pause in watched(edge).collections()]
        print(f"settled {settled} grown {grown} pings {pings} pongs {pongs} slowest {slowest:.3f} pauses {pauses}")
        assert pings > 10_000 * seconds / 60
        assert pings - pongs < 1_000, "pings were not answered"  # those of the last moment may be under way
        assert max(grown) < 8 * 1024 * 1024
        assert pauses
        assert max(pauses) < 0.3
        assert slowest < 2
        assert not rig.plane.events(org=org, kind="session_closed")
    finally:
        second.stop(kill=True)
        stop_rig(rig)


def test_a_full_journal_lets_nobody_new_in_and_keeps_everything(make_rig: Callable[..., Rig]) -> None:
    """No client can fill it (see ``test_under_attack``): here an earlier process has left it full."""
    rig = make_rig(EDGE_JOURNAL_MB="1")
    org = rig.org()
    issued = rig.plane.issue(org)
    rig.edge.stop()
    left = Journal(rig.edge.folder / "edge" / "edge-1" / "journal", node="edge-1", incarnation="before")
    while left.size < 1_200_000:
        left.record(make_event("acl_denied", org=org, topic="x" * 1_000))
        left.flush()
    left.close()
    rig.valkey.stop(kill=True)
    rig.edge.start()
    with pytest.raises((ClosedError, OSError)):
        rig.client(issued, client_id="early")
    rig.valkey.start()
    wait_for(lambda: len(rig.plane.events(org=org, kind="acl_denied")) == left.sequence, what="all denials")
    wait_for(lambda: rig.plane.events(kind="limit_reached", reason="audit_journal"), what="the event")

    def let_in() -> bool:
        try:
            rig.client(issued, client_id="second").ping()
        except (ClosedError, OSError):
            return False
        return True

    wait_for(let_in, what="room in the journal")

"""Several nodes of the broker: frozen, dead, refusing or none at all; sign-ins go on, sessions end, wills are sent."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.codec import Connect, Kind, Properties, Publish, Subscribe, Subscription, Will
from cloudsignal.edge.codec.properties import Property
from tests.support.broker_nodes import Door, TlsNode
from tests.support.parts import ALLOW_ALL, Authority, Edge, Issued, Plane, Valkey, wait_for
from tests.support.wire import ClosedError, Wire, dial_tls

KEEP_ALIVE = 6


class Watchful(Edge):
    """An edge that looks at the client IDs of its sessions twice a second, and probes no node a second time."""

    module = "tests.support.watchful_edge"


@dataclass
class Cluster:
    """Two Mosquittos, not connected with each other, as three nodes; an edge in front, and one that knows one node."""

    plane: Plane
    authority: Authority
    first: TlsNode
    second: TlsNode
    doors: list[Door]
    """Two to the first of them, and one for the lone edge."""
    edge: Edge
    lone: Edge
    org: str

    def dial(self, edge: Edge | None = None) -> Wire:
        return dial_tls((edge or self.edge).port, self.authority.client_context())

    def issue(self, name: str = "dev") -> Issued:
        return self.plane.issue(self.org, name)

    def client(self, issued: Issued, edge: Edge | None = None, *, version: int = 5, **options: object) -> Wire:
        wire = self.dial(edge)
        answer = wire.connect(version=version, username=issued.username, password=issued.password, **options)  # type: ignore[arg-type]
        assert answer.code == 0, hex(answer.code)
        return wire

    def came(self) -> list[int]:
        """Connections that each of the first two doors was given."""
        return [door.came for door in self.doors[:2]]

    def settle(self) -> None:
        """Sign in until every node takes sessions again."""
        issued = self.issue()

        def well() -> bool:
            self.client(issued).close()
            log = self.edge.output()
            return log.count(" is unreachable: ") == log.count(" is reachable again")

        wait_for(well, what="nodes that are all used again")


@pytest.fixture(scope="module")
def cluster(workdir: Path) -> Iterator[Cluster]:
    """The nodes and both edges."""
    folder = Path(tempfile.mkdtemp(dir=workdir))
    authority = Authority(folder / "tls")
    first, second = (TlsNode(folder / name, authority) for name in ("a", "b"))
    crt, key = authority.issue(folder / "client", "edge")
    doors = [Door(folder / f"door-{number}", first) for number in range(3)]
    valkey = Valkey(folder)
    plane = Plane(valkey.redis)
    parts = [first, second, valkey]
    options = f"?ca={authority.file}&cert={crt}&key={key}&keepalive={KEEP_ALIVE}"
    several = f"localhost:{doors[0].port},localhost:{doors[1].port},localhost:{second.port}"
    edges = [
        Watchful(
            folder,
            redis_url=valkey.url,
            upstream=f"mqtts://{nodes}{options}",
            verify_key=plane.verify_key,
            authority=authority,
            node=node,
        )
        for node, nodes in (("edge-1", several), ("lone", f"localhost:{doors[2].port}"))
    ]
    try:
        for part in (first, second, valkey, *edges):
            part.start()
            parts += [part] if isinstance(part, Edge) else []
        org = plane.new_org()
        plane.enforced(org, plane.deploy(org, ALLOW_ALL), nodes=2)
        wait_for(lambda: all(door.came for door in doors), what="the only probe of each node")
        yield Cluster(plane, authority, first, second, doors, edges[0], edges[1], org)
    finally:
        for door in doors:
            door.stop()
        for part in reversed(parts):
            part.stop(kill=True)


@pytest.fixture(autouse=True)
def settled(cluster: Cluster) -> None:
    """No test begins with what another one has left: a node that is tried last."""
    cluster.settle()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that neither reads nor writes, and whose connections stay open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def said(edge: Edge, text: str) -> int:
    """The number of lines of an edge's log that hold the text."""
    return edge.output().count(text)


def test_sessions_spread_over_all_nodes(cluster: Cluster) -> None:
    issued, before = cluster.issue(), cluster.came()
    clients = [cluster.client(issued) for _ in range(9)]
    assert [after - earlier for after, earlier in zip(cluster.came(), before, strict=True)] == [3, 3]
    assert all(client.publish("x", qos=1) in (0, 0x10) for client in clients)


CONNACKS = {
    "silence": b"",
    "no MQTT": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "half a CONNACK": b"\x20\x09\x00",
    "a delivery instead of a CONNACK": b"\x30\x05\x00\x01xab",
    "a CONNACK without an end": b"\x20\xff\xff\x7f" + bytes(100_000),
    "server unavailable": codec.connack(5, 0x88),
    "server busy": codec.connack(5, 0x89),
}


@pytest.mark.parametrize("does", ["swallow", "close", "strange", *CONNACKS])
def test_sign_ins_go_on_beside_a_node_that_answers_with(cluster: Cluster, does: str) -> None:
    issued, door = cluster.issue(), cluster.doors[0]
    before, door.does = door.came, CONNACKS.get(does, does)
    for _ in range(4):
        client = cluster.client(issued)
        assert client.subscribe("x", qos=1) == [1]
        client.close()
    door.does = "pass"
    assert door.came > before


def test_another_node_is_tried_after_use_another_server_and_the_one_it_names_is_not(cluster: Cluster) -> None:
    issued = cluster.issue()
    with socket.create_server(("127.0.0.1", 0)) as trap:
        asked = threading.Event()

        def listen() -> None:
            with suppress(OSError):
                trap.accept()
                asked.set()

        threading.Thread(target=listen, daemon=True).start()
        named = Properties([(Property.SERVER_REFERENCE, f"127.0.0.1:{trap.getsockname()[1]}".encode())])
        for code in (0x9C, 0x9D):
            before = sum(cluster.came())
            for door in cluster.doors[:2]:
                door.does = codec.connack(5, code, properties=named)
            for _ in range(3):
                cluster.client(issued).close()
            assert sum(cluster.came()) > before
        for door in cluster.doors[:2]:
            door.does = codec.connack(4, 0x88)
        for _ in range(3):
            cluster.client(issued, version=4).close()
        for door in cluster.doors[:2]:
            door.does = "pass"
        assert not asked.is_set()


def test_a_node_that_crashes_over_the_first_connect_gets_the_second_and_nothing_is_lost_or_doubled(
    cluster: Cluster,
) -> None:
    """VerneMQ does so when a session is resumed after the loss of another node."""
    issued, wire = cluster.issue(), cluster.dial(cluster.lone)
    cluster.doors[2].does = "close once"
    before = cluster.doors[2].came
    wire.version = 5
    wire.send(
        codec.encode_connect(Connect(5, "", True, 60, issued.username, issued.password.encode())),
        codec.encode_subscribe(Subscribe(1, [Subscription(b"once/#", 1)]), 5),
        *(codec.encode_publish(Publish(b"once/x", b"%d" % n, 1, packet_id=n), 5) for n in range(2, 12)),
    )
    assert wire.connack().code == 0
    assert cluster.doors[2].came == before + 2
    wire.send(b"\xc0\x00")
    packets = []
    while (packet := wire.receive())[0] != Kind.PINGRESP:
        packets.append(packet)
    deliveries = [codec.decode_publish(first, body, 5, where="DELIVERY") for first, body in packets if first >> 4 == 3]
    assert [message.payload for message in deliveries] == [b"%d" % n for n in range(2, 12)]
    answers = [(first, body[1]) for first, body in packets if first >> 4 != 3]
    assert answers == [(Kind.SUBACK, 1), *((Kind.PUBACK, n) for n in range(2, 12))]


def test_when_the_only_node_refuses_twice_the_client_is_told_to_come_back_and_the_audit_says_why(
    cluster: Cluster,
) -> None:
    issued = cluster.issue("refused")
    cluster.doors[2].does = codec.connack(5, 0x88)
    before = cluster.doors[2].came
    answer = cluster.dial(cluster.lone).connect(version=5, username=issued.username, password=issued.password)
    cluster.doors[2].does = "pass"
    assert answer.code == 0x88
    assert cluster.doors[2].came == before + 2
    event = cluster.plane.event(org=cluster.org, kind="auth_failed", username="refused")
    assert event.reason == "unavailable"
    assert event.details["broker_code"] == "136"
    assert event.details["broker"] == (f"localhost (127.0.0.1:{cluster.doors[2].port}): it answered CONNECT with 0x88")


def test_sign_ins_go_on_beside_a_frozen_node_and_only_one_waits_for_it(cluster: Cluster) -> None:
    issued = cluster.issue()
    label = f"localhost (127.0.0.1:{cluster.second.port})"
    before = said(cluster.edge, f"{label} is unreachable")
    with frozen(cluster.second.pid):
        for _ in range(10):
            cluster.client(issued).close()
        assert said(cluster.edge, f"{label} is unreachable") == before + 1
    wait_for(lambda: (cluster.client(issued).close(), said(cluster.edge, f"{label} is reachable again") > before)[1])
    assert said(cluster.edge, f"{label} is unreachable") == before + 1


def test_sessions_of_a_frozen_node_end_with_its_name_and_those_of_others_go_on(cluster: Cluster) -> None:
    issued = cluster.issue("frozen")
    clients = [cluster.client(issued, keep_alive=0) for _ in range(6)]
    old = [cluster.client(issued, version=4, keep_alive=0) for _ in range(3)]
    with frozen(cluster.second.pid):
        events = wait_for(
            lambda: len(found := cluster.plane.events(kind="session_closed", username="frozen")) == 3 and found
        )
        told = [_told(client) for client in (*clients, *old)]
    # Two of six and one of three were at the frozen node; only MQTT 5 has a DISCONNECT of the server.
    assert sorted(map(str, told)) == sorted(map(str, ["open"] * 6 + [(Kind.DISCONNECT, 0x89)] * 2 + ["closed"]))
    assert {event.reason for event in events} == {"upstream_lost"}
    assert {event.details["broker"] for event in events} == {f"localhost (127.0.0.1:{cluster.second.port})"}


def _told(client: Wire) -> object:
    """The DISCONNECT a client got, or whether its connection is open."""
    try:
        client.send(b"\xc0\x00")
        first, body = client.receive()
    except (ClosedError, OSError):
        return "closed"
    return "open" if first == Kind.PINGRESP else (Kind(first), body[0])


def test_the_broker_notices_that_an_edge_is_gone_and_sends_the_wills_of_its_devices(cluster: Cluster) -> None:
    issued = cluster.issue()
    watcher = cluster.client(issued, cluster.lone)
    watcher.subscribe("gone/#")
    clients = [cluster.client(issued, keep_alive=0, will=Will(b"gone/%d" % n, b"")) for n in range(3)]
    with frozen(cluster.edge.pid):
        topics = {watcher.delivery().topic for _ in range(2)}  # two of three are at the watcher's Mosquitto
    assert len(topics) == 2
    for client in clients:
        client.close()


def test_a_session_ends_when_its_client_id_has_signed_in_elsewhere_and_the_broker_does_not_know(
    cluster: Cluster,
) -> None:
    """Two nodes that have lost each other keep a session each."""
    issued = cluster.issue("twice")
    olds = [cluster.client(issued, client_id=f"twice-{n}", keep_alive=0) for n in range(3)]
    news = [cluster.client(issued, cluster.lone, client_id=f"twice-{n}", keep_alive=0) for n in range(3)]
    for old in olds:
        (first, body), *_ = old.closed()
        assert (first, body[0]) == (Kind.DISCONNECT, 0x8E)
    events = wait_for(
        lambda: len(found := cluster.plane.events(kind="session_closed", username="twice")) == 3 and found
    )
    assert {event.reason for event in events} == {"taken_over"}
    for new in news:
        new.send(b"\xc0\x00")
        new.expect(Kind.PINGRESP)


def test_sessions_of_a_killed_node_end_and_sign_ins_go_on_until_it_is_back(cluster: Cluster) -> None:
    issued = cluster.issue("killed")
    clients = [cluster.client(issued, keep_alive=0) for _ in range(3)]
    label = f"localhost (127.0.0.1:{cluster.second.port})"
    before = said(cluster.edge, f"{label} is unreachable")
    cluster.second.stop(kill=True)
    wait_for(lambda: len(cluster.plane.events(kind="session_closed", username="killed", reason="upstream_lost")) == 1)
    for _ in range(6):
        cluster.client(issued).close()
    cluster.second.start()
    wait_for(
        lambda: (
            cluster.client(issued).close(),
            said(cluster.edge, f"{label} is reachable again") >= said(cluster.edge, f"{label} is unreachable"),
        )[1]
    )
    assert said(cluster.edge, f"{label} is unreachable") == before + 1
    for client in clients:
        client.close()

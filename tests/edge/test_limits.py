"""Limits: of an organization, an address, time and the machine. Each has its code, its event and no bystanders."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudsignal.edge.codec import Kind, Subscribe, Subscription, connack, encode_subscribe
from cloudsignal.wire.bundle import Quotas
from tests.benchmarks.edge import resident
from tests.support.parts import Edge, early_in_a_minute, metrics, wait_for
from tests.support.rig import Rig
from tests.support.wire import ClosedError, Wire, dial_tls, dial_websocket, ended

MakeRig = Callable[..., Rig]
BOTH = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture
def bystander(rig: Rig) -> Iterator[Wire]:
    """A client of another organization; after the test it works as before."""
    client = rig.client(rig.plane.issue(rig.org()), client_id="bystander")
    yield client
    assert client.subscribe("a", "b", "c", "d") == [0, 0, 0, 0]
    for number in range(10):
        assert client.publish("a", b"x" * 500, qos=1, packet_id=number + 1) in {0, 0x10}
        client.delivery()


@BOTH
def test_a_connection_beyond_the_quota_is_refused_and_one_fits_again_when_another_goes(
    rig: Rig, bystander: Wire, version: int
) -> None:
    org = rig.org(quotas=Quotas(connections=2))
    issued = rig.plane.issue(org)
    first, _second = (rig.client(issued, client_id=name, version=version) for name in "ab")
    answer = rig.dial().connect(
        version=version, username=issued.username, password=issued.password, client_id="c" * version
    )
    assert answer.code == (0x97 if version == 5 else 3)
    event = rig.plane.event(org=org, kind="auth_failed")
    assert (event.reason, event.username, event.client_id) == ("quota", "dev", "c" * version)
    first.disconnect()
    rig.plane.event(org=org, kind="disconnect")
    rig.client(issued, client_id="c", version=version).ping()


@BOTH
def test_a_client_comes_back_at_a_full_quota_though_its_old_connection_lingers(
    rig: Rig, bystander: Wire, version: int
) -> None:
    org = rig.org(quotas=Quotas(connections=2))
    issued, other = rig.plane.issue(org), rig.plane.issue(org, "other")
    first = rig.client(issued, client_id="a", version=version)
    rig.client(other, client_id="b", version=version)
    again = rig.client(issued, client_id="a", version=version)
    ended(first, 0x8E)
    again.ping()
    for who, client_id in ((other, "a"), (issued, "c"), (issued, "")):
        answer = rig.dial().connect(version=version, username=who.username, password=who.password, client_id=client_id)
        assert answer.code == (0x97 if version == 5 else 3), client_id


@BOTH
def test_messages_beyond_the_quota_are_turned_away_until_the_next_minute(
    rig: Rig, bystander: Wire, version: int
) -> None:
    org = rig.org(quotas=Quotas(messages_per_minute=5))
    client = rig.client(rig.plane.issue(org), version=version)
    client.subscribe("t", qos=2)
    early_in_a_minute()
    codes = [client.publish("t", qos=1 + n % 2, packet_id=n + 1) for n in range(8)]
    assert codes == ([0] * 5 + [0x97] * 3 if version == 5 else [0] * 8)
    client.send(client.message("t"))
    assert len([client.delivery() for _ in range(5)]) == 5
    client.nothing()
    wait_for(
        lambda: (
            sum(e.count for e in rig.plane.events(org=org, kind="limit_reached", reason="messages_per_minute")) == 4
        ),
        what="all four of them",
    )


@BOTH
def test_a_packet_beyond_the_quota_ends_the_session(rig: Rig, bystander: Wire, version: int) -> None:
    org = rig.org(quotas=Quotas(packet_bytes=200))
    client = rig.client(rig.plane.issue(org), version=version)
    size = 200 - len(client.message("t", b"", qos=1)) - 1  # the length takes two bytes
    assert client.publish("t", b"x" * size, qos=1) in {0, 0x10}
    client.send(client.message("t", b"x" * (size + 1), qos=1))
    ended(client, 0x95)
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.reason, event.details["reason_code"]) == ("protocol", 0x95)


@BOTH
def test_a_subscription_beyond_the_quota_is_refused_and_the_session_goes_on(
    rig: Rig, bystander: Wire, version: int
) -> None:
    org = rig.org(quotas=Quotas(subscriptions_per_session=2))
    client = rig.client(rig.plane.issue(org), version=version)
    over = 0x97 if version == 5 else 0x80
    assert client.subscribe("1", "2", "3") == [0, 0, over]
    assert client.subscribe("1", "4") == [0, over]
    client.unsubscribe("1")
    assert client.subscribe("4") == [0]
    wait_for(
        lambda: (
            sum(e.count for e in rig.plane.events(org=org, kind="limit_reached", reason="subscriptions_per_session"))
            == 2
        ),
        what="both of them",
    )


class Insatiable(threading.Thread):
    """Sends the same bytes as fast as the edge takes them."""

    def __init__(self, wire: Wire, data: bytes) -> None:
        super().__init__(daemon=True)
        self.wire, self.data = wire, data
        self.stop = False

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while not self.stop:
                self.wire.sock.sendall(self.data)

    def drain(self) -> None:
        """Read what comes back."""
        with contextlib.suppress(OSError, ValueError):
            while not self.stop and self.wire.sock.recv(65_536):
                pass


def nobody_waits(rig: Rig, greedy: Insatiable) -> None:
    """While one client takes all it can get, another one is answered all the time."""
    other = rig.client(rig.plane.issue(rig.org()), client_id="other")
    greedy.start()
    threading.Thread(target=greedy.drain, daemon=True).start()
    end, rounds = time.monotonic() + 4, 0
    while time.monotonic() < end:
        other.send(bytes([Kind.PINGREQ, 0]))
        other.expect(Kind.PINGRESP)
        rounds += 1
        time.sleep(0.001)
    greedy.stop = True
    assert rounds > 2


@BOTH
def test_a_client_that_asks_for_filters_without_end_keeps_nobody_waiting(make_rig: MakeRig, version: int) -> None:
    rig = make_rig()
    org = rig.org("version: '3'\nrules: []")
    wire = rig.client(rig.plane.issue(org), version=version)
    packets = [
        encode_subscribe(Subscribe(n, [Subscription(b"n/%d/%d" % (n, i), 0) for i in range(2_000)]), version)
        for n in range(1, 49)
    ]
    nobody_waits(rig, Insatiable(wire, b"".join(packets)))
    assert sum(event.count for event in rig.plane.events(kind="limit_reached", reason="filters_per_packet")) > 10_000
    kept = sum(path.stat().st_size for path in (rig.edge.folder / "edge" / "edge-1" / "journal").iterdir())
    assert kept < 60 * 1024 * 1024, "the audit of one organization fills the disk of all"
    rig.client(rig.plane.issue(rig.org())).ping()


FLOODS = {
    "empty frames": b"\x82\x80\0\0\0\0" * 20_000,
    "a ping in two frames": b"\x82\x81\0\0\0\0\xc0\x82\x81\0\0\0\0\0" * 10_000,
    "WebSocket pings": b"\x89\x80\0\0\0\0" * 20_000,
    "MQTT pings": b"\x82\xfe\xea\x60\0\0\0\0" + b"\xc0\0" * 30_000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_small_frames_without_end_keep_nobody_waiting(rig: Rig, flood: str) -> None:
    issued = rig.plane.issue(rig.org())
    wire = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    nobody_waits(rig, Insatiable(wire, FLOODS[flood]))


@pytest.mark.parametrize("signed_in", [True, False])
def test_pings_whose_pongs_nobody_reads_cannot_fill_the_memory(make_rig: MakeRig, signed_in: bool) -> None:
    rig = make_rig()
    issued = rig.plane.issue(rig.org())
    wire = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    if signed_in:
        assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    before = resident(rig.edge.pid)
    wire.sock.settimeout(3)
    with pytest.raises(TimeoutError):
        wire.sock.sendall((b"\x89\xfd\0\0\0\0" + bytes(125)) * 400_000)
    assert resident(rig.edge.pid) - before < 24 * 1024 * 1024
    rig.client(issued, client_id="other").ping()


@pytest.mark.parametrize("size", [1, 7, 600])
def test_what_waits_for_its_turn_comes_in_order(rig: Rig, size: int) -> None:
    """A burst of small frames is worked off in several turns; nothing of it is lost or mixed up.

    The broker's acknowledgements say so. Of those, too, Mosquitto drops what is not read in time beyond 1,000.
    """
    issued = rig.plane.issue(rig.org())
    wire = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    stream = b"".join(wire.message("t", b"%d" % number, 1, packet_id=number) for number in range(1, 901))
    parts = (stream[at : at + size] for at in range(0, len(stream), size))
    wire.sock.sendall(b"".join(b"\x82" + ws_length(part) + bytes(4) + part for part in parts))
    acknowledged = [int.from_bytes(wire.expect(Kind.PUBACK)[:2], "big") for _ in range(900)]
    assert acknowledged == list(range(1, 901))


def ws_length(part: bytes) -> bytes:
    """The length of a masked frame."""
    return bytes([0x80 | len(part)]) if len(part) < 126 else b"\xfe" + len(part).to_bytes(2, "big")


def test_a_new_quota_binds_sessions_that_are_live(rig: Rig, bystander: Wire) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org))
    assert client.publish("t", b"x" * 500, qos=1) in {0, 0x10}
    rig.plane.enforced(org, rig.plane.deploy(org, quotas=Quotas(packet_bytes=200)))
    client.send(client.message("t", b"x" * 500, qos=1))
    ended(client, 0x95)


def test_who_is_connected_already_is_banned_by_name_when_the_address_has_failed_too_often(make_rig: MakeRig) -> None:
    rig = make_rig(EDGE_LOGIN_FAILURES="1")
    org = rig.org()
    issued = rig.plane.issue(org)
    waiting = {version: rig.dial() for version in (5, 4)}
    live = rig.client(issued, client_id="live")

    def failed(number: int) -> None:
        with contextlib.suppress(ClosedError, OSError, TimeoutError):
            rig.dial().connect(version=5, username=f"x{number}@{org}", password="x")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(failed, range(5)))
    for version, code in ((5, 0x9F), (4, 3)):
        answer = waiting[version].connect(version=version, username=issued.username, password=issued.password)
        assert answer.code == code
    wait_for(
        lambda: sum(e.count for e in rig.plane.events(kind="auth_failed", reason="rate_limited")) in {2, 3},
        what="all of them",  # a third when the last of the five came late
    )
    event = rig.plane.event(kind="auth_failed", reason="rate_limited", repeats="")
    assert (event.ip, event.org, event.username) == ("127.0.0.1", org, "")
    live.ping()


def test_a_handshake_that_never_comes_is_given_up_and_audited(rig: Rig) -> None:
    # The port is this connection's own: the shared edge sees other failed handshakes too.
    with socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00")  # the head of a ClientHello whose body never comes
        started = time.monotonic()
        assert sock.recv(1) == b""
        assert time.monotonic() - started > 8
        port = sock.getsockname()[1]
    assert rig.plane.event(kind="tls_failed", port=port).reason == "timeout"


def test_a_websocket_that_never_upgrades_is_closed(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.edge.wss_port), timeout=20) as raw:
        sock = rig.authority.client_context().wrap_socket(raw, server_hostname="localhost")
        sock.sendall(b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n")
        started = time.monotonic()
        assert sock.recv(1) == b""
        assert time.monotonic() - started > 8


def test_below_the_reserve_of_file_descriptors_nobody_new_comes_in(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    issued = rig.plane.issue(org)
    rig.edge.stop()
    command = ["sh", "-c", f"ulimit -n 148; exec {sys.executable} -m cloudsignal.edge"]  # room for ten sessions
    rig.edge.launch(command, rig.edge.env)
    wait_for(rig.edge.listens, what="the edge")
    clients = [rig.client(issued, client_id=f"c{number}") for number in range(10)]
    with pytest.raises((OSError, ClosedError)):
        rig.dial().receive()
    wait_for(lambda: rig.plane.events(kind="limit_reached", reason="file_descriptors"), what="the event")
    for client in clients:
        client.ping()
    clients.pop().disconnect()
    rig.plane.event(org=org, kind="disconnect")
    time.sleep(0.2)
    rig.client(issued, client_id="next").ping()


class Reluctant(threading.Thread):
    """A broker with room for one that does not accept before it is told to, and then answers CONNECT."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(0)
        self.go = threading.Event()
        self.accepted: list[socket.socket] = []

    def run(self) -> None:
        self.go.wait(20)
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(connection)
            connection.recv(4096)
            connection.sendall(connack(5, 0))


def test_a_full_backlog_of_the_broker_is_waited_for(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    issued = rig.plane.issue(org)
    broker = Reluctant(rig.edge.folder / "reluctant.sock")
    broker.start()
    other = Edge(
        rig.edge.folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.edge.folder}/reluctant.sock",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-2",
    )
    other.start()

    def come(number: int) -> int:
        wire = dial_tls(other.port, rig.authority.client_context())
        wire.sock.settimeout(15)
        wire.version = 5
        return wire.connect(version=5, username=issued.username, password=issued.password, client_id=f"c{number}").code

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(come, number) for number in range(8)]
        wait_for(lambda: metrics(other)["cloudsignal_edge_upstream_backlog_waits_total"] > 3, what="a full backlog")
        broker.go.set()
        assert [answer.result() for answer in answers] == [0] * 8
    other.stop(kill=True)
    broker.listener.close()


def test_a_client_that_pipelines_before_its_answer_is_bounded(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = rig.dial()
    wire.version = 5
    with contextlib.suppress(OSError):
        wire.send(bytes([Kind.CONNECT]) + b"\xff\xff\x3f" + bytes(700_000))  # longer than any CONNECT may be
    packets = wire.closed()
    assert not packets or packets[0][0] == Kind.CONNACK
    rig.client(issued).ping()

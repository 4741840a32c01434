"""A Mosquitto that bridges to the edge with its defaults: it says so in the protocol version (the highest bit)."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cloudsignal.edge.codec import Kind, Properties, Property, connack
from cloudsignal.ids import PROBE_ORG
from tests.support.parts import Broker, Edge, Issued, Process, wait_for
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.wire import Wire, dial_tls

NO_STATE = """
version: '3'
rules:
  - {id: state, effect: deny, topic: '$SYS/#'}
  - {id: all, topic: '#'}
"""
STATE = """
version: '3'
rules:
  - {id: state, topic: '$SYS/broker/connection/+/state'}
  - {id: all, topic: '#'}
"""


class Bridging(Process):
    """A Mosquitto on the customer's side; ``extra`` are lines of its bridge."""

    def __init__(self, rig: Rig, issued: Issued, extra: str = "") -> None:
        folder = Path(tempfile.mkdtemp(dir=rig.edge.folder))
        super().__init__(folder / "bridge.log")
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"""
listener {self.port} 127.0.0.1
allow_anonymous true
connection uplink
address 127.0.0.1:{rig.edge.port}
bridge_cafile {rig.authority.file}
bridge_insecure true
remote_clientid bridge
remote_username {issued.username}
remote_password {issued.password}
restart_timeout 1 1
topic # both 1
{extra}
""")
        if os.geteuid() == 0:
            config.write_text("user root\n" + config.read_text())
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        assert program
        self.launch([program, "-c", str(config)])
        wait_for(self.accepts, what="the customer's mosquitto")

    def accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def client(self) -> Wire:
        """A client on the customer's side."""
        wire = Wire(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        assert wire.connect(version=4, client_id="inside").code == 0
        return wire


@pytest.fixture
def bridge(rig: Rig) -> Iterator[Callable[..., Bridging]]:
    made: list[Bridging] = []

    def make(issued: Issued, extra: str = "") -> Bridging:
        made.append(Bridging(rig, issued, extra))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize("protocol", ["mqttv311", "mqttv50"])
def test_a_bridge_with_defaults_connects_and_carries_both_ways(
    rig: Rig, bridge: Callable[..., Bridging], protocol: str
) -> None:
    org = rig.org(STATE)
    made = bridge(rig.plane.issue(org, "site"), f"bridge_protocol_version {protocol}")
    rig.plane.event(org=org, kind="subscribe", client_id="bridge")
    if protocol == "mqttv311":
        tried = [e for e in rig.plane.events(kind="auth_failed", reason="protocol") if "bridge" in str(e.details)]
        assert tried, "the first attempt has the bit set"
    outside = rig.client(rig.plane.issue(org, "outside"), client_id="outside")
    assert outside.subscribe("up/#", "$SYS/broker/connection/+/state", qos=1) == [1, 1]
    inside = made.client()
    inside.subscribe("down/#", "up/#", qos=1)
    inside.publish("up/a", b"1", qos=1)
    state, carried = outside.delivery(), outside.delivery()
    assert (state.topic, state.payload) == (b"$SYS/broker/connection/bridge/state", b"1")
    assert (carried.topic, carried.payload) == (b"up/a", b"1")
    outside.publish("down/b", b"2", qos=1)
    echoes = 1 if protocol == "mqttv311" else 0
    """What goes both ways comes back once: 3.1.1 knows no No Local. The bridge sends its own echo no further."""
    assert [inside.delivery().topic for _ in range(2 + echoes)] == [b"up/a"] * (1 + echoes) + [b"down/b"]
    assert outside.deliveries == []


def test_a_bridge_whose_notifications_the_policy_refuses_is_refused_by_name(
    rig: Rig, bridge: Callable[..., Bridging]
) -> None:
    """Its will is its state: an own topic below $SYS, which the policy has to grant, or the bridge to leave out."""
    org = rig.org(NO_STATE)
    issued = rig.plane.issue(org, "site")
    bridge(issued)
    wait_for(lambda: rig.plane.events(org=org, kind="auth_failed", reason="will_denied"), what="a refusal of the will")
    denied = rig.plane.events(org=org, kind="acl_denied", action="will")[0]
    assert denied.topic.startswith("$SYS/broker/connection/")
    assert denied.topic.endswith("/state")
    bridge(issued, "notifications false")
    rig.plane.event(org=org, kind="connect", client_id="bridge")


class Impatient(threading.Thread):
    """A broker that bears two seconds of silence, and counts the pings that keep it from closing a session."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.pings = 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            probe = PROBE_ORG.encode() in connection.recv(4096)
            connection.sendall(connack(5, 0, properties=Properties([(Property.SERVER_KEEP_ALIVE, 2)])))
            while data := connection.recv(4096):
                pings = data.count(bytes([Kind.PINGREQ, 0]))
                self.pings += 0 if probe else pings
                connection.sendall(bytes([Kind.PINGRESP, 0]) * pings)


def test_a_local_broker_with_a_keep_alive_of_its_own_is_pinged_by_the_edge(rig: Rig) -> None:
    """The client is not told: it keeps its own time, and a silent one need not say anything."""
    org = rig.org()
    issued = rig.plane.issue(org)
    folder = Path(tempfile.mkdtemp(dir=rig.edge.folder))
    broker = Impatient(folder / "broker.sock")
    broker.start()
    edge = Edge(
        folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{folder}/broker.sock",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-impatient",
    )
    edge.start()
    try:
        wire = dial_tls(edge.port, rig.authority.client_context())
        answer = wire.connect(
            version=5, username=issued.username, password=issued.password, client_id="quiet", keep_alive=0
        )
        assert (answer.code, answer.properties.number(Property.SERVER_KEEP_ALIVE, -1)) == (0, -1)
        wait_for(lambda: broker.pings >= 2, what="two pings of the edge")
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)  # the answers to those pings are the edge's
    finally:
        edge.stop(kill=True)
        broker.listener.close()


@pytest.mark.soak
def test_a_silent_client_outlives_the_keep_alive_of_a_local_mosquitto(
    make_rig: Callable[..., Rig], workdir: Path
) -> None:
    rig = make_rig(broker=Broker(Path(tempfile.mkdtemp(dir=workdir)), extra="max_keepalive 10\n"))
    client = rig.client(rig.plane.issue(rig.org()), keep_alive=0)
    time.sleep(35)
    client.ping()

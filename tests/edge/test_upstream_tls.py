"""A broker on another machine: TLS with a client certificate or a password, and the generated configuration for it."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.broker_nodes import SBIN, TlsNode
from tests.support.parts import ALLOW_ALL, Authority, Edge, Plane, Valkey, wait_for
from tests.support.rig import Rig


def build(broker: TlsNode, login: str, options: str) -> Rig:
    """An edge in front of it."""
    valkey = Valkey(broker.folder)
    valkey.start()
    plane = Plane(valkey.redis)
    edge = Edge(
        broker.folder,
        redis_url=valkey.url,
        upstream=f"mqtts://{login}localhost:{broker.port}?ca={broker.authority.file}{options}",
        verify_key=plane.verify_key,
        authority=broker.authority,
    )
    edge.start()
    return Rig(broker, valkey, plane, broker.authority, edge)  # type: ignore[arg-type]


@pytest.fixture
def distant(workdir: Path) -> Iterator[tuple[TlsNode, Callable[[Rig], Rig]]]:
    """A broker that is not started yet, and who to tell of a rig that is to be stopped."""
    broker = TlsNode(Path(tempfile.mkdtemp(dir=workdir)) / "broker")
    rigs: list[Rig] = []

    def keep(rig: Rig) -> Rig:
        rigs.append(rig)
        return rig

    yield broker, keep
    for rig in rigs:
        rig.edge.stop()
        rig.valkey.stop(kill=True)
    broker.stop()


def test_messages_pass_and_the_certificate_is_what_lets_the_edge_in(
    distant: tuple[TlsNode, Callable[[Rig], Rig]],
) -> None:
    broker, keep = distant
    crt, key = broker.authority.issue(broker.folder / "client", "edge")
    broker.start()
    rig = keep(build(broker, "", f"&cert={crt}&key={key}"))
    org = rig.org()
    client = rig.client(rig.plane.issue(org), client_id="a", keep_alive=1)
    assert client.subscribe("x/#", qos=2) == [2]
    for qos in (0, 1, 2):
        client.publish("x/y", b"z", qos=qos)
        assert client.delivery().payload == b"z"
    context = rig.authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=20) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(raw, server_hostname="localhost")
    broker.stop(kill=True)
    client.closed()
    wait_for(lambda: rig.plane.events(org=org, kind="session_closed", reason="upstream_lost"), what="the event")


def test_a_broker_that_asks_for_a_password_gets_the_edges_and_not_the_clients(
    distant: tuple[TlsNode, Callable[[Rig], Rig]],
) -> None:
    broker, keep = distant
    org = Plane.new_org()
    passwords = broker.folder / "passwords"
    tool = shutil.which("mosquitto_passwd", path=SBIN)
    assert tool
    subprocess.run([tool, "-b", "-c", str(passwords), org, "a:b/c d"], check=True, capture_output=True)
    passwords.chmod(0o600)
    text = broker.config.read_text().replace("require_certificate true", "require_certificate false")
    text = text.replace("allow_anonymous true", f"allow_anonymous false\npassword_file {passwords}")
    broker.config.write_text(text)
    broker.start()
    rig = keep(build(broker, ":a%3Ab%2Fc%20d@", ""))
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL))
    client = rig.client(rig.plane.issue(org))
    assert client.subscribe("x") == [0]
    client.publish("x", b"z", qos=1)
    assert client.delivery().payload == b"z"
    # An organization the broker does not list: the client learns that the service is away, the audit why.
    other = rig.org()
    issued = rig.plane.issue(other)
    assert rig.dial().connect(version=5, username=issued.username, password=issued.password).code == 0x88
    event = rig.plane.event(org=other, kind="auth_failed")
    assert (event.reason, event.details["broker_code"]) == ("unavailable", "135")
    assert str(event.details["broker"]).endswith(": it answered CONNECT with 0x87")


def test_a_broker_whose_certificate_is_not_the_expected_one_is_not_spoken_to(
    distant: tuple[TlsNode, Callable[[Rig], Rig]],
) -> None:
    broker, keep = distant
    stranger = Authority(broker.folder / "stranger")
    stranger.issue(broker.folder / "server", "localhost")
    broker.start()
    rig = keep(build(broker, "", ""))
    org = rig.org()
    issued = rig.plane.issue(org)
    assert rig.dial().connect(version=5, username=issued.username, password=issued.password).code == 0x88
    said = str(rig.plane.event(org=org, kind="auth_failed").details["broker"])
    assert said.startswith(f"localhost (127.0.0.1:{broker.port}): its certificate is refused: ")

"""A broker of its own machine: TLS with a client certificate, nobody else gets in, idle connections stay up."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudsignal.edge.brokers import MOSQUITTO_ACL, mosquitto_tls_config
from tests.edge.conftest import Rig
from tests.edge.parts import Authority, Edge, Plane, Process, Valkey, free_port, wait_for


@pytest.fixture
def remote(workdir: Path) -> Iterator[Rig]:
    folder = Path(tempfile.mkdtemp(dir=workdir))
    authority = Authority(folder / "tls")
    server_crt, server_key = authority.issue(folder / "server", "localhost")
    client_crt, client_key = authority.issue(folder / "client", "edge")
    (folder / "acl").write_text(MOSQUITTO_ACL)
    (folder / "acl").chmod(0o600)
    (folder / "db").mkdir()
    port = free_port()
    text = mosquitto_tls_config(
        host="127.0.0.1",
        port=port,
        ca=authority.file,
        cert=server_crt,
        key=server_key,
        acl_file=folder / "acl",
        data=folder / "db",
    )
    (folder / "remote.conf").write_text(text + "user root\n")
    broker = Process(folder / "broker.log")
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin")
    assert program
    broker.launch([program, "-c", str(folder / "remote.conf")])
    valkey = Valkey(folder)
    valkey.start()
    plane = Plane(valkey.redis)
    edge = Edge(
        folder,
        redis_url=valkey.url,
        upstream=f"mqtts://localhost:{port}?ca={authority.file}&cert={client_crt}&key={client_key}",
        verify_key=plane.verify_key,
        authority=authority,
    )
    edge.start()
    yield Rig(broker, valkey, plane, authority, edge)  # type: ignore[arg-type]
    edge.stop()
    broker.stop()
    valkey.stop(kill=True)
    assert port


def test_messages_pass_and_the_certificate_is_what_lets_the_edge_in(remote: Rig) -> None:
    org = remote.org()
    issued = remote.plane.issue(org)
    client = remote.client(issued, client_id="a", keep_alive=1)
    assert client.subscribe("x/#", qos=2) == [2]
    for qos in (0, 1, 2):
        client.publish("x/y", b"z", qos=qos)
        assert client.delivery().payload == b"z"
    port = int(remote.edge.env["MQTT_UPSTREAM_URL"].partition("localhost:")[2].partition("?")[0])
    context = remote.authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw, server_hostname="localhost")
    remote.broker.stop(kill=True)
    client.closed()
    wait_for(lambda: remote.plane.events(org=org, kind="session_closed", reason="upstream_lost"), what="the event")

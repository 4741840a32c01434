"""Payload blindness: a marker sent through every path is found in no place that keeps anything."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from cloudsignal.edge.codec import Connect, Kind, Will, encode_connect
from tests.support.rig import Rig
from tests.support.wire import dial_tls, dial_websocket

POLICY = "version: '3'\nrules: [{id: hole, effect: deny, topic: 'ok/hole/#', action: sub}, {id: ok, topic: 'ok/#'}]"


def test_a_payload_is_nowhere_but_on_its_way(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    org = rig.org(POLICY)
    issued = rig.plane.issue(org)
    marker = secrets.token_hex(16).encode()
    context = rig.authority.client_context()
    for number, version in enumerate((4, 5, 4, 5)):
        wire = dial_tls(rig.edge.port, context) if number < 2 else dial_websocket(rig.edge.wss_port, context)
        will = Will(b"ok/will", marker, 1)
        options = {"username": issued.username, "password": issued.password, "client_id": f"c{number}", "will": will}
        assert wire.connect(version=version, **options).code == 0  # type: ignore[arg-type]
        assert wire.subscribe("ok/#", qos=2)
        for qos in (0, 1, 2):
            wire.publish("ok/a", marker, qos=qos)
            assert wire.delivery().payload == marker
            wire.publish("ok/hole/a", marker, qos=qos)
            wire.publish("no/a", marker, qos=qos)
        wire.send(wire.message("a/+/wildcard", marker))  # a protocol error that carries the marker
        wire.closed()
    refused = rig.dial()
    refused.send(encode_connect(Connect(5, "x", will=Will(b"no", marker), username=issued.username, password=marker)))
    assert refused.receive()[0] == Kind.CONNACK
    garbage = rig.dial()
    garbage.send(b"\x30\x30" + marker)
    garbage.closed()
    rig.valkey.stop(kill=True)  # the journal now keeps what follows
    client = rig.client(issued)
    client.send(client.message("no/spooled", marker, qos=1))
    client.expect(Kind.PUBACK)
    time.sleep(0.3)
    searched = [path for path in rig.edge.folder.rglob("*") if path.is_file() and "db" not in path.parts]
    assert any(path.name.endswith(".log") and "journal" in path.parts for path in searched)
    assert any("appendonlydir" in path.parts for path in searched)
    found = [path for path in searched if contains(path, marker)]
    assert found == []
    rig.valkey.start()


def contains(path: Path, marker: bytes) -> bool:
    """Whether a file holds the marker, as it is or in hex."""
    data = path.read_bytes()
    return marker in data or marker.hex().encode() in data

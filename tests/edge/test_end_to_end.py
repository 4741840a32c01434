"""The edge as a whole: real TLS, real Mosquitto, real Valkey."""

from __future__ import annotations

import pytest

from tests.support.parts import ALLOW_ALL
from tests.support.rig import Rig

BOTH = pytest.mark.parametrize("version", [4, 5])


@BOTH
def test_a_client_signs_in_is_refused_everything_and_is_let_through_after_a_deploy(rig: Rig, version: int) -> None:
    org = rig.org("version: '3'\nrules: []")
    issued = rig.plane.issue(org)
    client = rig.client(issued, version=version, client_id="c1")
    assert client.subscribe("a/b", qos=1) == [0x87 if version == 5 else 0x80]
    assert client.publish("a/b", qos=1) == (0x87 if version == 5 else 0)
    denied = rig.plane.event(org=org, kind="acl_denied", action="publish")
    assert (denied.topic, denied.rule, denied.username, denied.client_id) == ("a/b", "none", "dev", "c1")
    assert (denied.tls_version, denied.transport, denied.ip) == ("TLSv1.3", "mqtts", "127.0.0.1")
    assert denied.mqtt_version == ("5" if version == 5 else "3.1.1")
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL))
    assert client.subscribe("a/+", qos=1) == [1]
    assert client.publish("a/b", b"hello", qos=1) == 0
    message = client.delivery()
    assert (message.topic, message.payload) == (b"a/b", b"hello")
    client.disconnect()
    gone = rig.plane.event(org=org, kind="disconnect")
    assert gone.reason == "clean"
    assert gone.details["messages_in"] == 2

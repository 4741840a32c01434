"""MQTT.js in Node against a real edge: what a library on top of it depends on."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.node_clients import PROJECT, run
from tests.support.rig import Rig


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
def test_a_retained_message_comes_after_the_subscribe_callback_of_mqtt_js(rig: Rig, scheme: str, version: int) -> None:
    """MQTT.js hands on everything in a TLS record before it calls back: a message beside the SUBACK would be lost."""
    org = rig.org()
    issued = rig.plane.issue(org)
    rig.client(issued).publish("kept", b"state", qos=1, retain=True)
    port = rig.edge.port if scheme == "mqtts" else rig.edge.wss_port
    found = run(
        "retained.mjs",
        {
            "url": f"{scheme}://localhost:{port}/mqtt",
            "ca": str(rig.authority.file),
            "username": issued.username,
            "password": issued.password,
            "protocolVersion": version,
            "rounds": 20,
        },
    )
    assert found == {"early": 0, "lost": 0}


def test_the_lockfile_pins_every_package_and_names_no_host_to_fetch_it_from() -> None:
    text = (PROJECT / "package-lock.json").read_text()
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert packages["node_modules/mqtt"]["version"] == "5.16.0"
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert not re.search(r"https?://", text)

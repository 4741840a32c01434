"""Node-RED against a real edge: a flow that listens, sends, is refused, and lives through a restart of the edge."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge.clients.behaviors import POLICY
from tests.support.npm import installed
from tests.support.parts import Issued, wait_for
from tests.support.ports import free_port
from tests.support.rig import Rig

pytestmark = [pytest.mark.soak]

PROJECT = Path(__file__).parent / "nodered"
SETTINGS = (
    "module.exports = {credentialSecret: false, httpAdminRoot: false, httpNodeRoot: false, "
    "uiPort: %d, uiHost: '127.0.0.1'}"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user folder for Node-RED."""
    made = Path(tempfile.mkdtemp(prefix="cs-node-red-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def flow(rig: Rig, version: int) -> list[dict[str, object]]:
    """What comes in on ``open/in`` goes out to ``open/out`` and, which is refused, to ``closed/out``."""
    broker = {
        "id": "broker", "type": "mqtt-broker", "broker": "localhost", "port": str(rig.edge.port),
        "clientid": "node-red",
        "usetls": True, "tls": "tls", "protocolVersion": str(version), "keepalive": "30", "cleansession": True,
        "autoConnect": True, "z": "",
    }  # fmt: skip
    out = {"type": "mqtt out", "z": "tab", "broker": "broker", "qos": "1", "retain": "false", "wires": []}
    return [
        {"id": "tab", "type": "tab", "label": "test"},
        {
            "id": "tls",
            "type": "tls-config",
            "ca": str(rig.authority.file),
            "cert": "",
            "key": "",
            "verifyservercert": True,
            "servername": "localhost",
        },
        broker,
        {
            "id": "in",
            "type": "mqtt in",
            "z": "tab",
            "topic": "open/in",
            "qos": "1",
            "broker": "broker",
            "wires": [["out", "no"]],
        },
        {**out, "id": "out", "topic": "open/out"},
        {**out, "id": "no", "topic": "closed/out"},
    ]


def start(rig: Rig, issued: Issued, folder: Path, version: int) -> subprocess.Popen[bytes]:
    """Node-RED with the flow."""
    (folder / "flows.json").write_text(json.dumps(flow(rig, version)))
    (folder / "flows_cred.json").write_text(
        json.dumps({"broker": {"user": issued.username, "password": issued.password}})
    )
    (folder / "settings.js").write_text(SETTINGS % free_port())
    node = shutil.which("node")
    assert node, "node is not installed; run `make setup`"
    program = installed(PROJECT) / "node_modules" / "node-red" / "red.js"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([node, str(program), "--userDir", str(folder), "flows.json"], stdout=log, stderr=log)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.timeout(300)
def test_a_flow_of_node_red_is_refused_what_no_rule_allows_and_outlives_the_edge(
    version: int, make_rig: Callable[..., Rig], folder: Path
) -> None:
    rig = make_rig()
    org = rig.org(POLICY)
    process = start(rig, rig.plane.issue(org), folder, version)
    try:
        for starts in (1, 2):
            wait_for(
                lambda starts=starts: len(rig.plane.events(org=org, kind="subscribe", client_id="node-red")) >= starts,
                seconds=90, what="Node-RED's subscription",
            )  # fmt: skip
            other = rig.client(rig.plane.issue(org, f"other-{starts}"), client_id=f"other-{starts}")
            other.subscribe("open/out", qos=1)
            for _ in range(2):  # the refusal of the first does not keep the second from passing
                other.publish("open/in", b"x", qos=1)
                assert other.delivery().topic == b"open/out"
            other.disconnect()
            wait_for(
                lambda: rig.plane.events(org=org, kind="acl_denied", client_id="node-red"), what="the refusal's event"
            )
            if starts == 1:
                rig.edge.stop(kill=True)
                rig.edge.start()
    finally:
        process.kill()
        process.wait()
    assert {event.topic for event in rig.plane.events(org=org, kind="acl_denied")} == {"closed/out"}
    assert not rig.plane.events(org=org, kind="auth_failed")

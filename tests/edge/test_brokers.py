"""The second lock: the generated Mosquitto configuration, tried on a real Mosquitto with no edge in front."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import lupa
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloudsignal.edge import brokers
from cloudsignal.edge.brokers import mosquitto_config, vernemq_config, vernemq_script
from tests.support.parts import Broker, wait_for

A, B = "org_aaaaaaaaaaaa", "org_bbbbbbbbbbbb"


class Direct:
    """A client straight on the broker's socket, as a faulty edge would be."""

    def __init__(self, broker: Broker, username: str | None, client_id: str, protocol: MQTTProtocolVersion) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.subscribed = 0
        self.acknowledged = 0
        self.connected: list[bool] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, transport="unix")
        if username:
            self.client.username_pw_set(username)
        self.client.on_connect = lambda *arguments: self.connected.append(not arguments[3].is_failure)
        self.client.on_message = lambda _client, _data, message: self.got.append((message.topic, message.payload))
        self.client.on_subscribe = lambda *_: self._count("subscribed")
        self.client.on_publish = lambda *_: self._count("acknowledged")
        self.client.connect(str(broker.socket))
        self.client.loop_start()
        wait_for(lambda: self.connected, what="CONNACK")

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)

    def subscribe(self, *filters: str) -> None:
        self.subscribed = 0
        for topic_filter in filters:
            self.client.subscribe(topic_filter, qos=1)
        wait_for(lambda: self.subscribed == len(filters), what="SUBACK")

    def publish(self, topic: str, payload: bytes) -> None:
        before = self.acknowledged
        self.client.publish(topic, payload, qos=1)
        wait_for(lambda: self.acknowledged > before, what="PUBACK")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
def test_a_username_reads_and_writes_its_own_slice_only(broker: Broker, protocol: MQTTProtocolVersion) -> None:
    a = Direct(broker, A, f"{A}:one", protocol)
    b = Direct(broker, B, f"{B}:one", protocol)
    nobody = Direct(broker, None, "nobody", protocol)
    everywhere = (f"{A}/t/#", f"$share/g/{A}/t/shared", "#", "+/t/x", "$share/g/#", "$share/h/+/t/x", "$SYS/#")
    for client in (b, nobody):
        client.subscribe(*everywhere)
    a.subscribe(f"{A}/t/#")
    for client, mark in ((b, b"b"), (nobody, b"n"), (a, b"a")):
        client.publish(f"{A}/t/x", mark)
        client.publish(f"{A}/t/shared", mark)
        client.publish("elsewhere/t/x", mark)
    wait_for(lambda: len(a.got) >= 2, what="the own messages")
    time.sleep(0.2)
    assert a.got == [(f"{A}/t/x", b"a"), (f"{A}/t/shared", b"a")]
    assert b.got == []
    assert nobody.got == []
    for client in (a, b, nobody):
        client.close()


def test_no_tcp_port_is_open_and_the_socket_comes_back_after_a_kill(broker: Broker) -> None:
    assert broker.process is not None
    listening = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=False).stdout
    assert f"pid={broker.process.pid}," not in listening
    broker.stop(kill=True)
    broker.start()
    client = Direct(broker, A, f"{A}:again", MQTTProtocolVersion.MQTTv5)
    assert client.connected == [True]
    client.close()


def test_a_path_that_would_add_lines_to_the_configuration_is_refused(broker: Broker) -> None:
    with pytest.raises(ValueError, match=r"mosquitto\.conf"):
        mosquitto_config(socket=broker.folder / "x\nallow_anonymous true", acl_file=broker.folder, data=broker.folder)


def test_the_vernemq_script_registers_both_forms_of_every_hook() -> None:
    script = vernemq_script()
    for hook in ("auth_on_register", "auth_on_publish", "auth_on_subscribe"):
        assert f"{hook} =" in script
        assert f"{hook}_m5 =" in script


@pytest.fixture
def hooks() -> Any:
    """The hooks of the generated script, in a Lua of the same dialect as VerneMQ's."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    runtime.execute(vernemq_script())
    return runtime.globals().hooks, runtime.table_from


@pytest.mark.parametrize("form", ["", "_m5"])
def test_the_vernemq_script_opens_the_own_slice_and_nothing_else(hooks: Any, form: str) -> None:
    table, make = hooks

    def ask(hook: str, **fields: object) -> bool:
        answer = table[f"auth_on_{hook}{form}"](make({"mountpoint": "", "client_id": f"{A}:x", **fields}))
        assert isinstance(answer, bool)
        return answer

    def subscribe(*filters: str, username: str | None = A) -> bool:
        return ask("subscribe", username=username, topics=make([make([one, 1]) for one in filters]))

    assert ask("register", username=A, client_id=f"{A}:x")
    for username, client_id in ((A, f"{B}:x"), (A, "x"), (None, f"{A}:x"), (f"{A}a", f"{A}a:x"), ("admin", "admin:x")):
        assert not ask("register", username=username, client_id=client_id)
    assert ask("publish", username=A, topic=f"{A}/t/x")
    for topic in (f"{B}/t/x", A, f"{A}x/t", "$SYS/x", "", f"/{A}/t"):
        assert not ask("publish", username=A, topic=topic)
    assert not ask("publish", username=None, topic=f"{A}/t/x")
    assert subscribe(f"{A}/t/#", f"{A}/s/x", f"$share/g/{A}/t/#")
    outside = (
        "#",
        "+/t/#",
        f"{B}/t/#",
        f"$share/g/{B}/t/#",
        "$share/g/#",
        f"$share/{A}/#",
        f"$share/{A}/",
        "$SYS/#",
        A,
    )
    for one in outside:
        assert not subscribe(one), one
        assert not subscribe(f"{A}/t/#", one), "one filter outside refuses them all"
    assert not subscribe(f"{A}/t/#", username=None)


def test_the_command_writes_what_operations_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tls = ["--ca", "/b/ca.pem", "--cert", "/b/b.crt", "--key", "/b/b.key", "--out", str(tmp_path)]
    assert brokers.main(["vernemq", "--listen", "10.0.0.5:8883", *tls]) == 0
    text = (tmp_path / "vernemq-cloudsignal.conf").read_text()
    assert (tmp_path / "cloudsignal.lua").read_text() == vernemq_script()
    for line in (
        "persistent_client_expiration = 30d",
        "listener.ssl.edge = 10.0.0.5:8883",
        "listener.ssl.edge.require_certificate = on",
        "/b/ca.pem",
    ):
        assert line in text
    assert f"vmq_diversity.cloudsignal.file = {tmp_path}/cloudsignal.lua" in text
    assert brokers.main(["mosquitto", "--listen", "[::1]:8883", *tls]) == 0
    assert "listener 8883 ::1" in (tmp_path / "mosquitto.conf").read_text()
    assert (tmp_path / "cloudsignal.acl").read_text() == "pattern readwrite %u/#\n"
    assert str(tmp_path / "cloudsignal.lua") in capsys.readouterr().out
    with pytest.raises(SystemExit):
        brokers.main(["vernemq", "--listen", "nonsense", *tls])


@pytest.mark.parametrize("field", ["ca", "cert", "key", "script"])
def test_no_line_can_be_added_to_the_files_of_a_distant_broker(field: str) -> None:
    paths = {name: Path("/b") for name in ("ca", "cert", "key", "script")}
    with pytest.raises(ValueError, match=r"vernemq\.conf"):
        vernemq_config(listener="10.0.0.5:8883", **{**paths, field: Path("/b\nallow_anonymous = on")})

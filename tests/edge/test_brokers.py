"""The second lock: the generated Mosquitto configuration, tried on a real Mosquitto with no edge in front."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lupa
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloudsignal.edge import brokers
from cloudsignal.edge.broker.probe import client_id as probe_client_id
from cloudsignal.edge.brokers import emqx_acl, emqx_config, mosquitto_config, vernemq, vernemq_config, vernemq_script
from cloudsignal.edge.brokers.limits import Tls
from cloudsignal.edge.session.mountpoint import MAX_PACKET_BYTES, MOUNT_OVERHEAD
from cloudsignal.ids import PROBE_ORG
from tests.support import emqx_keys, vernemq_keys
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
def lua() -> Any:
    """The generated script in a Lua of the same dialect as VerneMQ's, with a cache of rules that notes what it gets."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    runtime.execute("""
        remembered = {}
        auth_cache = {insert = function(...) remembered[#remembered + 1] = {...} return true end}
    """)
    runtime.execute(vernemq_script())
    return runtime


@pytest.mark.parametrize("form", ["", "_m5"])
def test_the_vernemq_script_opens_the_own_slice_and_nothing_else(lua: Any, form: str) -> None:
    table, make = lua.globals().hooks, lua.table_from

    def ask(hook: str, **fields: object) -> bool:
        answer = table[f"auth_on_{hook}{form}"](make({"mountpoint": "", "client_id": f"{A}:x", **fields}))
        assert isinstance(answer, bool)
        return answer

    def subscribe(*filters: str, username: str | None = A) -> bool:
        return ask("subscribe", username=username, topics=make([make([one, 1]) for one in filters]))

    assert ask("register", username=A, client_id=f"{A}:x")
    assert ask("register", username=PROBE_ORG, client_id=probe_client_id("edge-1", "broker.internal (10.0.0.5:8883)"))
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


def remembered(lua: Any) -> list[list[Any]]:
    """The arguments of every ``auth_cache.insert``, tables as lists."""

    def plain(value: Any) -> Any:
        if lupa.lua_type(value) != "table":
            return value
        keys = list(value)
        return [plain(value[key]) for key in keys] if 1 in keys else {key: plain(value[key]) for key in keys}

    return [plain(each) for each in lua.globals().remembered.values()]


def covers(pattern: str, asked: str) -> bool:
    """Compare as VerneMQ's cache does: level by level; ``+`` and ``#`` of the question are texts like any other."""
    rule, levels = pattern.split("/"), asked.split("/")
    if rule[-1] == "#":
        rule, levels = rule[:-1], levels[: len(rule) - 1]
    return len(rule) == len(levels) and all(one in {"+", level} for one, level in zip(rule, levels, strict=True))


@pytest.mark.parametrize("form", ["", "_m5"])
def test_a_login_fills_vernemqs_cache_with_the_own_slice_and_a_refused_one_with_nothing(lua: Any, form: str) -> None:
    register, make = lua.globals().hooks[f"auth_on_register{form}"], lua.table_from
    for username, client_id in ((A, f"{B}:x"), ("admin", "admin:x"), (f"{A[:-1]}#", f"{A[:-1]}#:x"), ("+", "+:x")):
        assert not register(make({"mountpoint": "", "client_id": client_id, "username": username}))
    assert remembered(lua) == []
    assert register(make({"mountpoint": "", "client_id": f"{A}:x", "username": A}))
    [[mountpoint, client_id, username, publish, subscribe]] = remembered(lua)
    assert (mountpoint, client_id, username) == ("", f"{A}:x", A)
    assert publish == [{"pattern": f"{A}/#"}]

    def granted(asked: str) -> bool:
        return any(covers(rule["pattern"], asked) for rule in subscribe)

    assert all(map(granted, (f"{A}/t/#", f"{A}/s/x", f"{A}/t/+/y", f"$share/g/{A}/t/#", f"$share/{B}/{A}/t/x")))
    outside = (
        "#",
        "+/t/#",
        f"{B}/t/#",
        f"$share/g/{B}/t/#",
        "$share/g/#",
        "$share/g/+/t",
        f"$share/{A}/{B}/t",
        "$SYS/#",
    )
    assert not any(map(granted, outside))


TLS = Tls(Path("/b/ca.pem"), Path("/b/b.crt"), Path("/b/b.key"))
NODE = vernemq.VernemqNode("VerneMQ@10.0.0.5", "c00k1e", "10.0.0.5:8883", "10.0.0.5:24053", "10.0.0.5:8888")


def test_vernemqs_configuration_has_keys_and_values_of_its_schema_and_every_limit_fits_the_edges() -> None:
    text = vernemq_config(node=NODE, tls=TLS, script=Path("/b/x.lua"), levels=9)
    assert vernemq_keys.problems(text) == []
    assert "topic_max_depth = 13\n" in text, "nine levels, two of the mountpoint, two of $share/GROUP/"
    for line in (
        "shared_subscription_policy = random",
        "erlang.distribution.net_ticktime = 10",
        "nodename = VerneMQ@10",
    ):
        assert line in text
    assert int(re.findall(r"outgoing_clustering_buffer_size = (\d+)", text)[0]) > 10_000
    assert f"max_message_size = {MAX_PACKET_BYTES + MOUNT_OVERHEAD}\n" in text
    ports = [int(port) for port in re.findall(r":(\d+)$|port_range.*= (\d+)$", text, re.M) for port in port if port]
    assert all(port < 32_768 for port in ports), "none in the range from which Linux gives out ports"
    assert re.findall(r"^listener\.(\w+\.\w+) =", text, re.M) == ["ssl.edge", "vmq.clustering", "http.default"]


def test_a_key_or_value_that_vernemq_does_not_know_would_be_seen() -> None:
    lines = (
        "topic_max_depth = many",
        "listener.ssl.edge.nonsense = on",
        "topic max depth",
        *2 * ["allow_anonymous = on"],
    )
    assert len(vernemq_keys.problems("\n".join(lines))) == 4


def test_emqxs_configuration_has_keys_and_values_of_its_documentation_and_closes_every_other_way_in() -> None:
    text = emqx_config(listener="10.0.0.5:8883", tls=TLS, acl_file=Path("/b/acl.conf"), levels=9)
    assert emqx_keys.problems(text) == []
    found = dict(emqx_keys.values(text))
    assert found["mqtt.max_topic_levels"] == "13"
    assert found["mqtt.max_packet_size"] == str(MAX_PACKET_BYTES + MOUNT_OVERHEAD)
    assert found["authorization.no_match"] == "deny"
    assert found["listeners.ssl.edge.ssl_options.fail_if_no_peer_cert"] == "true"
    assert found["listeners.ssl.edge.ssl_options.verify"] == "verify_peer"
    assert found["listeners.ssl.edge.mountpoint"] == '""'
    assert all(found[f"listeners.{kind}.default.enable"] == "false" for kind in ("tcp", "ssl", "ws", "wss"))
    rules = [line for line in emqx_acl().splitlines() if not line.startswith("%")]
    assert all(map(emqx_keys.RULE.fullmatch, rules))
    assert rules[-1] == "{deny, all}."
    assert [re.findall(r'\["(.*)"\]', rule) for rule in rules] == [["${username}/#"], []]
    for pattern in re.findall(r'(?:re, "|username, \')(\^[^"\']+\$)', emqx_acl() + text):
        assert re.match(pattern, A)
        assert not any(re.match(pattern, name) for name in ("", "admin", "org_", f"{A}a", "org_aaaaaaaaaaa/", "+", "#"))


def test_a_key_that_emqx_does_not_know_would_be_seen() -> None:
    assert emqx_keys.problems("mqtt {\n  max_depth = 3\n  max_inflight = many\n}\n") == [
        "mqtt.max_depth is unknown",
        "mqtt.max_inflight cannot be many",
    ]


def test_the_command_writes_what_the_documentation_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tls = ["--ca", "/b/ca.pem", "--cert", "/b/b.crt", "--key", "/b/b.key", "--out", str(tmp_path)]
    assert brokers.main(["vernemq", "--listen", "10.0.0.5:8883", *tls]) == 0
    text = (tmp_path / "vernemq-cloudsignal.conf").read_text()
    assert vernemq_keys.problems(text) == []
    assert (tmp_path / "cloudsignal.lua").read_text() == vernemq_script()
    for line in (
        "persistent_client_expiration = 30d",
        "listener.ssl.edge = 10.0.0.5:8883",
        "listener.ssl.edge.require_certificate = on",
        "/b/ca.pem",
        "topic_max_depth = 132",
    ):
        assert line in text
    assert f"vmq_diversity.cloudsignal.file = {tmp_path}/cloudsignal.lua" in text
    assert brokers.main(["mosquitto", "--listen", "[::1]:8883", *tls]) == 0
    assert "listener 8883 ::1" in (tmp_path / "mosquitto.conf").read_text()
    assert (tmp_path / "cloudsignal.acl").read_text() == "pattern readwrite %u/#\n"
    assert brokers.main(["emqx", "--listen", "[::1]:8883", "--levels", "7", *tls]) == 0
    assert emqx_keys.problems((tmp_path / "emqx-cloudsignal.conf").read_text()) == []
    assert "max_topic_levels = 11" in (tmp_path / "emqx-cloudsignal.conf").read_text()
    assert (tmp_path / "cloudsignal.acl.conf").read_text() == emqx_acl()
    assert str(tmp_path / "cloudsignal.lua") in capsys.readouterr().out
    for wrong in (["vernemq", "--listen", "nonsense"], ["emqx", "--listen", "[::1]:1", "--levels", "129"]):
        with pytest.raises(SystemExit):
            brokers.main([*wrong, *tls])


def test_nodes_of_one_vernemq_cluster_get_one_cookie_that_nobody_else_can_read(tmp_path: Path) -> None:
    cookie, texts = tmp_path / "cookie", []
    for host in ("10.0.0.5", "10.0.0.6"):
        options = ["--ca", "/b/ca", "--cert", "/b/c", "--key", "/b/k", "--cookie-file", str(cookie)]
        assert brokers.main(["vernemq", "--listen", f"{host}:8883", "--out", str(tmp_path / host), *options]) == 0
        texts.append((tmp_path / host / "vernemq-cloudsignal.conf").read_text())
    assert cookie.stat().st_mode & 0o777 == 0o600
    assert [text.count(f"distributed_cookie = {cookie.read_text()}") for text in texts] == [1, 1]
    assert [re.findall(r"nodename = (.*)", text) for text in texts] == [["VerneMQ@10.0.0.5"], ["VerneMQ@10.0.0.6"]]


def test_a_configuration_with_a_secret_is_readable_to_others_at_no_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, write = [], Path.write_text

    def watched(path: Path, *args: str, **options: str) -> int:
        written = write(path, *args, **options)
        modes.append((path.name, path.stat().st_mode & 0o777))
        return written

    config = tmp_path / "vernemq-cloudsignal.conf"
    config.write_text("an earlier one")
    config.chmod(0o644)
    monkeypatch.setattr(Path, "write_text", watched)
    options = ["--ca", "/b/ca", "--cert", "/b/c", "--key", "/b/k", "--out", str(tmp_path)]
    assert brokers.main(["vernemq", "--listen", "10.0.0.5:8883", *options]) == 0
    assert len(modes) == 3
    assert not [name for name, mode in modes if mode & 0o007], modes
    assert config.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("field", ["ca", "cert", "key", "script", "node"])
def test_no_line_can_be_added_to_the_files_of_a_distant_broker(field: str) -> None:
    paths = {name: Path("/b") for name in ("ca", "cert", "key", "script")}
    paths |= {field: Path("/b\nallow_anonymous = on")}
    node = replace(NODE, name=str(paths[field])) if field == "node" else NODE
    tls = Tls(paths["ca"], paths["cert"], paths["key"])
    with pytest.raises(ValueError, match=r"vernemq\.conf"):
        vernemq_config(node=node, tls=tls, script=paths["script"])


@pytest.mark.parametrize("value", ['/b" }', "/b${x}", "/b\nx = 1", "/b\\"])
def test_no_value_can_be_added_to_the_files_of_an_emqx(value: str) -> None:
    with pytest.raises(ValueError, match=r"emqx\.conf"):
        emqx_config(listener="10.0.0.5:8883", tls=TLS, acl_file=Path(value))

"""TLS floor, certificates, WebSocket, PROXY v2, the private listeners and the metrics."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloudsignal.edge.codec import Kind, Reason, disconnect
from cloudsignal.edge.transport.certificates import Certificates
from cloudsignal.edge.transport.proxy_protocol import SIGNATURE, ProxyError, parse, variable_length
from cloudsignal.edge.transport.websocket import FRAME_TOO_LARGE
from cloudsignal.wire.bundle import Quotas
from tests.support.parts import early_in_a_minute, metrics, wait_for
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.wire import ClosedError, Wire, dial_tls, dial_websocket

MakeRig = Callable[..., Rig]


def handshake(rig: Rig, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20)
    return context.wrap_socket(raw, server_hostname=name)


def loose() -> ssl.SSLContext:
    """A client that would take anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_tls_below_1_2_is_refused_and_audited(rig: Rig, version: ssl.TLSVersion) -> None:
    context = loose()
    context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        handshake(rig, context)
    wait_for(lambda: rig.plane.events(kind="tls_failed", reason="unsupported_protocol"), what="tls_failed")


@pytest.mark.parametrize("suite", ["AES256-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA384"])
def test_suites_without_forward_secrecy_or_aead_are_refused(rig: Rig, suite: str) -> None:
    context = loose()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        handshake(rig, context)
    wait_for(lambda: rig.plane.events(kind="tls_failed", reason="no_shared_cipher"), what="tls_failed")


@pytest.mark.parametrize("data", [b"\x10\x0c\0\4MQTT\4\2\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", os.urandom(400)])
def test_plaintext_on_the_tls_port_is_refused_and_audited(rig: Rig, data: bytes) -> None:
    before = sum(event.count for event in rig.plane.events(kind="tls_failed"))
    with socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20) as raw:
        raw.sendall(data)
        answer = raw.recv(100)
        assert answer == b"" or answer[0] == 0x15  # a TLS alert
    wait_for(lambda: sum(e.count for e in rig.plane.events(kind="tls_failed")) > before, what="tls_failed")


def test_tls_1_2_is_accepted_and_named_in_the_audit(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    context = rig.authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    wire = dial_tls(rig.edge.port, context)
    assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    event = rig.plane.event(org=org, kind="connect")
    assert event.tls_version == "TLSv1.2"
    assert event.tls_cipher.startswith("ECDHE-")


def test_a_client_without_nodelay_waits_for_no_delayed_acknowledgement(rig: Rig) -> None:
    """Its kernel keeps CONNECT back until the end of the handshake is acknowledged: 40 ms if nobody asks for it."""
    issued = rig.plane.issue(rig.org(), "dev")
    took: dict[bool, list[float]] = {False: [], True: []}
    for nodelay in (False, True) * 9:
        wire = rig.dial()
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        begun = time.perf_counter()
        assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
        took[nodelay].append(time.perf_counter() - begun)
        wire.close()
    assert statistics.median(took[False]) < 10 * statistics.median(took[True])


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("path", ["/mqtt", "/"])
def test_a_websocket_client_does_all_that_others_do(rig: Rig, version: int, path: str) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = dial_websocket(rig.edge.wss_port, rig.authority.client_context(), path=path)
    assert wire.connect(version=version, username=issued.username, password=issued.password).code == 0
    assert wire.subscribe("a/#", qos=2) == [2]
    for qos in (0, 1, 2):
        wire.publish("a/b", bytes([qos]) * 70_000, qos=qos)
        message = wire.delivery()
        assert message.topic == b"a/b"
        assert message.payload == bytes([qos]) * 70_000
    assert rig.plane.event(org=org, kind="connect").transport == "wss"
    other = rig.client(issued, version=version, client_id="tls")
    other.publish("a/c", b"across")
    assert wire.delivery().payload == b"across"


def test_mqtt_packets_may_be_cut_anywhere_by_websocket_frames(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    assert wire.connect(version=4, username=issued.username, password=issued.password).code == 0
    assert wire.subscribe("a") == [0]
    data = wire.message("a", b"first") + wire.message("a", b"second")
    for position in range(len(data)):
        wire.send(data[position : position + 1])
    assert [wire.delivery().payload for _ in range(2)] == [b"first", b"second"]


@pytest.mark.parametrize(("path", "protocol"), [("/elsewhere", "mqtt"), ("/mqtt", ""), ("/mqtt", "chat")])
def test_a_websocket_of_another_path_or_protocol_is_refused(rig: Rig, path: str, protocol: str) -> None:
    with pytest.raises(ClosedError):
        dial_websocket(rig.edge.wss_port, rig.authority.client_context(), path=path, protocol=protocol)


FRAMES = {
    1002: [b"\x82\x05hello", b"\x83\x80\0\0\0\0", b"\xc2\x80\0\0\0\0", b"\x89\xfe\1\0" + bytes(260)],
    1003: [b"\x81\x82\0\0\0\0hi"],
    1009: [b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0"],
}
"""Wrong frames by the code that answers them: not masked, unknown, with reserved bits, long control; text; huge."""


@pytest.mark.parametrize(("code", "frame"), [(code, frame) for code, found in FRAMES.items() for frame in found])
def test_a_wrong_frame_ends_the_session_and_says_why(rig: Rig, code: int, frame: bytes) -> None:
    """RFC 6455 s7.4.1 and MQTT 5 s6: a text frame, or one that breaks the framing, ends the connection."""
    org = rig.org()
    issued = rig.plane.issue(org)
    stranger = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    known = dial_websocket(rig.edge.wss_port, rig.authority.client_context())
    assert known.connect(version=5, username=issued.username, password=issued.password).code == 0
    for wire in (stranger, known):
        wire.sock.sendall(frame)
        answer = b""
        while data := wire.sock.recv(4096):
            answer += data
        said, close = answer.split(b"\x88", 1)
        assert int.from_bytes(close[1:3], "big") == code
        # A frame that is too large can be answered in MQTT before it is answered in WebSocket.
        told = code == 1009 and wire is known
        assert said[2:] == (disconnect(Reason.PACKET_TOO_LARGE, FRAME_TOO_LARGE) if told else b"")
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.reason, event.details["reason_code"]) == ("protocol", 0x95 if code == 1009 else 0x81)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GARBAGE\r\n\r\n", b""),
        (b"POST /mqtt HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
        (b"GET /mqtt HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /mqtt HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n", b"431"),
        (b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    ],
)
def test_a_handshake_that_comes_to_nothing_is_answered_and_closed_at_once(
    rig: Rig, request_: bytes, status: bytes
) -> None:
    raw = socket.create_connection(("127.0.0.1", rig.edge.wss_port), timeout=20)
    sock = rig.authority.client_context().wrap_socket(raw, server_hostname="localhost")
    sock.sendall(request_)
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while data := sock.recv(4096):
            answer += data
    assert answer[9:12] == status
    event = rig.plane.event(kind="auth_failed", port=sock.getsockname()[1])
    assert (event.org, event.reason, event.transport) == ("", "protocol", "wss")


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_paho_works_over_both_transports(rig: Rig, protocol: MQTTProtocolVersion, transport: str) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    got: list[bytes] = []
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id="paho",
        protocol=protocol,
        transport=transport,  # type: ignore[arg-type]
    )
    client.tls_set(ca_certs=str(rig.authority.file))
    client.username_pw_set(issued.username, issued.password)
    client.on_message = lambda _client, _data, message: got.append(message.payload)
    client.on_connect = lambda client, *_: client.subscribe("p/#", qos=2)
    client.on_subscribe = lambda client, *_: client.publish("p/1", b"paho", qos=2)
    client.connect("localhost", rig.edge.port if transport == "tcp" else rig.edge.wss_port)
    client.loop_start()
    wait_for(lambda: got == [b"paho"], what="the message")
    client.disconnect()
    client.loop_stop()


def test_certificates_reload_without_dropping_sessions_and_sni_chooses(make_rig: MakeRig, tmp_path: Path) -> None:
    folder = tmp_path / "orgs"
    folder.mkdir()
    rig = make_rig(EDGE_TLS_ORGS=str(folder))
    org = rig.org()
    client = rig.client(rig.plane.issue(org))
    context = rig.authority.client_context()

    def subject(name: str) -> str:
        with handshake(rig, context, name) as sock:
            certificate = sock.getpeercert()
        assert certificate
        return str(dict(pair for rdn in certificate["subject"] for pair in rdn)["commonName"])  # type: ignore[misc]

    assert subject(f"{org}.example.test") == "localhost"
    rig.authority.issue(folder / org, "own.example.test")
    rig.authority.issue(rig.edge.folder / rig.edge.node, "renewed.example.test")
    os.kill(rig.edge.pid, signal.SIGHUP)
    wait_for(lambda: subject("edge.example.test") == "renewed.example.test", what="the new certificate")
    assert subject(f"{org}.example.test") == "own.example.test"
    assert subject("org_zzzzzzzzzzzz.example.test") == "renewed.example.test"
    (folder / f"{org}.crt").write_text("nonsense")
    os.kill(rig.edge.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert subject(f"{org}.example.test") == "own.example.test"
    client.ping()


def proxy_header(ip: str, port: int, *, version: bytes = b"TLSv1.3", tls: bool = True) -> bytes:
    address = ipaddress.ip_address(ip).packed
    family = 0x11 if len(address) == 4 else 0x21
    body = address + bytes(len(address)) + port.to_bytes(2, "big") + b"\0\0"
    if tls:
        inner = b"\x21" + len(version).to_bytes(2, "big") + version + b"\x23\0\x16TLS_AES_256_GCM_SHA384"
        value = b"\1\0\0\0\0" + inner
        body += b"\x20" + len(value).to_bytes(2, "big") + value
    return SIGNATURE + bytes([0x21, family]) + len(body).to_bytes(2, "big") + body


def test_a_proxy_header_gives_address_and_tls_facts(make_rig: MakeRig) -> None:
    port = free_port()
    rig = make_rig(EDGE_PROXY=f"127.0.0.1:{port}")
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = Wire(socket.create_connection(("127.0.0.1", port), timeout=20))
    wire.sock.sendall(proxy_header("203.0.113.9", 4711))
    assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    event = rig.plane.event(org=org, kind="connect")
    assert (event.ip, event.port, event.tls_version) == ("203.0.113.9", 4711, "TLSv1.3")
    assert event.tls_cipher == "TLS_AES_256_GCM_SHA384"
    for header in (proxy_header("203.0.113.9", 1, tls=False), b"\x10\x0c\0\4MQTT\4\2\0\0\0\0" + bytes(20)):
        bare = Wire(socket.create_connection(("127.0.0.1", port), timeout=20))
        bare.sock.sendall(header)
        assert bare.closed() == []
    wait_for(lambda: rig.plane.events(kind="tls_failed"), what="tls_failed")


def test_limits_go_by_the_address_in_the_proxy_header(make_rig: MakeRig) -> None:
    port = free_port()
    rig = make_rig(EDGE_PROXY=f"127.0.0.1:{port}", EDGE_ADDRESS_CONNECTIONS="2")
    issued = rig.plane.issue(rig.org())

    def come(ip: str, client_id: str) -> Wire:
        wire = Wire(socket.create_connection(("127.0.0.1", port), timeout=20))
        wire.sock.sendall(proxy_header(ip, 4711))
        wire.connect(version=5, username=issued.username, password=issued.password, client_id=client_id)
        return wire

    held = [come("203.0.113.9", "a"), come("203.0.113.9", "b")]
    with pytest.raises((ClosedError, OSError)):
        come("203.0.113.9", "c")
    held.append(come("203.0.113.10", "d"))
    event = rig.plane.event(kind="limit_reached", reason="address_connections")
    assert event.ip == "203.0.113.9"
    # One /64 of IPv6 belongs to one host.
    held += [come("2001:db8::1", "e"), come("2001:db8::2", "f")]
    with pytest.raises((ClosedError, OSError)):
        come("2001:db8::3", "g")
    for wire in held:
        wire.ping()


def test_a_health_check_of_the_terminator_is_no_failure_and_version_1_is_refused(make_rig: MakeRig) -> None:
    port = free_port()
    rig = make_rig(EDGE_PROXY=f"127.0.0.1:{port}")
    for data in (SIGNATURE + b"\x20\x00\0\0", b"PROXY TCP4 203.0.113.9 203.0.113.1 1 2\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            assert sock.recv(100) == b""
    assert rig.plane.event(kind="tls_failed").reason == "no PROXY v2 header"


def test_proxy_headers_are_read_strictly() -> None:
    good = proxy_header("2001:db8::1", 99)
    assert variable_length(good[:16]) == len(good) - 16
    found = parse(good[:16], good[16:])
    assert found is not None
    assert (found.ip, found.port) == ("2001:db8::1", 99)
    assert parse(SIGNATURE + b"\x20\x00\0\0", b"") is None
    old = proxy_header("1.2.3.4", 1, version=b"TLSv1.1")
    with pytest.raises(ProxyError, match="older"):
        parse(old[:16], old[16:])
    for cut in range(1, len(good) - 16):
        with pytest.raises(ProxyError):
            parse(good[:16], good[16:-cut])


@pytest.mark.parametrize("name", ["EDGE_PLAINTEXT", "EDGE_PROXY", "EDGE_METRICS"])
def test_a_listener_without_tls_never_gets_a_public_address(rig: Rig, name: str) -> None:
    env = {**rig.edge.env, "EDGE_NODE": "other", name: "0.0.0.0:18830"}
    answer = subprocess.run(
        [sys.executable, "-m", "cloudsignal.edge"], check=False, env=env, capture_output=True, text=True, timeout=20
    )
    assert answer.returncode == 2
    assert name in answer.stderr
    assert "loopback or private" in answer.stderr


def test_a_private_plaintext_listener_exists_when_asked_for(make_rig: MakeRig) -> None:
    port = free_port()
    rig = make_rig(EDGE_PLAINTEXT=f"127.0.0.1:{port}")
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = Wire(socket.create_connection(("127.0.0.1", port), timeout=20))
    assert wire.connect(version=4, username=issued.username, password=issued.password).code == 0
    assert rig.plane.event(org=org, kind="connect").transport == "mqtt"


def test_too_many_failed_sign_ins_slow_an_address_down_and_are_then_refused_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(EDGE_LOGIN_FAILURES="2")
    org = rig.org()
    issued = rig.plane.issue(org)

    def failed() -> float:
        wire = rig.dial()
        started = time.monotonic()
        assert wire.connect(version=5, username=f"x@{org}", password="x").code == 0x86
        return time.monotonic() - started

    assert failed() < 1
    assert failed() > 1.5
    with ThreadPoolExecutor(6) as pool:
        assert min(pool.map(lambda _: failed(), range(6))) > 1.5
    answer = rig.dial().connect(version=5, username=issued.username, password=issued.password)
    assert answer.code == 0x9F
    assert rig.plane.event(kind="auth_failed", reason="rate_limited").org == org


def test_an_address_with_too_many_connections_is_turned_away(make_rig: MakeRig) -> None:
    rig = make_rig(EDGE_ADDRESS_CONNECTIONS="3")
    org = rig.org()
    issued = rig.plane.issue(org)
    clients = [rig.client(issued, client_id=f"c{n}") for n in range(3)]
    with pytest.raises((OSError, ClosedError)):
        rig.dial().receive()
    wait_for(lambda: rig.plane.events(kind="limit_reached", reason="address_connections"), what="the event")
    clients[0].disconnect()
    time.sleep(0.2)
    rig.client(issued, client_id="c0")


def test_metrics_tell_what_the_edge_does(make_rig: MakeRig) -> None:
    rig = make_rig()
    quotas = Quotas(messages_per_minute=6)
    org = rig.org(
        "version: '3'\nrules: [{id: x, effect: deny, topic: o/x, action: sub}, {id: o, topic: 'o/#'}]", quotas=quotas
    )
    client = rig.client(rig.plane.issue(org))
    client.subscribe("o/#")
    early_in_a_minute()
    for number, topic in enumerate(("o/1", "o/2", "o/3", "o/x", "no", "no", "o/4", "o/5")):
        client.send(client.message(topic, qos=1, packet_id=number + 1))
        client.expect(Kind.PUBACK)
    with pytest.raises(ssl.SSLError):
        handshake(rig, ssl.create_default_context(), "localhost")
    found = wait_for(
        lambda: (now := metrics(rig.edge))["cloudsignal_edge_handshake_failures_total"] and now, what="the handshake"
    )
    expected = {
        "connections": 1,
        "sessions": 1,
        "connects_total": 1,
        "handshake_failures_total": 1,
        'messages_total{direction="in",verdict="allowed"}': 4,
        'messages_total{direction="in",verdict="denied"}': 2,
        'messages_total{direction="in",verdict="over_quota"}': 2,
        'messages_total{direction="out",verdict="allowed"}': 3,
        'messages_total{direction="out",verdict="denied"}': 1,
        'events_total{kind="acl_denied"}': 3,
        "redis_in_step": 1,
        "upstream_backlog_waits_total": 0,
        "turned_away_total": 0,
    }
    assert {name: found[f"cloudsignal_edge_{name}"] for name in expected} == expected
    assert found["cloudsignal_edge_decisions_total"] >= 6
    assert 0 < found["cloudsignal_edge_decision_seconds_total"] < 1
    assert 0 <= found[f'cloudsignal_edge_bundle_age_seconds{{org="{org}"}}'] < 60
    wait_for(lambda: metrics(rig.edge)["cloudsignal_edge_audit_queue_bytes"] == 0, what="an empty queue")
    assert metrics(rig.edge)["cloudsignal_edge_audit_journal_bytes"] > 0
    rig.valkey.stop(kill=True)
    client.send(client.message("no/later", qos=1))
    client.expect(Kind.PUBACK)
    away = wait_for(lambda: (now := metrics(rig.edge))["cloudsignal_edge_redis_in_step"] == 0 and now, what="the loss")
    assert away["cloudsignal_edge_audit_queue_bytes"] > 0
    assert away["cloudsignal_edge_audit_journal_bytes"] >= away["cloudsignal_edge_audit_queue_bytes"]
    rig.valkey.start()
    wait_for(lambda: metrics(rig.edge)["cloudsignal_edge_audit_queue_bytes"] == 0, what="an empty queue")


def test_every_metric_says_what_it_is(rig: Rig) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.edge.metrics_port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    for about in ("HELP", "TYPE"):
        assert names <= {line.split(" ")[2] for line in lines if line.startswith(f"# {about} ")}


def test_a_changed_certificate_file_is_noticed_without_a_signal(rig: Rig, tmp_path: Path) -> None:
    crt, key = rig.authority.issue(tmp_path / "edge", "first.example.test")
    certificates = Certificates(crt, key, tmp_path)
    assert not certificates.reload_if_changed()
    rig.authority.issue(tmp_path / "edge", "second.example.test")
    rig.authority.issue(tmp_path / "org_aaaaaaaaaaaa", "own.example.test")
    assert certificates.reload_if_changed()
    assert not certificates.reload_if_changed()
    key.write_text("half a")
    assert certificates.reload_if_changed(), "what cannot be read is looked at once; the old certificate stays"
    assert not certificates.reload_if_changed()

"""The audit of the edge: every event says who, where and what; the log on standard error names no topic."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from cloudsignal.edge.codec import Kind, Will
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode
from cloudsignal.wire.report import Heartbeat
from cloudsignal.wire.sealed import unchecked
from tests.support.parts import wait_for
from tests.support.rig import Rig
from tests.support.wire import Wire

BOTH = pytest.mark.parametrize("version", [4, 5])
POLICY = "version: '3'\nrules: [{id: ok, topic: 'ok/#'}, {id: in, topic: 'held', action: pub}]"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def everything(rig: Rig, org: str, version: int) -> tuple[Wire, int]:
    """One client that does something of each kind; returns it and the port it came from."""
    issued = rig.plane.issue(org)
    client = rig.dial()
    port = client.sock.getsockname()[1]
    answer = client.connect(version=version, username=issued.username, password=issued.password, client_id="one")
    assert answer.code == 0
    client.subscribe("ok/#", "no/#", qos=1)
    client.publish("ok/1", b"four", qos=1)
    client.delivery()
    client.publish("no/1", b"denied", qos=2, retain=True)
    client.unsubscribe("ok/#")
    return client, port


@BOTH
def test_every_event_of_a_session_says_who_and_where(rig: Rig, version: int) -> None:
    org = rig.org(POLICY)
    began = time.time()
    client, port = everything(rig, org, version)
    client.disconnect()
    rig.plane.event(org=org, kind="disconnect")
    events = [event for event in rig.plane.events(org=org) if event.kind != "policy_applied"]
    kinds = {"connect", "subscribe", "acl_denied", "unsubscribe", "disconnect"}
    assert {event.kind for event in events} == kinds
    session = rig.plane.event(org=org, kind="connect").session
    assert UUID7.fullmatch(session)
    for event in events:
        assert UUID7.fullmatch(event.id), event
        assert began - 1 < event.ts / 1_000_000 < time.time() + 1
        who = (event.org, event.node, event.session, event.username, event.client_id)
        assert who == (org, "edge-1", session, "dev", "one")
        where = (event.ip, event.port, event.transport, event.mqtt_version, event.tls_version)
        assert where == ("127.0.0.1", port, "mqtts", "5" if version == 5 else "3.1.1", "TLSv1.3")
        assert event.tls_cipher.startswith("TLS_")
    assert len({event.id for event in events}) == len(events)


@BOTH
def test_what_each_kind_needs_is_there(rig: Rig, version: int) -> None:
    org = rig.org(POLICY)
    client, _ = everything(rig, org, version)
    client.send(bytes([Kind.DISCONNECT, 0]))
    client.closed()
    rig.plane.event(org=org, kind="disconnect")
    applied = rig.plane.event(org=org, kind="policy_applied")
    assert applied.policy_digest.startswith("sha256:")
    assert 0 <= float(applied.details["seconds_since_commit"]) < 60

    def facts(event: AuditEvent) -> tuple[object, ...]:
        return event.action, event.topic, event.qos, event.rule, event.policy_digest

    digest = applied.policy_digest
    assert facts(rig.plane.event(org=org, kind="subscribe")) == ("subscribe", "ok/#", 1, "ok", digest)
    refused = rig.plane.event(org=org, kind="acl_denied", action="subscribe")
    assert facts(refused) == ("subscribe", "no/#", 1, "none", digest)
    published = rig.plane.event(org=org, kind="acl_denied", action="publish")
    assert facts(published) == ("publish", "no/1", 2, "none", digest)
    assert published.retain
    assert published.size == len(client.message("no/1", b"denied", 2, retain=True))
    assert published.reason
    assert rig.plane.event(org=org, kind="unsubscribe").topic == "ok/#"
    end = rig.plane.event(org=org, kind="disconnect")
    details = {name: end.details[name] for name in ("messages_in", "messages_out", "reason_code")}
    assert (end.reason, details) == ("clean", {"messages_in": 2, "messages_out": 1, "reason_code": 0})
    assert 0 < float(end.details["seconds"]) < 60
    assert 100 < int(end.details["bytes_in"]) < 1_000
    assert 10 < int(end.details["bytes_out"]) < 1_000


@pytest.mark.parametrize("how", ["clean", "with_will", "lost", "keep_alive"])
def test_ends_are_told_apart(rig: Rig, how: str) -> None:
    """MQTT 5 s3.14.2.1: 0x04 asks for the will all the same."""
    org = rig.org()
    watcher = rig.client(rig.plane.issue(org, "watcher"))
    watcher.subscribe("will")
    client = rig.client(rig.plane.issue(org), client_id="x", will=Will(b"will", b"gone"), keep_alive=1)
    if how == "lost":
        client.close()
    elif how != "keep_alive":
        client.send(b"\xe0\0" if how == "clean" else b"\xe0\1\4")
    event = rig.plane.event(org=org, kind="disconnect", client_id="x")
    code = {"clean": 0, "with_will": 4}.get(how)
    assert (event.reason, event.details.get("reason_code")) == (how, code)
    if how == "clean":
        watcher.nothing()
    else:
        assert watcher.delivery().payload == b"gone"


@pytest.mark.parametrize("how", ["revoked", "org_suspended", "kicked"])
def test_a_session_is_closed_soon_after_the_commit_and_the_event_says_how_soon(rig: Rig, how: str) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    client = rig.client(issued)
    session = rig.plane.event(org=org, kind="connect").session
    if how == "revoked":
        rig.plane.revoke(issued)
    elif how == "org_suspended":
        rig.plane.deploy(org, suspended=True)
    else:
        rig.plane.announce(Change("close", org, session=session, committed_at=time.time()))
    assert client.closed()[0][0] == Kind.DISCONNECT
    event = rig.plane.event(org=org, kind="session_closed")
    assert event.reason == how
    assert float(event.details["seconds_since_commit"]) >= 0


def test_the_heartbeat_counts_every_event_so_that_a_gap_shows(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    org = rig.org(POLICY)
    client, _ = everything(rig, org, 5)
    client.disconnect()
    rig.plane.event(org=org, kind="disconnect")

    def beat() -> Heartbeat:
        blob = rig.plane.redis.get(keys.node("edge-1"))
        assert isinstance(blob, bytes)
        return decode(unchecked(blob), Heartbeat)

    wait_for(lambda: beat().sequence == len(rig.plane.events()), what="as many events as the heartbeat counts")
    lost = rig.plane.redis.xrevrange(keys.AUDIT, count=1)[0][0]
    rig.plane.redis.xdel(keys.AUDIT, lost)
    assert beat().sequence > len(rig.plane.events())


def test_the_log_is_json_and_names_no_topic_of_a_tenant(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    marker = "zebra"
    org = rig.org(f"version: '3'\nrules: [{{id: ok, topic: '{marker}/#'}}]")
    for version in (4, 5):
        client = rig.client(rig.plane.issue(org), version=version, client_id=f"{marker}{version}")
        client.subscribe(f"{marker}/#", f"no/{marker}/#")
        for topic in (f"{marker}/a", f"no/{marker}"):
            client.publish(topic, marker.encode(), qos=1)
        rig.plane.deploy(org, "version: '3'\nrules: []")
        lost = {"kind": "acl_denied", "action": "subscribe", "topic": f"{marker}/#"}
        rig.plane.event(org=org, client_id=f"{marker}{version}", **lost)
        client.send(client.message(f"a/+/{marker}"))
        client.closed()
        rig.plane.enforced(org, rig.plane.deploy(org, f"version: '3'\nrules: [{{id: ok, topic: '{marker}/#'}}]"))
    refused = rig.dial()
    refused.connect(version=5, username=f"{marker}@{org}", password=marker, will=Will(marker.encode(), b"x"))
    blob = rig.plane.bundle(org)
    rig.plane.store_bundle(org, blob[:-1] + bytes([blob[-1] ^ 1]))
    wait_for(lambda: "refused" in rig.edge.log.read_text(), what="a warning")
    rig.broker.stop(kill=True)
    rig.valkey.stop(kill=True)
    wait_for(lambda: "redis is unavailable" in rig.edge.log.read_text(), what="a warning")
    rig.edge.stop()
    lines = rig.edge.log.read_text().splitlines()
    assert len(lines) >= 4
    for line in lines:
        entry = json.loads(line)
        assert {"at", "level", "logger", "message"} <= set(entry)
        assert entry["level"] in {"info", "warning", "critical"}
        assert marker not in line
    rig.valkey.start()

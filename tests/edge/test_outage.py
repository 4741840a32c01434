"""Parts that die: Redis, the broker, the edge itself. Nothing a client was told is lost, and nothing opens up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cloudsignal.edge.codec import Kind
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import open_bundle, sign_bundle
from tests.support.parts import ALLOW_ALL, wait_for
from tests.support.rig import Rig
from tests.support.wire import ClosedError, Wire

MakeRig = Callable[..., Rig]
DENY = "version: '3'\nrules: [{id: ok, topic: 'ok/#'}]"


def total(rig: Rig, **wanted: object) -> int:
    """Occurrences of these events as ingest would count them."""
    return sum(event.count for event in rig.plane.events(**wanted))


def test_with_redis_away_known_clients_go_on_and_unknown_ones_are_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    known, other = rig.plane.issue(org), rig.plane.issue(org, "other")
    client = rig.client(known, client_id="one")
    rig.plane.redis.execute_command("WAITAOF", 1, 0, 3000)
    rig.valkey.stop(kill=True)
    assert client.publish("ok/1", qos=1) in {0, 0x10}
    assert client.publish("no/1", qos=1) == 0x87
    rig.client(known, client_id="").disconnect()
    rig.client(known, client_id="one").ping()
    stranger = rig.dial()
    answer = stranger.connect(version=5, username=f"stranger@{org}", password="tkn_x")
    assert answer.code == 0x88
    rig.valkey.start()
    wait_for(lambda: total(rig, org=org, kind="acl_denied") == 1, what="the spooled denial")
    wait_for(lambda: rig.plane.events(org=org, kind="disconnect"), what="the spooled disconnect")
    wait_for(lambda: rig.plane.events(org=org, kind="auth_failed", reason="unavailable"), what="the refusal")
    rig.client(other).disconnect()


def test_an_edge_that_starts_without_redis_enforces_what_it_enforced_before(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    rig.plane.issue(org)
    rig.edge.stop()
    rig.valkey.stop(kill=True)
    rig.edge.start()
    wait_for(lambda: rig.edge.log.read_text().count("enforces 1 organizations") == 1, what="the start from disk")
    bundle = rig.edge.folder / "edge" / rig.edge.node / "bundles" / org
    rig.edge.stop()
    kept = bundle.read_bytes()
    bundle.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    rig.edge.start()
    wait_for(lambda: "refused" in rig.edge.log.read_text().rpartition("drains")[2], what="the refusal")


def test_the_policy_on_disk_is_in_force_when_redis_withholds_it(make_rig: MakeRig) -> None:
    """Signed, so that a disk in foreign hands grants nothing; kept, so that Redis losing it opens and shuts nothing."""
    rig = make_rig()
    org = rig.org(DENY)
    issued = rig.plane.issue(org)
    rig.edge.stop()
    rig.plane.redis.delete(keys.bundle(org))
    rig.edge.start()
    client = rig.client(issued)
    assert client.publish("ok/1", qos=1) in {0, 0x10}
    assert client.publish("no/1", qos=1) == 0x87
    folder = rig.edge.folder / "edge" / rig.edge.node
    kept = folder / "bundles" / org
    assert kept.read_bytes() == rig.plane.bundles[org]
    rig.edge.stop()
    other = rig.plane.new_org()
    rig.plane.bundle(other, ALLOW_ALL)
    kept.write_bytes(rig.plane.bundles[other])  # signed, but another organization's
    rig.edge.start()
    refused = rig.dial().connect(version=5, username=issued.username, password=issued.password)
    assert refused.code == 0x88
    assert rig.plane.event(org=org, kind="auth_failed").reason == "no_policy"


@pytest.mark.parametrize("spoilt", [{"digest": "sha256:" + "0" * 64}, {"policy": '{"version": "3"'}, {"org": ""}])
def test_a_signed_bundle_that_contradicts_itself_is_refused(rig: Rig, spoilt: dict[str, str]) -> None:
    org = rig.org(DENY)
    issued = rig.plane.issue(org)
    bundle = open_bundle(rig.plane.bundle(org, ALLOW_ALL), rig.plane.key.public_key(), org=org)
    rig.plane.store_bundle(org, sign_bundle(replace(bundle, **spoilt), rig.plane.key))
    report = wait_for(lambda: [r for r in rig.plane.reports(org) if r.status == "refused"], what="the refusal")[0]
    assert report.reason
    assert rig.client(issued).publish("no/1", qos=1) == 0x87
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL))


def test_a_report_redis_did_not_take_arrives_once_redis_is_back(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(ALLOW_ALL)
    # Redis takes everything but reports, as if it had died between the bundle and the report on it.
    others = ("bundle", "heads", "cred", "changes", "audit", "node", "sessions", "client", "filters", "shipped")
    rig.plane.redis.execute_command("ACL", "SETUSER", "default", "resetkeys", *(f"~cs1:{name}*" for name in others))
    revision = rig.plane.deploy(org, DENY)
    wait_for(
        lambda: [e for e in rig.plane.events(org=org, kind="policy_applied") if e.details["revision"] == revision],
        what="the new policy in force",
    )
    rig.valkey.stop(kill=True)
    time.sleep(1.5)
    rig.valkey.start()
    rig.plane.enforced(org, revision)


def test_reports_redis_lost_when_it_was_killed_are_said_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(ALLOW_ALL)
    newer = rig.plane.bundle(org, DENY)
    rig.plane.store_bundle(org, newer[:-1] + bytes([newer[-1] ^ 1]))
    wait_for(lambda: [r for r in rig.plane.reports(org) if r.status == "refused"], what="the refusal")
    rig.valkey.stop(kill=True)
    shutil.rmtree(rig.valkey.folder / "appendonlydir")  # as if nothing of the last seconds had reached the disk
    rig.valkey.start()
    wait_for(lambda: {r.status for r in rig.plane.reports(org)} == {"enforcing", "refused"}, what="both reports")
    rig.plane.store_bundle(org, newer)
    rig.plane.enforced(org, 2)
    rig.valkey.stop(kill=True)
    shutil.rmtree(rig.valkey.folder / "appendonlydir")
    rig.valkey.start()
    rig.plane.enforced(org, 2)
    assert [(r.status, r.revision) for r in rig.plane.reports(org)] == [("enforcing", 2)], "the refusal is overtaken"


def test_an_edge_that_starts_without_redis_reports_what_it_enforces_when_redis_comes(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    rig.edge.stop()
    rig.plane.redis.delete(keys.REPORTS)
    rig.plane.redis.execute_command("WAITAOF", 1, 0, 3000)
    rig.valkey.stop(kill=True)
    rig.edge.start()
    wait_for(lambda: rig.edge.log.read_text().count("enforces 1 organizations") == 1, what="the start from disk")
    rig.valkey.start()
    rig.plane.enforced(org, 1)


def test_an_older_bundle_put_back_is_refused_and_reported_also_after_a_restart(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.plane.new_org()
    old = rig.plane.bundle(org, ALLOW_ALL)
    rig.plane.store_bundle(org, old)
    rig.plane.enforced(org, 1)
    rig.plane.enforced(org, rig.plane.deploy(org, DENY))
    issued = rig.plane.issue(org)
    rig.plane.store_bundle(org, old)
    wait_for(lambda: [r for r in rig.plane.reports(org) if r.status == "refused"], what="the report")
    client = rig.client(issued)
    assert client.publish("no/1", qos=1) == 0x87
    rig.edge.stop()
    rig.edge.start()
    client = rig.client(issued)
    assert client.publish("no/1", qos=1) == 0x87


def test_a_bundle_with_a_bad_signature_or_of_another_organization_is_kept_out(make_rig: MakeRig) -> None:
    rig = make_rig()
    org, other = rig.org(DENY), rig.org(ALLOW_ALL)
    issued = rig.plane.issue(org)
    client = rig.client(issued)
    newer = rig.plane.bundle(org, ALLOW_ALL)
    rig.plane.store_bundle(org, newer[:-1] + bytes([newer[-1] ^ 1]))
    wait_for(lambda: [r for r in rig.plane.reports(org) if "signature" in r.reason], what="the refusal")
    swapped = rig.plane.bundle(other, ALLOW_ALL)
    rig.plane.store_bundle(org, swapped)
    wait_for(lambda: [r for r in rig.plane.reports(org) if "stored for" in r.reason], what="the refusal")
    assert client.publish("no/1", qos=1) == 0x87
    wait_for(lambda: len(rig.plane.events(org=org, kind="policy_refused")) == 2, what="two events")


def test_changes_made_while_redis_was_unreachable_are_caught_up(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(ALLOW_ALL)
    issued = rig.plane.issue(org)
    client = rig.client(issued)
    # A trimmed stream: what the edge missed can only be found by reading the records themselves.
    os.kill(rig.edge.pid, signal.SIGSTOP)
    rig.plane.revoke(issued)
    rig.plane.redis.delete(keys.CHANGES)
    rig.plane.redis.execute_command("CLIENT", "KILL", "TYPE", "normal")
    os.kill(rig.edge.pid, signal.SIGCONT)
    assert client.closed(seconds=10)[0][0] == Kind.DISCONNECT


@pytest.mark.parametrize("version", [4, 5])
def test_a_killed_broker_ends_live_sessions_cleanly_and_they_come_back(make_rig: MakeRig, version: int) -> None:
    rig = make_rig()
    org = rig.org(ALLOW_ALL)
    issued = rig.plane.issue(org)
    client = rig.client(issued, version=version, client_id="c")
    rig.broker.stop(kill=True)
    packets = client.closed()
    assert [first for first, _ in packets] == ([Kind.DISCONNECT] if version == 5 else [])
    assert rig.plane.event(org=org, kind="session_closed").reason == "upstream_lost"
    refused = rig.dial().connect(version=version, username=issued.username, password=issued.password)
    assert refused.code == (0x88 if version == 5 else 3)
    rig.broker.start()
    rig.client(issued, version=version, client_id="c").ping()


def test_a_drained_edge_says_so_and_loses_no_event(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    issued = rig.plane.issue(org)
    clients = [rig.client(issued, client_id=f"c{n}", version=5 if n % 2 else 4) for n in range(6)]
    for client in clients:
        client.send(client.message("no/1", qos=1))
        client.expect(Kind.PUBACK)
    assert rig.edge.stop() == 0
    for client in clients:
        packets = client.closed()
        if client.version == 5:
            assert [(first, body[:1]) for first, body in packets] == [(Kind.DISCONNECT, b"\x8b")]
    assert total(rig, org=org, kind="acl_denied") == 6
    assert [e.reason for e in rig.plane.events(org=org, kind="session_closed")] == ["draining"] * 6
    assert not rig.plane.redis.exists(keys.node("edge-1"))
    assert not rig.plane.redis.exists(*(keys.client(org, f"c{n}") for n in range(6))), "free for other usernames"
    rig.edge.start()


def test_what_redis_lost_when_it_was_killed_is_sent_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    client = rig.client(rig.plane.issue(org))
    client.send(client.message("no/1", qos=1))
    client.expect(Kind.PUBACK)
    before = rig.plane.event(org=org, kind="acl_denied")
    rig.valkey.stop(kill=True)
    shutil.rmtree(rig.valkey.folder / "appendonlydir")  # as if nothing of the last seconds had reached the disk
    rig.valkey.start()
    assert rig.plane.event(org=org, kind="acl_denied", seconds=10).id == before.id


def test_a_second_process_of_the_same_name_is_refused(rig: Rig) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "cloudsignal.edge"],
        check=False,
        env=rig.edge.env,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert answer.returncode == 2
    assert "EDGE_NODE" in answer.stderr


class Deniable(threading.Thread):
    """Publishes to a forbidden topic at a steady rate and counts the refusals it was told of."""

    def __init__(self, rig: Rig, issued: object, number: int) -> None:
        super().__init__(daemon=True)
        self.rig, self.issued, self.number = rig, issued, number
        self.stop = False
        self.told: dict[str, int] = {}
        self.sent: dict[str, int] = {}

    def run(self) -> None:
        attempt = 0
        while not self.stop:
            attempt += 1
            topic = f"no/{self.number}/{attempt}"
            try:
                wire = self.rig.client(self.issued, client_id=f"d{self.number}")  # type: ignore[arg-type]
                self._publish(wire, topic)
            except (OSError, ClosedError, TimeoutError, AssertionError):
                time.sleep(0.05)

    def _publish(self, wire: Wire, topic: str) -> None:
        packet_id = 0
        while not self.stop:
            packet_id = packet_id % 60_000 + 1
            self.sent[topic] = self.sent.get(topic, 0) + 1
            wire.send(wire.message(topic, qos=1, packet_id=packet_id))
            body = wire.expect(Kind.PUBACK)
            assert body[2] == 0x87
            self.told[topic] = self.told.get(topic, 0) + 1
            time.sleep(0.02)
        wire.disconnect()


def test_every_denial_a_client_was_told_of_is_recorded_once_though_the_edge_is_killed(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org(DENY)
    issued = rig.plane.issue(org)
    clients = [Deniable(rig, issued, number) for number in range(4)]
    for client in clients:
        client.start()
    for _ in range(3):
        time.sleep(1.2)
        rig.edge.stop(kill=True)
        rig.edge.start()
    rig.valkey.stop(kill=True)
    time.sleep(1.0)
    rig.edge.stop(kill=True)
    rig.valkey.start()
    rig.edge.start()
    time.sleep(1.0)
    for client in clients:
        client.stop = True
    for client in clients:
        client.join(10)
    told = {topic: count for client in clients for topic, count in client.told.items()}
    sent = {topic: count for client in clients for topic, count in client.sent.items()}
    assert sum(told.values()) > 300

    def recorded() -> dict[str, int]:
        counts: dict[str, int] = {}
        for event in rig.plane.events(org=org, kind="acl_denied"):
            counts[event.topic] = counts.get(event.topic, 0) + event.count
        return counts

    wait_for(lambda: all(recorded().get(t, 0) >= n for t, n in told.items()), what="every denial on the stream")
    # Never fewer than the client was told, never more than it sent: the last one before a kill may lack its answer.
    for topic, count in recorded().items():
        assert told.get(topic, 0) <= count <= sent[topic], topic

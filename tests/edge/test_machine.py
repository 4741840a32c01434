"""What the machine does to the edge: disks that refuse, clocks that jump, places that run out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cloudsignal.edge.codec import Kind
from cloudsignal.edge.control.revisions import RevisionWatermarks
from cloudsignal.edge.redis import BACKOFF, Store, UnavailableError
from cloudsignal.edge.transport.admission import PER_ADDRESS
from tests.support.parts import wait_for
from tests.support.rig import Rig
from tests.support.wire import ClosedError, Wire

MakeRig = Callable[..., Rig]


def test_revisions_the_disk_did_not_take_are_kept_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "revisions"
    watermarks = RevisionWatermarks(path)
    watermarks.note("org_a", 7)
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        watermarks.save()
    path.rmdir()
    watermarks.save()
    assert RevisionWatermarks(path).get("org_a") == 7


def test_the_clock_of_the_edge_runs_on_when_the_disk_takes_no_revisions(rig: Rig) -> None:
    """Else nothing would expire any more, and nobody who fell silent be let go."""
    revisions = rig.edge.folder / "edge" / rig.edge.node / "revisions"
    rig.org()
    wait_for(revisions.exists, what="the file of revisions")
    kept = revisions.rename(revisions.with_suffix(".kept"))
    revisions.mkdir()
    try:
        org = rig.org()
        wait_for(lambda: "revisions" in rig.edge.log.read_text(), what="a word about it in the log")
        rig.client(rig.plane.issue(org), keep_alive=1).closed()
    finally:
        revisions.rmdir()  # the edge makes the file anew, perhaps before another could be put there
    wait_for(lambda: revisions.exists() and org in revisions.read_text(), what="what the disk had not taken")
    with revisions.open("a") as file:
        file.write(kept.read_text())
    kept.unlink()


def test_a_redis_that_refuses_the_password_is_not_left_with_open_connections(rig: Rig) -> None:
    async def knock() -> int:
        store = Store(rig.valkey.url.replace("redis://", "redis://:wrong@"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="redis is unavailable"):
                await store.call(("PING",))
            await asyncio.sleep(BACKOFF * 1.5)
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(knock()) <= 0


JUMPY = """
import signal, time
from cloudsignal.edge.__main__ import main
real, ahead = time.time, 0
def jump(number, frame):
    global ahead
    ahead += 3600 if number == signal.SIGUSR1 else -7200
signal.signal(signal.SIGUSR1, jump)
signal.signal(signal.SIGUSR2, jump)
time.time = lambda: real() + ahead
raise SystemExit(main())
"""
"""An edge whose wall clock is put forward by one hour, or back by two."""


def test_a_clock_that_is_put_forward_or_back_ends_what_has_expired_and_nothing_else(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    rig.edge.stop()
    rig.edge.launch([sys.executable, "-c", JUMPY], rig.edge.env)
    wait_for(rig.edge.listens, what="the edge")
    steady = rig.client(rig.plane.issue(org, "steady", ttl=0), client_id="steady", keep_alive=60)
    brief = rig.client(rig.plane.issue(org, "brief", ttl=600), client_id="brief", keep_alive=0)
    os.kill(rig.edge.pid, signal.SIGUSR1)
    brief.closed(seconds=15)
    assert rig.plane.event(org=org, kind="session_closed").reason == "expired"
    steady.ping()
    os.kill(rig.edge.pid, signal.SIGUSR2)
    silent = rig.client(rig.plane.issue(org, "silent"), client_id="silent", keep_alive=1)
    assert rig.plane.event(org=org, kind="connect", client_id="silent").ts / 1e6 < time.time() - 1_800
    silent.closed(seconds=15)
    end = rig.plane.event(org=org, kind="disconnect")
    assert (end.client_id, end.reason) == ("silent", "keep_alive")
    assert 0 < float(end.details["seconds"]) < 60
    steady.ping()


def test_handshakes_that_do_not_come_about_leave_room_for_those_that_do(make_rig: MakeRig) -> None:
    """Behind one address too: whoever waits there gets the place of one that had its time."""
    rig = make_rig()
    issued = rig.plane.issue(rig.org())
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", rig.edge.port), timeout=10))
            for _ in range(3 * PER_ADDRESS)
        ]
        for sock in silent:
            sock.sendall(b"\x16")
        raw = stack.enter_context(socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20))
        wire = Wire(rig.authority.client_context().wrap_socket(raw, server_hostname="localhost"))
        assert wire.connect(version=5, username=issued.username, password=issued.password).code == 0
    wait_for(lambda: rig.plane.events(kind="tls_failed", reason="timeout"), what="what was given up in the audit")


def test_a_port_for_metrics_that_is_taken_is_named(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        env = {**rig.edge.env, "EDGE_NODE": "other", "EDGE_METRICS": address, "EDGE_MQTTS": "off", "EDGE_WSS": "off"}
        env["EDGE_PLAINTEXT"] = "127.0.0.1:0"
        answer = subprocess.run(
            [sys.executable, "-m", "cloudsignal.edge"], check=False, env=env, capture_output=True, text=True, timeout=20
        )
    assert answer.returncode == 4
    assert f"edge: cannot listen on {address}" in answer.stderr


def push(wire: Wire, data: bytes) -> int:
    """Send until nothing is taken for a while; returns how many bytes were."""
    sent = 0
    with suppress(OSError):
        while sent < len(data):
            sent += wire.sock.send(data[sent : sent + 60_000])
    return sent


def test_a_client_that_is_not_read_from_because_the_broker_stands_still_is_not_silent(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    client = rig.client(rig.plane.issue(org), keep_alive=1, version=4)
    broker = rig.broker.pid
    os.kill(broker, signal.SIGSTOP)
    flood = client.message("a", b"x" * 60_000) * 500
    client.sock.settimeout(1)
    sent = push(client, flood)
    assert sent < len(flood)
    time.sleep(2)  # with the second before: twice its keep-alive
    os.kill(broker, signal.SIGCONT)
    client.sock.settimeout(20)
    client.sock.sendall(flood[sent:])
    client.ping()
    assert not rig.plane.events(org=org, kind="disconnect")


def test_while_the_edge_finds_out_why_the_broker_is_gone_nothing_piles_up(make_rig: MakeRig) -> None:
    rig = make_rig()
    client = rig.client(rig.plane.issue(rig.org()), version=4)
    os.kill(rig.valkey.pid, signal.SIGSTOP)  # whom it asks takes two seconds not to answer
    rig.broker.stop(kill=True)
    client.sock.settimeout(0.5)
    taken = push(client, client.message("a", b"x" * 60_000) * 1_000)
    os.kill(rig.valkey.pid, signal.SIGCONT)
    assert taken < 24 * 1024 * 1024
    assert client.closed() == []


def test_a_disk_that_takes_no_events_cuts_off_who_causes_them_and_nobody_else(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org("version: '3'\nrules: [{id: ok, topic: ok}]")
    issued = rig.plane.issue(org)
    rig.edge.stop()
    command = ["sh", "-c", f"ulimit -f 80; exec {sys.executable} -m cloudsignal.edge"]  # no file beyond some 40 KB
    rig.edge.launch(command, rig.edge.env)
    wait_for(rig.edge.listens, what="the edge")
    quiet, noisy = rig.client(issued, client_id="quiet"), rig.client(issued, client_id="noisy")
    assert quiet.subscribe("ok", qos=1) == [1]
    told = 0
    with suppress(ClosedError, OSError):
        for told in range(1_000):
            noisy.send(noisy.message(f"no/{told}", qos=1))
            noisy.expect(Kind.PUBACK)
    assert 20 < told < 500, "cut off when its refusals could not be written any more"
    for _ in range(3):
        assert quiet.publish("ok", b"goes on", qos=1) == 0
        assert quiet.delivery().payload == b"goes on"
    with pytest.raises((ClosedError, OSError)):
        rig.client(issued, client_id="new")
    quiet.ping()
    wait_for(lambda: len(rig.plane.events(org=org, kind="acl_denied")) >= told, what="every refusal that was told")

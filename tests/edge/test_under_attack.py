"""Attacks of one tenant or stranger: bounded in memory, on disk and in what they take from others."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from cloudsignal.edge.transport import address_limits
from tests.benchmarks.edge import resident
from tests.support import attacks_connections as attacks
from tests.support.attacks_connections import Target
from tests.support.parts import Issued, wait_for
from tests.support.rig import Rig

MakeRig = Callable[..., Rig]

NOTHING = "version: '3'\nrules: []"
MB = 1024 * 1024


def target(rig: Rig, issued: Issued | None = None) -> Target:
    """The rig's edge as attackers see it."""
    context = rig.authority.client_context()
    if issued is None:
        return Target(rig.edge.port, rig.edge.wss_port, context)
    return Target(rig.edge.port, rig.edge.wss_port, context, issued.username, issued.password)


def signs_in(rig: Rig, issued: Issued) -> bool:
    """Whether a client gets in."""
    wire = rig.dial()
    return wire.connect(version=5, client_id="again", username=issued.username, password=issued.password).code == 0


def journal_bytes(rig: Rig) -> int:
    """Bytes of the edge's journal on disk."""
    folder = rig.edge.folder / "edge" / rig.edge.node / "journal"
    return sum(path.stat().st_size for path in folder.iterdir())


def test_fresh_denied_topics_fill_no_disk_and_keep_nobody_out(make_rig: MakeRig) -> None:
    """Also while nothing can be shipped; and every one of them is counted."""
    rig = make_rig(EDGE_JOURNAL_MB="4")
    org, other = rig.org(NOTHING), rig.org()
    loud, quiet = rig.plane.issue(org), rig.plane.issue(other)
    rig.client(quiet, client_id="first").disconnect()
    rig.client(loud, client_id="known").disconnect()
    rig.plane.event(org=other, kind="disconnect")
    rig.valkey.stop(kill=True)
    largest = 0
    with attacks.denied_topics(target(rig, loud), most=6_000) as attack:
        end = time.monotonic() + 20
        while attack.count < 6_000 and time.monotonic() < end:
            rig.client(quiet).disconnect()
            largest = max(largest, journal_bytes(rig))
            time.sleep(0.05)
    assert largest < 3 * MB, "a flood of one organization takes more than its share"
    answer = rig.dial().connect(version=5, client_id="more", username=loud.username, password=loud.password)
    assert answer.code == 0x97, "an organization that has its share of the journal gets no new sessions"
    rig.client(quiet).ping()
    rig.valkey.start()

    def denied() -> int:
        return sum(event.count for event in rig.plane.events(org=org, kind="acl_denied"))

    wait_for(lambda: denied() == attack.count, what=f"{attack.count} denials, counted to the last one")
    events = rig.plane.events(org=org, kind="acl_denied")
    assert max(len(event.topic) for event in events) <= 2_000
    assert {event.details.get("topic_bytes") for event in events} == {60_000, None}
    assert rig.plane.event(org=org, kind="auth_failed").details == {"limit": "audit_journal"}
    wait_for(lambda: signs_in(rig, loud), what="room in the journal")


def test_bad_sign_ins_shut_out_one_organization_at_one_address_and_nobody_else(make_rig: MakeRig) -> None:
    """Many share one address (NAT): clients of another organization behind it sign in as if nothing were."""
    rig = make_rig(EDGE_LOGIN_FAILURES="5")
    org, other = rig.org(), rig.org()
    theirs, ours = rig.plane.issue(org), rig.plane.issue(other)
    attacked = target(rig)
    live = [rig.client(issued, client_id="live") for issued in (theirs, ours)]
    behind = target(rig, ours)
    came_in = 0
    with attacks.bad_sign_ins(attacked, [f"u{n}@{org}" for n in range(9)], most=200) as attack:
        while attack.count < 200:
            behind.client("healthy").disconnect()
            came_in += 1
    assert came_in > 2
    assert attack.codes.keys() == {0x86, 0x9F}, "every one is answered"
    assert attack.codes[0x86] >= 20
    behind.client("healthy").ping()
    answer = attacked.dial().connect(version=5, username=theirs.username, password=theirs.password)
    assert answer.code == 0x9F, "who is told from the attacker by nothing"
    rig.client(theirs, client_id="elsewhere").ping()
    for wire in live:
        wire.ping()
    refused = rig.plane.events(org=org, kind="auth_failed", reason="rate_limited")
    assert {event.ip for event in refused} == {"127.0.0.2"}
    assert [event.repeats for event in refused].count("") == 1, "one fold"
    assert not rig.plane.events(org=other, kind="auth_failed")
    wait_for(
        lambda: sum(event.count for event in rig.plane.events(org=org, kind="auth_failed")) == 201,
        what="every refusal, counted",
    )


def test_what_cannot_be_told_apart_counts_against_the_address_and_tells_strangers_nothing(make_rig: MakeRig) -> None:
    """Neither does a name that no organization has get another answer than one that an organization lacks."""
    rig = make_rig(EDGE_LOGIN_FAILURES="5")
    org = rig.org()
    issued = rig.plane.issue(org)
    strange = target(rig)
    with attacks.no_mqtt(strange, most=25) as attack:
        wait_for(lambda: attack.count == 25, what="25 connections that sent no MQTT")

    def answer(username: str) -> tuple[int, bool]:
        started = time.monotonic()
        code = strange.dial().connect(version=5, username=username, password="x").code
        return code, time.monotonic() - started > 1.5

    unknown = [answer(name) for name in ("x", f"x@{rig.plane.new_org()}", f"x@{org}")]
    assert unknown == [(0x86, True)] * 3, "protocol refusals of the address slow its sign-ins down"
    target(rig, issued).client("healthy").ping()


def round_trips(neighbour: Target, seconds: float) -> list[float]:
    """How long each of a row of connections takes, from TCP to the answer to a ping."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        wire = neighbour.client("neighbour")
        wire.ping()
        took.append(time.monotonic() - started)
        wire.disconnect()
        time.sleep(0.02)
    return took


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["silent", "half a hello"])
def test_connections_without_end_that_say_nothing_keep_nobody_out(make_rig: MakeRig, first: bytes) -> None:
    """From one address, 1,500 a second; those of another address come in one after the other."""
    rig = make_rig()
    issued = rig.plane.issue(rig.org())
    neighbour = target(rig, issued).of("127.0.1.3")
    alone = round_trips(neighbour, 1)
    before = resident(rig.edge.pid)
    with attacks.silent_connections(target(rig), first=first) as attack:
        took = round_trips(neighbour, 5)
    assert attack.count > 3_000
    grown = resident(rig.edge.pid) - before
    print(f"connections {attack.count} rounds {len(took)} slowest {max(took):.3f} memory {grown}")
    assert len(took) * 20 > len(alone) * 5, "the neighbour waits behind the attacker"
    assert grown < 64 * MB


def test_sessions_with_many_long_topics_hold_little_memory(rig: Rig) -> None:
    """Ten of them held 1,065 MiB: 512 topics of 64 KiB, remembered in each direction."""
    attacked = target(rig, rig.plane.issue(rig.org()))
    warm = attacks.remembered_topics(attacked, "warm", topics=40)
    before = resident(rig.edge.pid)
    held = [attacks.remembered_topics(attacked, f"m{number}", topics=256) for number in range(2)]
    grown = resident(rig.edge.pid) - before
    print(f"grown by {grown / len(held) / MB:.1f} MiB a session")
    assert grown < len(held) * 4 * MB
    for wire in (warm, *held):
        wire.ping()


@pytest.mark.soak
def test_ten_idle_sessions_with_512_topics_of_64_kib_hold_little_memory(make_rig: MakeRig) -> None:
    rig = make_rig()
    attacked = target(rig, rig.plane.issue(rig.org()))
    before = resident(rig.edge.pid)
    held = [attacks.remembered_topics(attacked, f"m{number}") for number in range(10)]
    grown = resident(rig.edge.pid) - before
    print(f"grown by {grown / MB:.1f} MiB, {grown / len(held) / MB:.1f} MiB a session")
    assert grown < len(held) * 4 * MB


def test_a_frame_ends_at_the_packet_limit(rig: Rig) -> None:
    org = rig.org()
    wire = attacks.huge_frame(target(rig, rig.plane.issue(org)), "frame")
    wire.close()
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.reason, event.details["text"]) == ("protocol", "a WebSocket frame is larger than a packet may be")
    assert int(event.details["bytes_in"]) < 300_000


def test_a_websocket_handshake_ends_at_its_limit(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.edge.wss_port), timeout=20) as raw:
        sock = rig.authority.client_context().wrap_socket(raw, server_hostname="localhost")
        port, answer = sock.getsockname()[1], b""
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /mqtt HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 1_000) * 20)
            while data := sock.recv(1_000):
                answer += data
    assert answer.startswith(b"HTTP/1.1 431 ")
    event = rig.plane.event(kind="auth_failed", port=port)
    assert (event.reason, event.details["text"]) == ("protocol", "the WebSocket handshake is too long")


def test_failures_are_told_apart_by_organization_and_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(address_limits.time, "monotonic", lambda: now[0])
    counted = address_limits.Limits(connections=1, failures=2)
    for _ in range(8):
        assert not counted.refused("1.2.3.4", "a")
        counted.failed("1.2.3.4", "a")
    assert counted.refused("1.2.3.4", "a")
    assert counted.slowed("1.2.3.4")
    assert not counted.refused("1.2.3.4", "b")
    assert not counted.refused("1.2.3.4", "")
    assert not counted.refused("1.2.3.5", "a")
    now[0] = 60.0
    assert not counted.refused("1.2.3.4", "a")
    assert not counted.slowed("1.2.3.4")

"""What clients do not read: bounded at the edge and at the broker, and nothing of QoS 1 and 2 is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudsignal.edge import codec
from cloudsignal.edge.codec import Properties, Property
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.mountpoint import IN_FLIGHT
from tests.benchmarks.edge import UNLIMITED, resident
from tests.support.parts import Edge, Issued, Narrow, metrics, wait_for
from tests.support.rig import Rig
from tests.support.session_bench import BOTH, ORG, Bench
from tests.support.wire import Wire

MIB = 1024 * 1024


def flood(rig: Rig, issued: Issued, *, messages: int, size: int) -> None:
    """Publish at QoS 0, and wait until the broker has taken everything."""
    writer = rig.client(issued, client_id="writer")
    for number in range(messages):
        writer.send(writer.message("big", b"%06d" % number + bytes(size - 6)))
        if number % 5 == 4:
            writer.ping()
    writer.ping()
    writer.disconnect()


def grown(rig: Rig, *, readers: int, messages: int, size: int) -> tuple[str, list[Wire], int, int]:
    """Bytes by which edge and broker grow while so many clients do not read so many messages."""
    org = rig.org(quotas=UNLIMITED)
    issued = rig.plane.issue(org)
    clients = [rig.client(issued, client_id=f"r{number}", version=4 + number % 2) for number in range(readers)]
    for client in clients:
        client.subscribe("big")
        client.subscribe("sure", qos=1)
    before = [resident(pid) for pid in (rig.edge.pid, rig.broker.pid)]
    flood(rig, issued, messages=messages, size=size)
    after = [resident(pid) for pid in (rig.edge.pid, rig.broker.pid)]
    edge, broker = (late - early for early, late in zip(before, after, strict=True))
    return org, clients, edge, broker


def test_clients_that_do_not_read_cannot_fill_the_broker_and_are_told_apart_to_the_message(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    org, clients, edge, broker = grown(rig, readers=3, messages=200, size=100_000)
    assert broker < 16 * MIB
    assert edge < 16 * MIB
    writer = rig.client(rig.plane.issue(org), client_id="sure")
    for number in range(5):
        writer.publish("sure", b"%d" % number + bytes(100_000), qos=1)
    got = []
    for client in clients:
        client.ping()
        assert [m.payload[0] for m in client.deliveries if m.qos] == list(b"01234"), "nothing of QoS 1 is dropped"
        got.append([int(m.payload[:6]) for m in client.deliveries if not m.qos])
        assert got[-1] == sorted(set(got[-1])), "whole messages in their order"
        assert 0 < len(got[-1]) < 200
        client.deliveries.clear()
    dropped = 600 - sum(map(len, got))
    wait_for(
        lambda: (
            sum(e.count for e in rig.plane.events(org=org, kind="limit_reached", reason="unread_messages")) == dropped
        ),
        what=f"{dropped} messages counted",
    )
    assert metrics(rig.edge)['cloudsignal_edge_messages_total{direction="out",verdict="unread"}'] == dropped
    # Whoever has caught up gets everything again.
    flood(rig, rig.plane.issue(org), messages=5, size=1_000)
    for client in clients:
        assert [int(client.delivery().payload[:6]) for _ in range(5)] == list(range(5))


@BOTH
def test_an_organization_has_so_much_unread_and_what_was_on_its_way_comes_again(
    make_rig: Callable[..., Rig], version: int
) -> None:
    """Who fills it is ended, not made to forget: the session is kept, and sends again what was on its way.

    What is published once it has ended is the broker's to keep, as far as its queue goes (1 MiB, with what was on its
    way): the later the machine gets to the last messages, the fewer of them.
    """
    rig = make_rig(edge=Narrow)
    org = rig.org(quotas=UNLIMITED)
    issued = rig.plane.issue(org)
    kept = {"client_id": "kept", "clean": False, "version": version}
    if version == 5:
        kept["properties"] = [(17, 3_600)]
    reader = rig.client(issued, **kept)
    reader.subscribe("sure", qos=1)
    writer = rig.client(issued, client_id="writer")
    for number in range(IN_FLIGHT):
        writer.publish("sure", b"%02d" % number + bytes(250_000), qos=1)
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.client_id, event.reason) == ("kept", "quota")
    assert rig.plane.event(org=org, kind="limit_reached").reason == "unread_bytes"
    reader.close()
    # It comes back to an edge with the usual room: on this one it would be ended again, unless it read five MB as fast
    # as the broker sends them.
    rig.edge.stop()
    rig.edge.module = Edge.module
    rig.edge.start()
    again = rig.client(issued, **kept)
    on_their_way = int(event.details["messages_out"])
    assert on_their_way > 0
    got = [again.delivery().payload[:2] for _ in range(on_their_way)]
    again.ping()  # the broker has the acknowledgements, and room for more
    rig.client(issued, client_id="writer").publish("sure", b"end", qos=1)
    while (payload := again.delivery().payload) != b"end":
        got.append(payload[:2])
    assert got == [b"%02d" % number for number in range(len(got))]


@pytest.mark.soak
def test_five_clients_that_do_not_read_300_megabytes_each(make_rig: Callable[..., Rig]) -> None:
    """As it was found: Mosquitto grew from 7 to 963 MiB."""
    rig = make_rig()
    org, _, edge, broker = grown(rig, readers=5, messages=1_500, size=200_000)
    once = resident(rig.broker.pid)
    flood(rig, rig.plane.issue(org), messages=1_500, size=200_000)
    again = resident(rig.broker.pid) - once
    print(f"edge +{edge / MIB:.1f} MiB, broker +{broker / MIB:.1f} MiB, with as many again +{again / MIB:.1f} MiB")
    assert broker < 128 * MIB, "what is on its way, not what nobody reads"
    assert again < 16 * MIB
    assert edge < 24 * MIB


@BOTH
def test_a_client_far_behind_loses_qos_0_alone_with_an_exact_count(version: int) -> None:
    bench = Bench(version)
    topic = f"{ORG}/t/a".encode()
    down, _ = bench.deliver(topic)
    assert down  # from here on there is a ready-made header for it
    before = TALLY.refused["out", "unread"]
    bench.session.shedding = True
    for number in range(1, 4):
        assert bench.deliver(topic) == (b"", b"")
        assert bench.deliver(f"{ORG}/t/{number}".encode(), retain=True) == (b"", b"")
        for qos in (1, 2):
            assert bench.deliver(topic, qos=qos, packet_id=number)[0]
    [told] = [event for event in bench.sink.events if event.kind == "limit_reached"]
    assert (told.reason, told.count) == ("unread_messages", 6)
    assert TALLY.refused["out", "unread"] - before == 6
    assert bench.session.messages_out == 7
    bench.session.shedding = False
    assert bench.deliver(topic) == (down, b"")


def test_a_client_does_not_choose_how_much_the_broker_has_in_flight_for_it() -> None:
    """With Receive Maximum 65,535 it could leave as many messages unacknowledged, 16 GiB of them."""

    def upstream(asked: int) -> int:
        bench = Bench(5, connect={"properties": Properties([(Property.RECEIVE_MAXIMUM, asked)])})
        packet = bench.sent_upstream
        return codec.decode_connect(0x10, packet[2:]).properties.number(Property.RECEIVE_MAXIMUM, 0)

    assert upstream(3) == 3
    assert upstream(65_535) == IN_FLIGHT

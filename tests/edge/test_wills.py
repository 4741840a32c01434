"""Wills of clients whose broker node was killed or is frozen: the edge publishes them through another node, once."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cloudsignal.config import Upstream
from cloudsignal.edge.broker import probe, probes
from cloudsignal.edge.broker import wills as module
from cloudsignal.edge.broker.housekeeping import Housekeeping
from cloudsignal.edge.broker.pool import BrokerPool
from cloudsignal.edge.broker.wills import DECIDE, PATIENCE, Loss, Waiting, Wills, was_lost
from cloudsignal.edge.codec import Kind, Properties, Property, Will
from cloudsignal.edge.redis import Store
from cloudsignal.edge.session.register import Register
from cloudsignal.edge.session.retention import WILL_BYTES
from cloudsignal.wire.credential import ClaimValue, seal_credential
from tests.support.broker_nodes import TlsNode, upstream_url
from tests.support.parts import PEPPER, Authority, Edge, Issued, Plane, Valkey, metrics, wait_for
from tests.support.rig import Rig
from tests.support.session_bench import ORG, Bench
from tests.support.wire import Wire

POLICY = "version: '3'\nrules: [{id: all, topic: '#'}]"
NO_WILLS = """version: '3'
rules:
  - {id: no, effect: deny, topic: 'w/forbidden'}
  - {id: site, effect: deny, topic: 'w/{claims.site}'}
  - {id: all, topic: '#'}
"""


@dataclass
class Nodes:
    """An edge before two broker nodes that know nothing of each other."""

    rig: Rig
    nodes: list[TlsNode]

    def client(self, issued: Issued, node: TlsNode, name: str, **options: object) -> Wire:
        """A signed-in client whose session is on this node: nodes take turns, one that was lost again after a while."""
        other = next(one for one in self.nodes if one is not node)

        def there() -> Wire | None:
            before = sessions(other)
            wire = self.rig.client(issued, client_id=name, **options)
            if sessions(other) == before:
                return wire
            wire.disconnect()
            time.sleep(0.1)
            return None

        found = wait_for(there, seconds=60, what="a session on the node")
        assert isinstance(found, Wire)
        return found


def sessions(node: TlsNode) -> int:
    """The number of sign-ins of clients to a node, by its log."""
    return node.output().count("New client connected")


@pytest.fixture(scope="module")
def two(workdir: Path) -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(dir=workdir))
    authority = Authority(folder / "tls")
    nodes = [TlsNode(folder / name, authority) for name in ("one", "two")]
    for node in nodes:
        node.config.write_text(node.config.read_text() + "log_type notice\n")
        node.start()
    valkey = Valkey(folder)
    valkey.start()
    plane = Plane(valkey.redis, folder)
    edge = Edge(
        folder,
        redis_url=valkey.url,
        upstream=upstream_url(authority, folder, nodes) + "&keepalive=3",
        verify_key=plane.verify_key,
        authority=authority,
    )
    edge.start()
    yield Nodes(Rig(nodes[0], valkey, plane, authority, edge), nodes)  # type: ignore[arg-type]
    edge.stop(kill=True)
    valkey.stop(kill=True)
    for node in nodes:
        if node.process is not None:
            node.thaw()
        node.stop(kill=True)


def received(wire: Wire, *, seconds: float = 20.0, count: int) -> list[tuple[str, bytes]]:
    """The next messages, by topic and payload."""
    return [(m.topic.decode(), m.payload) for m in (wire.delivery(seconds=seconds) for _ in range(count))]


def test_a_killed_nodes_wills_are_published_once_through_another_unless_the_client_is_back(two: Nodes) -> None:
    rig, (good, bad) = two.rig, two.nodes
    org = rig.org(POLICY)
    issued = rig.plane.issue(org, claims={"site": "nowhere"})
    watcher = two.client(issued, good, "watcher")
    assert watcher.subscribe("w/#", qos=2) == [2]
    delay = [(Property.WILL_DELAY, 8), (Property.CONTENT_TYPE, b"text/plain")]
    later = Will(b"w/later", b"late", qos=2, properties=Properties(delay))
    expiry = [(Property.SESSION_EXPIRY, 60)]
    gone = two.client(issued, bad, "gone", will=Will(b"w/gone", b"gone", qos=1, retain=True), version=4)
    late = two.client(issued, bad, "late", will=later, properties=expiry, version=5)
    back = two.client(issued, bad, "back", will=Will(b"w/back", b"no"), version=4)
    left = two.client(issued, bad, "left", will=Will(b"w/left", b"no"), version=4)
    large = two.client(issued, bad, "large", will=Will(b"w/large", b"x" * (WILL_BYTES + 1)), version=4)
    forbidden = two.client(issued, bad, "forbidden", will=Will(b"w/forbidden", b"no"), version=4)
    stays = two.client(issued, good, "stays", will=Will(b"w/stays", b"no"), version=4)
    out, mover = rig.plane.issue(org, "out"), rig.plane.issue(org, "mover", claims={"site": "here"})
    revoked = two.client(out, bad, "revoked", will=Will(b"w/revoked", b"no"), version=4)
    moved = two.client(mover, bad, "moved", will=Will(b"w/there", b"no"), version=4)
    left.send(bytes([Kind.DISCONNECT, 0]))
    left.closed()
    bad.stop(kill=True)
    for wire in (gone, late, back, large, forbidden, revoked, moved):
        wire.closed()
    # Nobody tells the edge: as after changes that it has missed, and for names that it remembers no more.
    for name, changed in ("out", {"secrets": ()}), ("mover", {"claims": {"site": "there"}}):
        record = replace(rig.plane.records[org, name], revision=9, **changed)
        rig.plane.store_credential(org, name, seal_credential(record, PEPPER), 9)
    again = rig.client(issued, client_id="back", will=Will(b"w/back", b"no"), version=4)
    rig.plane.enforced(org, rig.plane.deploy(org, NO_WILLS))
    rig.plane.event(org=org, kind="session_closed", client_id="forbidden")
    assert received(watcher, count=2) == [("w/gone", b"gone"), ("w/later", b"late")]
    watcher.nothing(seconds=0.5)
    again.ping()
    stays.ping()
    told = rig.plane.event(org=org, kind="will_published", client_id="late")
    assert (told.topic, told.qos, told.retain) == ("w/later", 2, False)
    assert told.details["broker"] == bad.label
    closed = rig.plane.event(org=org, kind="session_closed", client_id="late")
    assert told.ts - closed.ts >= 8_000_000, "Will Delay Interval"
    assert len(rig.plane.events(org=org, kind="will_published")) == 2
    lost = rig.plane.event(org=org, kind="will_lost")
    assert (lost.client_id, lost.reason, lost.topic) == ("large", "too_large", "w/large")
    assert {event.topic for event in rig.plane.events(org=org, kind="acl_denied")} == {"w/forbidden", "w/there"}
    asks = rig.client(issued, client_id="asks")
    asks.subscribe("w/gone")
    assert (asks.delivery().payload, metrics(rig.edge)) != (b"", {})
    bad.start()
    for wire in (watcher, again, stays, asks):
        wire.disconnect()


def test_who_is_lost_while_a_node_is_frozen_leaves_a_will_and_on_a_healthy_node_only_one(two: Nodes) -> None:
    rig, (good, bad) = two.rig, two.nodes
    org = rig.org(POLICY)
    issued = rig.plane.issue(org)
    watcher = two.client(issued, good, "watcher")
    watcher.subscribe("w/#", qos=1)
    lost = two.client(issued, bad, "lost", will=Will(b"w/lost", b"1", qos=1), version=4)
    healthy = two.client(issued, good, "healthy", will=Will(b"w/healthy", b"2", qos=1), version=4)
    silent = two.client(issued, bad, "silent", will=Will(b"w/silent", b"3", qos=1), version=4)
    bad.freeze()
    try:
        lost.close()
        healthy.close()
        others = [rig.client(issued, client_id=f"other-{number}") for number in range(3)]
        silent.closed()  # the edge ends it, as its node answers no ping; it does not come back
        assert sorted(received(watcher, count=3)) == [("w/healthy", b"2"), ("w/lost", b"1"), ("w/silent", b"3")]
        watcher.nothing(seconds=1.0)
    finally:
        bad.thaw()
    published = {event.client_id for event in rig.plane.events(org=org, kind="will_published")}
    assert published == {"lost", "silent"}
    for wire in (watcher, *others):
        wire.disconnect()


CUT = {
    "it never failed": (None, True, False),
    "it was unreachable when it closed the connection": ((99.9, 100.2), True, True),
    "it was back a moment later": ((100.0, 100.0), True, True),
    "it had been back for a while": ((50.0, 60.0), True, False),
    "it failed much later": ((107.0, 107.0), True, False),
    "it has been unreachable ever since the client was lost": ((98.0, 106.0), False, True),
    "it was unreachable for a moment": ((100.0, 101.0), False, False),
}


@pytest.mark.parametrize("case", CUT)
def test_a_node_was_lost_with_a_session_or_publishes_the_will_itself(case: str) -> None:
    loss, cut, lost = CUT[case]
    one = Waiting(Bench().session, Will(b"w", b""), "b", ended_at=100.0, cut=cut, due=105.0, until=405.0)
    assert was_lost(one, Loss(*loss) if loss is not None else None, 100.0 + DECIDE) is lost


async def no_claims(_: object) -> dict[str, dict[str, ClaimValue]]:
    return {}


NOWHERE = "/nowhere/broker.sock"


def made_wills(bench: Bench) -> Wills:
    """Wills whose broker node and Redis are nowhere; ``bench`` hears what is recorded."""
    pool, store = BrokerPool(Upstream(path=NOWHERE)), Store("redis://127.0.0.1:1/0")
    return Wills(Housekeeping(pool, store), store, bench.sink, Register(), no_claims)


def ended(wills: Wills, *, org: str = ORG, delay: int = 0, lost: bool = True) -> Bench:
    """A session with a will that has ended, as its node of the broker was lost or its client has gone."""
    will = Will(b"w", b"x", qos=1, properties=Properties([(Property.WILL_DELAY, delay)]))
    bench = Bench(connect={"will": will, "properties": Properties([(Property.SESSION_EXPIRY, delay)])})
    bench.org.id, bench.session.broker_node = org, NOWHERE
    if lost:
        bench.session.broker_lost()
    else:
        bench.session.client_lost()
    wills.ended(bench.session)
    return bench


def test_one_organization_cannot_take_the_places_of_the_wills_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORG_WAITING_MAX", 2)
    bench, other = Bench(), "org_bbbbbbbbbbbb"

    async def crowd() -> None:
        wills = made_wills(bench)
        for _ in range(4):
            ended(wills, org=other)
        ended(wills)
        assert [one.session.org.id for one in wills._waiting] == [other, other, ORG]
        await wills.look()
        ended(wills, org=other)
        ended(wills, org=other, lost=False)  # its node is well
        wills._note(NOWHERE, time.time(), time.time())
        ended(wills, org=other, lost=False)  # its node is frozen
        assert len(wills._waiting) == 3

    asyncio.run(crowd())
    assert [(event.org, event.kind, event.reason) for event in bench.sink.events if event.kind == "will_lost"] == [
        (other, "will_lost", "too_many")
    ] * 4


def test_a_will_with_a_delay_of_hours_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ahead, bench = time.time, [0.0], Bench()
    monkeypatch.setattr(module.time, "time", lambda: now() + ahead[0])

    async def wait() -> None:
        wills = made_wills(bench)
        short, _ = ended(wills, delay=3_000), ended(wills, delay=2**32 - 1)
        wills._note(NOWHERE, module.time.time(), module.time.time())
        ahead[0] = DECIDE
        await wills.look()
        assert [one.session for one in wills._waiting] == [short.session]

    asyncio.run(wait())
    assert [event.reason for event in bench.sink.events if event.kind == "will_lost"] == ["too_long"]


def test_the_time_to_decide_is_enough_for_probes_to_lose_a_node_that_hangs() -> None:
    pauses = 1.05 * (probes.EVERY + probes.AGAIN)
    assert pauses + probes.FAILURES * probe.WITHIN < DECIDE


@pytest.mark.parametrize("hangs", [1, 2])
def test_a_node_that_took_no_connection_in_time_is_asked_once_more(hangs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_WITHIN", 0.02)
    asked: list[float] = []

    async def connect(*_: object) -> tuple[asyncio.BaseTransport, None]:
        asked.append(time.monotonic())
        if len(asked) <= hangs:
            await asyncio.sleep(60)
        return asyncio.Transport(), None

    async def knock() -> dict[str, Loss]:
        wills = made_wills(Bench())
        monkeypatch.setattr(wills._pool, "connect", connect)
        monkeypatch.setattr(asyncio.Transport, "abort", lambda _: None)
        await wills._knock(NOWHERE)
        return wills._losses

    assert bool(asyncio.run(knock())) is (hangs == 2)
    assert len(asked) == 2


def test_a_client_that_has_been_back_here_has_no_will_of_an_earlier_session() -> None:
    async def come_and_go() -> None:
        wills = made_wills(Bench())
        ended(wills, delay=600)
        ended(wills, org="org_bbbbbbbbbbbb", delay=600)
        last = Bench().session
        wills.signed_in(last)
        last.broker_lost()
        last.broker_node, last.connect.will, last.will_sent = NOWHERE, Will(b"w", b"x"), True
        wills.ended(last)
        await wills.look()
        assert [one.session.org.id for one in wills._waiting] == ["org_bbbbbbbbbbbb", ORG]
        assert wills._waiting[1].session is last

    asyncio.run(come_and_go())


def test_a_will_that_cannot_be_published_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = [0.0]
    now = time.time
    monkeypatch.setattr(module.time, "time", lambda: now() + ahead[0])

    async def unreachable() -> None:
        bench = Bench(connect={"will": Will(b"w", b"x", qos=1)})
        session = bench.session
        session.broker_node = NOWHERE
        wills = made_wills(bench)
        session.broker_lost()
        wills.ended(session)
        monkeypatch.setattr(module, "WAITING_MAX", 1)
        wills.ended(session)
        assert [event.reason for event in bench.sink.events if event.kind == "will_lost"] == ["too_many"]
        while not wills._losses:
            await asyncio.sleep(0.01)
        ahead[0] = DECIDE
        await wills.look()
        assert len(wills._waiting) == 1, "Redis may be back"
        ahead[0] = DECIDE + PATIENCE + 1
        await wills.look()
        assert bench.sink.events[-1].reason == "unavailable"
        assert wills._waiting == []
        monkeypatch.setattr(module, "WAITING_MAX", 9)
        wills.ended(session)
        wills._note(session.broker_node, time.time(), time.time())
        wills.stop()
        assert bench.sink.events[-1].reason == "stopped"

    asyncio.run(unreachable())

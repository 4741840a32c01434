"""Orders of the control plane about what lies in the broker: carried out once, believed only when signed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Quotas
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.order import Order, open_order, sign_order
from tests.support.broker_state import counted, keep, retain, retained_at_broker, second_edge, stored
from tests.support.parts import Edge, Issued, wait_for
from tests.support.rig import Rig
from tests.support.wire import dial_tls

BOTH = pytest.mark.parametrize("version", [4, 5])
MakeRig = Callable[..., Rig]
MARKER = b"left-behind-marker"


def order(kind: Any, org: str, *names: str, username: str = "", seconds: float = 60.0, ago: float = 0.0) -> Order:
    now = time.time()
    return Order(kind, org, issued_at=now - ago, ends_at=now + seconds, names=names, username=username)


def carried_out(rig: Rig) -> None:
    wait_for(lambda: not rig.valkey.redis.xlen(keys.ORDERS), what="the orders to be carried out")


def test_retained_messages_are_cleared_and_their_room_is_free(rig: Rig) -> None:
    org = rig.org(quotas=Quotas(retained_messages=3))
    client = rig.client(rig.plane.issue(org), version=5)
    for topic in ("a", "b", "$app/c"):
        assert retain(client, topic, qos=1) == 0
    counted(rig, org, 3)
    rig.plane.order(order("clear_retained", org, "a", "$app/c", "never/there"))
    carried_out(rig)
    counted(rig, org, 1)
    assert retained_at_broker(client, "#", "$app/#") == [b"b"]
    assert [retain(client, f"new/{n}", qos=1) for n in range(3)] == [0, 0, 0x97]


def test_a_forged_or_late_order_does_nothing_and_is_removed(rig: Rig) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org), version=5)
    assert retain(client, "kept", qos=1) == 0
    counted(rig, org, 1)
    rig.plane.order(order("clear_retained", org, "kept"), key=Ed25519PrivateKey.generate())
    rig.plane.order(order("clear_retained", org, "kept", seconds=-1))
    rig.valkey.redis.xadd(keys.ORDERS, {keys.FIELD: b"garbage"})
    rig.valkey.redis.xadd(keys.ORDERS, {"other": b"field"})
    carried_out(rig)
    assert retained_at_broker(client, "#") == [b"kept"]
    key = Ed25519PrivateKey.generate()
    late = sign_order(order("erase", org, seconds=10), key)
    assert open_order(late, key.public_key(), now=time.time()).kind == "erase"
    with pytest.raises(WireError, match="over"):
        open_order(late, key.public_key(), now=time.time() + 11)


def queued(rig: Rig, org: str, issued: Issued, version: int, client_id: str = "device") -> None:
    """A stored session with a message waiting for it."""
    code, wire = keep(rig, issued, client_id, version)
    assert code == 0
    wire.subscribe("q/#", qos=1)
    wire.disconnect()
    wait_for(lambda: stored(rig, org).get(client_id, 1e12) - time.time() < 3_000_000, what="a stored session")
    sender = rig.client(rig.plane.issue(org, "sender"), version=5)
    assert sender.publish("q/1", MARKER, qos=1) == 0
    sender.disconnect()


@BOTH
def test_a_discarded_session_frees_its_client_id_and_nothing_of_it_reaches_the_successor(
    rig: Rig, version: int
) -> None:
    org = rig.org()
    old, new = rig.plane.issue(org, "old"), rig.plane.issue(org, "new")
    queued(rig, org, old, version)
    assert keep(rig, new, "device", version)[0] == (0x85 if version == 5 else 2), "it belongs to the old one"
    rig.plane.order(order("discard_sessions", org, "device", username="old"))
    carried_out(rig)
    assert stored(rig, org) == {}
    code, wire = keep(rig, new, "device", version)
    assert code == 0
    wire.nothing()


def test_a_session_that_began_after_the_order_or_is_of_another_username_stays(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org, "old")
    queued(rig, org, issued, 5)
    rig.plane.order(order("discard_sessions", org, "device", username="another"))
    rig.plane.order(order("discard_sessions", org, "device", username="old", ago=60))
    carried_out(rig)
    _, wire = keep(rig, issued, "device", 5)
    assert wire.delivery().payload == MARKER


def test_an_order_that_an_edge_did_not_finish_is_carried_out_by_another(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    client = rig.client(rig.plane.issue(org), version=5)
    assert retain(client, "kept", qos=1) == 0
    counted(rig, org, 1)
    rig.edge.stop(kill=True)
    rig.plane.order(order("clear_retained", org, "kept", seconds=600))
    group = "edges"
    redis = rig.valkey.redis
    assert redis.xreadgroup(group, "killed", {keys.ORDERS: ">"}), "another edge took it and was killed"
    (pending,) = redis.xpending_range(keys.ORDERS, group, "-", "+", 10)
    redis.xclaim(keys.ORDERS, group, "killed", 0, [pending["message_id"]], idle=61_000)
    rig.edge.start()
    carried_out(rig)
    counted(rig, org, 0)


def holds_marker(rig: Rig, edges: list[Edge], marker: bytes) -> list[str]:
    """Where the marker is found: Valkey, the broker's store, the edges' folders."""
    found = [
        key.decode(errors="replace")
        for key in rig.valkey.redis.scan_iter()
        if marker in key or marker in _content(rig, key)
    ]
    files = [*(rig.broker.folder / "db").rglob("*"), *(f for e in edges for f in (e.folder / "edge").rglob("*"))]
    return found + [str(file) for file in files if file.is_file() and marker in file.read_bytes()]


def _content(rig: Rig, key: bytes) -> bytes:
    redis = rig.valkey.redis
    kind = redis.type(key).decode()
    read: dict[str, Callable[[], Any]] = {
        "string": lambda: redis.get(key),
        "hash": lambda: redis.hgetall(key),
        "set": lambda: redis.smembers(key),
        "zset": lambda: redis.zrange(key, 0, -1),
        "stream": lambda: redis.xrange(key),
        "list": lambda: redis.lrange(key, 0, -1),
        "none": lambda: b"",  # gone meanwhile
    }
    return repr(read[kind]()).encode()


def test_nothing_of_a_deleted_organization_is_left_at_edges_in_the_broker_or_on_redis(make_rig: MakeRig) -> None:
    rig = make_rig()
    other = second_edge(rig)
    other.start()
    edges = [rig.edge, other]
    name = "marker-thing"
    policy = f"version: '3'\nrules: [{{id: {name}, topic: '#'}}]"
    org = rig.org(policy)
    bystander = rig.org()
    try:
        rig.plane.enforced(org, 1, nodes=2)
        issued = rig.plane.issue(org, name)
        queued(rig, org, issued, 5, client_id=f"{name}-1")
        queued(rig, org, issued, 4, client_id=f"{name}-2")
        client = dial_tls(other.port, rig.authority.client_context())
        assert client.connect(version=5, client_id="x", username=issued.username, password=issued.password).code == 0
        for number in range(1_500):
            client.send(client.message(f"{name}/{number}", MARKER, retain=True))
        client.ping()
        counted(rig, org, 1_500)
        rig.valkey.redis.hdel(keys.retained(org), *(f"{name}/{n}" for n in range(100)))  # what the ledger has lost
        others = rig.client(rig.plane.issue(bystander), version=5)
        assert retain(others, "kept", qos=1) == 0
        rig.valkey.redis.delete(keys.credential(org, name), keys.credential(org, "sender"))
        rig.plane.delete(org)
        client.closed()
        carried_out(rig)
        bundles = [edge.folder / "edge" / edge.node / "bundles" / org for edge in edges]
        wait_for(lambda: not any(bundle.exists() for bundle in bundles), what="the bundles to be gone")
        assert retained_at_broker(others, "#") == [b"kept"]
        for stream in (keys.AUDIT, keys.CHANGES, keys.REPORTS):
            rig.valkey.redis.delete(stream)  # the control plane's part: see tests/orgs
        wait_for(lambda: not holds_marker(rig, edges, name.encode()), what="the last mention of it to be gone")
        rig.broker.stop()
        assert holds_marker(rig, edges, MARKER) == []
        assert holds_marker(rig, edges, name.encode()) == []
        left = holds_marker(rig, edges, org.encode())
        assert {entry.rpartition("/")[2] for entry in left} <= {keys.bundle(org), "revisions"}, left
    finally:
        other.stop(kill=True)


def test_an_edge_that_was_away_forgets_a_deleted_organization_when_it_comes_back(make_rig: MakeRig) -> None:
    rig = make_rig()
    org = rig.org()
    issued = rig.plane.issue(org)
    rig.client(issued, version=5).disconnect()
    old = rig.plane.bundles[org]
    bundle = rig.edge.folder / "edge" / rig.edge.node / "bundles" / org
    assert bundle.exists()
    rig.edge.stop(kill=True)
    rig.plane.delete(org)
    rig.edge.start()
    wait_for(lambda: not bundle.exists(), what="the bundle to be gone")
    # An old bundle put back by somebody who can write to Redis revives nothing.
    rig.plane.store_bundle(org, old)
    time.sleep(0.3)
    answer = rig.dial().connect(version=5, client_id="a", username=issued.username, password=issued.password)
    assert answer.code != 0
    assert not bundle.exists()

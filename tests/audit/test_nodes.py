"""Heartbeats: nodes register themselves, are kept true, and go offline only when they could have been heard."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from redis import Redis
from redis.exceptions import RedisError

from acl.brokers import Condition, broker_health, condition, health_of, seen_brokers
from acl.models import Cluster, Node
from acl.services.nodes import MEMBERS_MAX, TEXT_MAX, Heartbeats, note_heartbeats
from audit.models import Event
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import BROKERS_MAX, BrokerState, Heartbeat
from cloudsignal.wire.sealed import Kind, seal_record
from tests.support.audit_events import now

pytestmark = pytest.mark.django_db

BEAT = Heartbeat(
    node="edge-1",
    incarnation="0193a6a0-0000-7000-8000-000000000001",
    sequence=12,
    started_at=1_700_000_000.0,
    at=1_700_000_005.0,
    address="127.0.0.1:8883",
    sessions=3,
    counters={"messages_in": 9},
)


class Clock:
    """A clock that stands until it is told otherwise."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heartbeats(clock: Clock) -> Heartbeats:
    return Heartbeats(clock=clock)


def beats(redis: Redis, *found: Heartbeat) -> None:
    for beat in found:
        redis.set(keys.node(beat.node), seal_record(Kind.HEARTBEAT, encode(beat), node_key()))


def registered() -> int:
    with platform_scope():
        return Event.objects.filter(kind="node.registered", org_id="platform").count()


def test_an_unknown_node_registers_itself(redis: Redis, heartbeats: Heartbeats) -> None:
    beats(redis, BEAT)
    assert heartbeats.look(redis) == [BEAT]
    node = Node.objects.get()
    assert (node.name, node.cluster.name, node.online) == ("edge-1", "default", True)
    assert (node.address, node.sessions, node.sequence) == ("127.0.0.1:8883", 3, 12)
    assert node.incarnation == BEAT.incarnation
    assert node.counters == {"messages_in": 9}
    assert node.started_at is not None
    assert node.started_at.timestamp() == BEAT.started_at
    assert node.last_seen is not None
    assert abs((now() - node.last_seen).total_seconds()) < 10
    assert registered() == 1


def test_what_it_says_of_its_brokers_is_kept(redis: Redis, heartbeats: Heartbeats) -> None:
    lost = BrokerState(
        "b2:8883", "unreachable", why="no answer within 1.5 s", since=1_700_000_000.0, at=1_700_000_004.0
    )
    beats(redis, replace(BEAT, brokers=(BrokerState("b1:8883", "reachable", latency_ms=2.5, members=("n@1",)), lost)))
    heartbeats.look(redis)
    first, second = seen_brokers(Node.objects.get())
    assert (first.label, first.state, first.latency_ms, first.members, first.since) == (
        "b1:8883", "reachable", 2.5, ("n@1",), None,
    )  # fmt: skip
    assert (second.state, second.why, second.latency_ms) == ("unreachable", "no answer within 1.5 s", None)
    assert second.since is not None
    assert second.since.timestamp() == lost.since


def test_a_heartbeat_of_a_release_that_did_not_probe_says_nothing_of_brokers(
    redis: Redis, heartbeats: Heartbeats
) -> None:
    written = msgspec.msgpack.decode(encode(BEAT))
    del written["brokers"]
    redis.set(keys.node(BEAT.node), seal_record(Kind.HEARTBEAT, msgspec.msgpack.encode(written), node_key()))
    assert heartbeats.look(redis) == [BEAT]
    node = Node.objects.get()
    assert seen_brokers(node) == ()
    assert condition(node) is Condition.ONLINE
    assert health_of([node]).words == "unknown to 1 of 1 edge nodes"


def test_what_makes_no_sense_of_a_broker_is_brought_within_bounds(redis: Redis, heartbeats: Heartbeats) -> None:
    odd = BrokerState(
        "b\0" + "x" * 999, "levitating", why="\0", since=math.nan, at=math.inf, latency_ms=math.nan,
        members=("m",) * 999, missing=("\0",), cluster="in love", drops=2**62,
    )  # fmt: skip
    beats(redis, replace(BEAT, brokers=(odd,) * 99))
    heartbeats.look(redis)
    found = seen_brokers(Node.objects.get())
    assert len(found) == BROKERS_MAX
    seen = found[0]
    assert (seen.state, seen.cluster, seen.since, seen.latency_ms) == ("unknown", "unknown", None, None)
    assert len(seen.label) == TEXT_MAX
    assert "\0" not in seen.label
    assert len(seen.members) == MEMBERS_MAX
    assert seen.drops == 2**53


def test_nothing_is_said_of_the_brokers_of_an_edge_node_that_is_offline(redis: Redis, heartbeats: Heartbeats) -> None:
    beats(redis, replace(BEAT, brokers=(BrokerState("b1:8883", "reachable", since=1.0, members=("n@1",)),)))
    heartbeats.look(redis)
    Node.objects.update(online=False)
    node = Node.objects.get()
    [seen] = seen_brokers(node)
    assert (seen.state, seen.since, seen.members) == ("unknown", None, ())
    assert condition(node) is Condition.OFFLINE
    assert health_of([node]).words == "no edge node is online"


@pytest.mark.parametrize(
    ("states", "expected", "words"),
    [
        (("reachable", "slow"), Condition.ONLINE, "ok"),
        (("reachable", "unknown"), Condition.ONLINE, "ok"),
        (("reachable", "refused"), Condition.SOME_BROKERS, "not every edge node reaches 1 of the broker nodes"),
        (("unreachable", "refused"), Condition.NO_BROKER, "1 of 1 edge nodes reach no broker"),
    ],
)
def test_an_edge_node_without_a_broker_is_not_simply_online(
    redis: Redis, heartbeats: Heartbeats, states: tuple[str, str], expected: Condition, words: str
) -> None:
    brokers = tuple(BrokerState(f"b{number}", state) for number, state in enumerate(states))
    beats(redis, replace(BEAT, brokers=brokers))
    heartbeats.look(redis)
    node = Node.objects.get()
    assert condition(node) is expected
    assert health_of([node]).words == words
    assert broker_health(node.cluster_id) == broker_health() == health_of([node])


def test_it_is_told_once(redis: Redis, heartbeats: Heartbeats, clock: Clock) -> None:
    for second in range(5):
        beats(redis, replace(BEAT, at=BEAT.at + second))
        assert len(heartbeats.look(redis)) == 1
        clock.seconds += 1
    assert registered() == 1


def test_a_beat_that_stands_still_is_no_news(redis: Redis, heartbeats: Heartbeats, clock: Clock) -> None:
    beats(redis, BEAT)
    heartbeats.look(redis)
    clock.seconds += 1
    assert heartbeats.look(redis) == []


def test_old_heartbeats_repeated_in_turn_do_not_make_a_dead_node_live(
    redis: Redis, heartbeats: Heartbeats, clock: Clock
) -> None:
    later = replace(BEAT, at=BEAT.at + 5)
    before = replace(BEAT, incarnation="0193a6a0-0000-7000-8000-000000000000", at=BEAT.at - 60)
    for beat in (before, BEAT, later):  # each is news once: the first two are of two processes
        beats(redis, beat)
        assert heartbeats.look(redis) == [beat]
        clock.seconds += 1
    for beat in (BEAT, later, before) * 3:
        beats(redis, beat)
        assert heartbeats.look(redis) == []
        clock.seconds += 1


def test_a_process_that_began_earlier_does_not_count_while_its_successor_is_heard_of(
    redis: Redis, heartbeats: Heartbeats, clock: Clock
) -> None:
    old = replace(BEAT, incarnation="0193a6a0-0000-7000-8000-000000000000", started_at=BEAT.started_at - 900)
    for second in range(5):
        beats(redis, replace(BEAT, at=BEAT.at + second))
        heartbeats.look(redis)
        clock.seconds += 1
        beats(redis, replace(old, at=BEAT.at + second))
        assert heartbeats.look(redis) == []
        assert Node.objects.get().incarnation == BEAT.incarnation
        clock.seconds += 1
    clock.seconds += 15  # a node whose clock was put back before it began again has its time
    assert len(heartbeats.look(redis)) == 1
    assert Node.objects.get().incarnation == old.incarnation


def test_what_is_remembered_of_a_node_has_a_bound(
    redis: Redis, heartbeats: Heartbeats, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acl.services.nodes.INCARNATIONS", 2)
    for number in (0, 1, 2):
        beats(redis, replace(BEAT, incarnation=str(number), at=BEAT.at + number))
        assert len(heartbeats.look(redis)) == 1
        clock.seconds += 1
    for number, news in ((1, 0), (2, 0), (0, 1)):
        beats(redis, replace(BEAT, incarnation=str(number), at=BEAT.at + number))
        assert len(heartbeats.look(redis)) == news
        clock.seconds += 1


def test_it_looks_once_a_second(redis: Redis, heartbeats: Heartbeats, clock: Clock) -> None:
    heartbeats.look(redis)
    beats(redis, BEAT)
    clock.seconds += 0.9
    assert heartbeats.look(redis) == ()
    clock.seconds += 5
    assert heartbeats.look(redis) == [BEAT]


def test_a_silent_node_goes_offline_and_comes_back(redis: Redis, heartbeats: Heartbeats, clock: Clock) -> None:
    beats(redis, BEAT)
    heartbeats.look(redis)
    silent(heartbeats, redis, clock, seconds=20)
    assert not Node.objects.get().online
    beats(redis, replace(BEAT, at=BEAT.at + 60))
    clock.seconds += 1
    heartbeats.look(redis)
    assert Node.objects.get().online
    assert registered() == 1


def test_a_node_that_dies_while_redis_is_away_gets_its_time(
    redis: Redis, heartbeats: Heartbeats, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing could be heard meanwhile, so silence proves nothing yet."""
    beats(redis, BEAT)
    heartbeats.look(redis)
    silent(heartbeats, redis, clock, seconds=14)
    with monkeypatch.context() as patch:
        patch.setattr(redis, "mget", lambda *_: (_ for _ in ()).throw(RedisError("away")))
        for _ in range(30):
            clock.seconds += 1
            with pytest.raises(RedisError):
                heartbeats.look(redis)
    Node.objects.update(last_seen=now() - timedelta(seconds=44))
    clock.seconds += 1
    heartbeats.look(redis)
    assert Node.objects.get().online
    silent(heartbeats, redis, clock, seconds=16)
    assert not Node.objects.get().online


def silent(heartbeats: Heartbeats, redis: Redis, clock: Clock, *, seconds: int) -> None:
    """Let so much time pass by both clocks, looking every second."""
    for _ in range(seconds):
        clock.seconds += 1
        for node in Node.objects.exclude(last_seen=None):
            Node.objects.filter(pk=node.pk).update(last_seen=node.last_seen - timedelta(seconds=1))  # type: ignore[operator]
        heartbeats.look(redis)


def test_a_retired_node_that_beats_again_is_back(redis: Redis, heartbeats: Heartbeats) -> None:
    Node.objects.create(cluster=Cluster.objects.get(name="default"), name="edge-1", online=False, retired_at=now())
    beats(redis, BEAT)
    heartbeats.look(redis)
    node = Node.objects.get()
    assert node.online
    assert node.retired_at is None
    assert registered() == 1


def test_two_processes_register_one_node_once() -> None:
    note_heartbeats([BEAT])
    note_heartbeats([BEAT])
    assert Node.objects.count() == 1
    assert registered() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"node": ""},
        {"node": "n" * 200},
        {"node": "a\0"},
        {"at": math.nan},
        {"started_at": math.inf},
        {"at": -1.0},
        {"started_at": 1e18},
        {"sequence": -1},
        {"sequence": 2**64 - 1},
        {"incarnation": "\0"},
    ],
    ids=str,
)
def test_a_heartbeat_that_makes_no_sense_is_ignored(
    redis: Redis, heartbeats: Heartbeats, changes: dict[str, Any]
) -> None:
    redis.set(keys.node("odd"), seal_record(Kind.HEARTBEAT, encode(replace(BEAT, **changes)), node_key()))
    beats(redis, replace(BEAT, node="good"))
    assert [beat.node for beat in heartbeats.look(redis)] == ["good"]
    assert [node.name for node in Node.objects.all()] == ["good"]


@pytest.mark.parametrize(
    "changes",
    [
        {"sessions": -1},
        {"sessions": 2**63},
        {"address": "a" * 9_000 + "\0"},
        {"incarnation": "i" * 900},
        {"counters": {f"c\0{number}": 2**64 - 1 for number in range(500)}},
    ],
    ids=["negative", "huge", "address", "incarnation", "counters"],
)
def test_what_is_only_odd_is_brought_into_range(redis: Redis, heartbeats: Heartbeats, changes: dict[str, Any]) -> None:
    beats(redis, replace(BEAT, **changes))
    heartbeats.look(redis)
    assert Node.objects.get().online


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"text", encode([1])])
def test_a_heartbeat_that_is_none_is_ignored(redis: Redis, heartbeats: Heartbeats, blob: bytes) -> None:
    redis.set(keys.node("odd"), seal_record(Kind.HEARTBEAT, blob, node_key()))
    assert list(heartbeats.look(redis)) == []
    assert not Node.objects.exists()


@pytest.mark.parametrize("seal", [b"", bytes(32), b"another key", b"another kind"])
def test_a_node_that_only_a_writer_of_redis_knows_is_none(redis: Redis, heartbeats: Heartbeats, seal: bytes) -> None:
    record = encode(replace(BEAT, node="invented"))
    blob = {
        b"another key": seal_record(Kind.HEARTBEAT, record, seal),
        b"another kind": seal_record(Kind.REPORT, record, node_key()),
    }.get(seal, record + seal)
    redis.set(keys.node("invented"), blob)
    assert list(heartbeats.look(redis)) == []
    assert not Node.objects.exists()


def test_searching_redis_takes_a_small_share_of_the_time(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With millions of credentials on Redis a search for nodes takes long: it is then done seldom."""
    searches = 0
    clock = Clock()

    def scan(**_: object) -> list[bytes]:
        nonlocal searches
        searches += 1
        clock.seconds += 2
        return []

    monkeypatch.setattr(redis, "scan_iter", scan)
    heartbeats = Heartbeats(clock=clock)
    for _ in range(90):
        heartbeats.look(redis)
        clock.seconds += 1
    assert searches == 1

"""No client ID has two usernames, over all edges, also while Redis is unavailable from all of them or from one."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cloudsignal.edge.codec import Kind
from cloudsignal.edge.signin.flow import NOT_LOOKED_UP
from cloudsignal.edge.signin.holds import RETURN_WITHIN
from cloudsignal.edge.signin.stored_sessions import LIVE_TTL
from cloudsignal.wire import keys
from tests.support.parts import ALLOW_ALL, Edge, Issued, wait_for
from tests.support.rig import Rig, build_rig, stop_rig
from tests.support.wire import Wire, dial_tls

TAKEN, AWAY = 0x85, 0x88
MAY_BE_TAKEN = b"the client ID cannot be confirmed right now; try again later"


class Wall(threading.Thread):
    """Between one edge and Redis: passes everything on, or nothing any more while it is shut."""

    def __init__(self, path: Path, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.is_shut = False
        self.open: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self) -> None:
        while True:
            came, _ = self.listener.accept()
            onward = socket.socket()
            if self.is_shut or onward.connect_ex(("127.0.0.1", self.port)):
                came.close()
                onward.close()
                continue
            self.open += came, onward
            for ends in ((came, onward), (onward, came)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def shut(self) -> None:
        """Cut what is open, and let nobody through."""
        self.is_shut = True
        for end in self.open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Two:
    """Two edges before one broker, an organization, and two usernames whom both edges know by heart."""

    def __init__(self, rig: Rig, wall: Wall, second: Edge) -> None:
        self.rig, self.wall = rig, wall
        self.ports = {"a": second.port, "b": rig.edge.port}
        self.org = rig.plane.new_org()
        rig.plane.enforced(self.org, rig.plane.deploy(self.org, ALLOW_ALL), nodes=2)
        self.alice, self.bob = rig.plane.issue(self.org, "alice"), rig.plane.issue(self.org, "bob")
        for at in self.ports:
            for who in (self.alice, self.bob):
                self.sign_in(at, who, f"known-{who.local}-{at}").disconnect()

    def dial(self, at: str) -> Wire:
        return dial_tls(self.ports[at], self.rig.authority.client_context())

    def ask(self, at: str, who: Issued, client_id: str) -> tuple[int, bytes]:
        """The answer to a sign-in that is not expected to succeed, and its reason in words."""
        wire = self.dial(at)
        answer = wire.connect(version=5, username=who.username, password=who.password, client_id=client_id)
        wire.closed()
        return answer.code, answer.properties.string(31) or b""

    def sign_in(self, at: str, who: Issued, client_id: str) -> Wire:
        wire = self.dial(at)
        answer = wire.connect(version=5, username=who.username, password=who.password, client_id=client_id)
        assert answer.code == 0, hex(answer.code)
        return wire

    def held(self, client_id: str) -> bytes:
        held = self.rig.valkey.redis.get(keys.client(self.org, client_id)) or b""
        assert isinstance(held, bytes)
        return held.partition(b"\n")[0]

    def lose_redis(self) -> None:
        """Both edges have noticed that it is gone."""
        self.rig.plane.redis.execute_command("WAITAOF", 1, 0, 3000)
        self.rig.valkey.stop(kill=True)
        for at in self.ports:
            wait_for(lambda at=at: self.ask(at, self.alice, "probe")[0] == AWAY, what="Redis to be unavailable")


@pytest.fixture
def two(workdir: Path) -> Iterator[Two]:
    """Edge ``a`` reaches Redis through a wall, edge ``b`` without one."""
    folder = Path(tempfile.mkdtemp(dir=workdir))
    rig = build_rig(folder)
    wall = Wall(folder / "wall.sock", rig.valkey.port)
    wall.start()
    second = Edge(
        folder,
        redis_url=f"unix://{folder}/wall.sock",
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node="edge-2",
    )
    second.start()
    yield Two(rig, wall, second)
    second.stop(kill=True)
    stop_rig(rig)


def test_without_redis_two_usernames_do_not_get_one_client_id_on_two_nodes(two: Two) -> None:
    held = two.sign_in("a", two.alice, "one")
    unknown = replace(two.bob, local="nobody")
    two.lose_redis()
    assert two.ask("b", unknown, "two") == (AWAY, NOT_LOOKED_UP.encode())
    assert two.ask("b", two.bob, "one") == (AWAY, MAY_BE_TAKEN)
    assert two.ask("a", two.bob, "one")[0] == TAKEN, "a node knows its own sessions"
    assert [two.ask(at, who, "new") for at, who in (("a", two.alice), ("b", two.bob))] == [(AWAY, MAY_BE_TAKEN)] * 2
    held.ping()
    for at in two.ports:
        wire = two.dial(at)
        answer = wire.connect(version=5, username=two.bob.username, password=two.bob.password, client_id="")
        assert answer.code == 0, "nobody else can have a client ID that the edge has just made"
        answer = two.dial(at).connect(
            version=5, username=two.bob.username, password=two.bob.password, client_id="", properties=[(17, 3_600)]
        )
        assert answer.code == AWAY, "stored sessions have a quota, and nobody counts them now"
    two.rig.valkey.start()
    wait_for(lambda: two.ask("b", two.bob, "one")[0] == TAKEN, what="Redis to say whose it is")
    wanted = {"org": two.org, "kind": "auth_failed", "reason": "unavailable", "username": "bob", "client_id": "one"}
    wait_for(lambda: two.rig.plane.events(**wanted), what="the refusal in the audit")
    texts = {event.details["text"] for event in two.rig.plane.events(**wanted)}
    assert MAY_BE_TAKEN.decode() in texts
    assert texts <= {MAY_BE_TAKEN.decode(), NOT_LOOKED_UP}, (
        "a node that has just lost Redis knows no credential by heart"
    )
    held.ping()


def test_without_redis_a_client_comes_back_to_the_node_it_was_on(two: Two) -> None:
    half_open = two.sign_in("a", two.alice, "one")
    for round_ in range(2):
        two.sign_in("a", two.alice, f"left-{round_}").disconnect()
    wait_for(lambda: not two.held("left-1"), what="the client IDs to be free")
    gone = two.sign_in("a", two.alice, "gone")
    two.lose_redis()
    assert two.ask("a", two.alice, "left-0") == (AWAY, MAY_BE_TAKEN), "it was given back: another may have it"
    two.sign_in("a", two.alice, "one").ping()
    assert half_open.closed()[-1][0] == Kind.DISCONNECT
    for _ in range(3):
        gone.disconnect()
        assert two.ask("a", two.bob, "gone")[0] in {AWAY, TAKEN}
        assert two.ask("b", two.alice, "gone") == (AWAY, MAY_BE_TAKEN)
        gone = two.sign_in("a", two.alice, "gone")
    two.rig.valkey.start()
    wait_for(lambda: two.held("gone") == two.held("one") == b"alice", what="the claims")
    gone.ping()


def test_an_edge_cut_off_from_redis_and_one_that_is_not_never_let_two_usernames_meet(two: Two) -> None:
    first = two.sign_in("a", two.alice, "one")
    two.wall.shut()
    wait_for(lambda: two.ask("a", two.alice, "probe")[0] == AWAY, what="Redis to be unavailable")
    assert two.ask("a", two.bob, "new") == (AWAY, MAY_BE_TAKEN)
    first.disconnect()
    # She goes where Redis is, and leaves again: edge a does not hear of it and lets her in as before.
    two.sign_in("b", two.alice, "one").disconnect()
    key = keys.client(two.org, "one")
    wait_for(lambda: 0 < two.rig.valkey.redis.ttl(key) <= RETURN_WITHIN, what="the client ID to be left to her")
    assert two.ask("b", two.bob, "one")[0] == TAKEN
    back = two.sign_in("a", two.alice, "one")
    # Once more, and edge a has her while edge b hears of it from the broker alone.
    elsewhere = two.sign_in("b", two.alice, "one")
    back.closed()
    assert two.ask("a", two.alice, "one") == (AWAY, MAY_BE_TAKEN), "the broker has said that it is used elsewhere"
    elsewhere.disconnect()


def test_an_edge_whose_session_the_broker_ends_does_not_give_its_client_id_away(two: Two) -> None:
    first = two.sign_in("a", two.alice, "one")
    two.wall.shut()
    wait_for(lambda: two.ask("a", two.alice, "probe")[0] == AWAY, what="Redis to be unavailable")
    first.disconnect()
    elsewhere = two.sign_in("b", two.alice, "one")
    back = two.sign_in("a", two.alice, "one")
    assert elsewhere.closed()[-1][0] == Kind.DISCONNECT
    assert two.ask("b", two.bob, "one")[0] == TAKEN
    assert two.rig.valkey.redis.ttl(keys.client(two.org, "one")) > LIVE_TTL - 60  # type: ignore[operator]
    back.ping()


def test_when_redis_is_back_and_has_given_a_client_id_away_its_session_ends(two: Two) -> None:
    """It lost what it knew and another username asked first: one holder remains, and the other is told."""
    lost, kept = two.sign_in("a", two.alice, "one"), two.sign_in("a", two.alice, "two")
    two.wall.shut()
    wait_for(lambda: two.ask("a", two.alice, "probe")[0] == AWAY, what="Redis to be unavailable")
    two.rig.valkey.redis.set(keys.client(two.org, "one"), "bob\nanother", ex=60)
    two.rig.valkey.redis.delete(keys.client(two.org, "two"))
    two.wall.is_shut = False
    kind, body = lost.closed()[-1]
    assert (kind, body[0]) == (Kind.DISCONNECT, 0x8E)
    event = two.rig.plane.event(org=two.org, kind="session_closed", client_id="one")
    assert (event.reason, event.details["text"]) == ("taken_over", "another username holds the client ID")
    assert [two.held("one"), two.held("two")] == [b"bob", b"alice"]
    kept.ping()


@pytest.mark.parametrize("make", ["hset", "rpush"])
def test_a_client_id_whose_key_somebody_has_made_something_else_of_is_free(rig: Rig, make: str) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    key = keys.client(org, "spoilt")
    getattr(rig.valkey.redis, make)(key, *(("field", "value") if make == "hset" else ("value",)))
    rig.client(issued, client_id="spoilt").ping()
    assert rig.valkey.redis.get(key).startswith(b"dev\n")  # type: ignore[union-attr]

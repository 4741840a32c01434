"""Client ids change hands in order, though they are given back together with others and asked for without waiting."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import pytest
from redis import Redis

from cloudsignal.wire import keys
from tests.support.parts import Broker, Issued, wait_for
from tests.support.rig import Rig

TAKEN, AWAY = 0x85, 0x88


def knock(rig: Rig, issued: Issued, client_id: str) -> int:
    """The answer to a sign-in that is not expected to succeed, once the edge is done with it."""
    wire = rig.dial()
    code = wire.connect(version=5, username=issued.username, password=issued.password, client_id=client_id).code
    wire.closed()
    return code


def test_a_client_id_given_back_is_free_for_the_next_username_at_once(rig: Rig) -> None:
    org = rig.org()
    usernames = cycle([rig.plane.issue(org, "one"), rig.plane.issue(org, "two")])
    for _ in range(10):
        rig.client(next(usernames), client_id="shared").disconnect()
    wait_for(lambda: not rig.valkey.redis.exists(keys.client(org, "shared")), what="the client id to be free")


def test_of_two_usernames_that_ask_at_once_one_gets_the_client_id(rig: Rig) -> None:
    org = rig.org()
    both = [rig.plane.issue(org, name) for name in ("one", "two")]
    for issued in both:
        rig.client(issued, client_id=f"known-{issued.local}").disconnect()

    def connect(issued: Issued) -> int:
        wire = wires[issued.local]
        return wire.connect(version=5, username=issued.username, password=issued.password, client_id="wanted").code

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            wires = {issued.local: rig.dial() for issued in both}
            assert sorted(pool.map(connect, both)) == [0, TAKEN]
            for wire in wires.values():
                wire.close()
            wait_for(lambda: not rig.valkey.redis.exists(keys.client(org, "wanted")), what="the client id to be free")


def test_a_client_id_refused_by_redis_says_nothing_to_the_broker(rig: Rig) -> None:
    """Another node holds it: the connection to the broker is there before the answer, and must not be used."""
    org = rig.org()
    issued = rig.plane.issue(org)
    rig.valkey.redis.set(keys.client(org, "theirs"), "another\nsession-elsewhere", ex=60)
    answer = rig.dial().connect(version=5, username=issued.username, password=issued.password, client_id="theirs")
    assert answer.code == TAKEN
    assert rig.valkey.redis.get(keys.client(org, "theirs")) == b"another\nsession-elsewhere"
    assert f"{org}:theirs" not in rig.broker.log.read_text()


class Door(threading.Thread):
    """Between edge and broker: passes everything on, or closes whoever comes while it is shut."""

    def __init__(self, path: Path, behind: Path) -> None:
        super().__init__(daemon=True)
        self.behind = behind
        self.shut = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self) -> None:
        while True:
            came, _ = self.listener.accept()
            if self.shut:
                came.close()
                continue
            onward = socket.socket(socket.AF_UNIX)
            onward.connect(str(self.behind))
            for ends in ((came, onward), (onward, came)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    @staticmethod
    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_client_that_fails_to_come_back_has_not_given_its_client_id_away(
    make_rig: Callable[..., Rig], broker: Broker
) -> None:
    """Whoever has a live or stored session has its client id, though another connection of theirs came to nothing."""
    door = Door(broker.folder / "door.sock", broker.socket)
    door.start()
    rig = make_rig(MQTT_UPSTREAM_URL=f"unix://{broker.folder}/door.sock")
    org = rig.org()
    alice, bob = rig.plane.issue(org, "alice"), rig.plane.issue(org, "bob")
    rig.client(alice, client_id="kept", clean=False, properties=[(17, 50_000)]).disconnect()
    names = {client_id: keys.client(org, client_id) for client_id in ("live", "kept")}
    wait_for(lambda: 45_000 < rig.valkey.redis.ttl(names["kept"]) <= 50_000, what="a stored session")
    live = rig.client(alice, client_id="live")
    for client_id, name in names.items():
        held, door.shut = rig.valkey.redis.get(name), True
        for _ in range(2):
            assert knock(rig, alice, client_id) == AWAY
        wait_for(lambda name=name, held=held: rig.valkey.redis.get(name) == held, what="the client id as it was")
        door.shut = False
        assert knock(rig, bob, client_id) == TAKEN
    assert rig.valkey.redis.ttl(names["kept"]) > 45_000
    rig.valkey.redis.delete(names["live"])
    assert knock(rig, bob, "live") == TAKEN, "the edge knows its own sessions without Redis"
    live.ping()


def test_client_ids_taken_while_redis_was_away_are_claimed_when_it_is_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    org = rig.org()
    alice = rig.plane.issue(org, "alice")
    rig.client(alice, client_id="known").disconnect()
    rig.valkey.stop(kill=True)
    wire = rig.dial()
    answer = wire.connect(version=5, username=alice.username, password=alice.password, client_id="")
    name = keys.client(org, str(answer.properties.string(18), "ascii"))
    rig.valkey.start()
    wait_for(lambda: (rig.valkey.redis.get(name) or b"").startswith(b"alice\n"), seconds=20, what="the claim")
    wire.ping()


@pytest.mark.parametrize("seconds", [None, 400 * 86_400], ids=["without an end", "for a year"])
def test_a_client_id_that_somebody_has_blocked_on_redis_for_good_is_free(rig: Rig, seconds: int | None) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    key = keys.client(org, "blocked")
    Redis.from_url(rig.valkey.url).set(key, "somebody\nelse", ex=seconds)
    assert rig.client(issued, client_id="blocked")
    assert rig.valkey.redis.ttl(key) <= 7_200  # type: ignore[operator]

"""Client ids change hands in order, though they are given back together with others and asked for without waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from cloudsignal.wire import keys
from tests.edge.conftest import Rig
from tests.edge.parts import Issued, wait_for

TAKEN = 0x85


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

"""A Valkey without room (``maxmemory`` reached, ``noeviction``): clients sign in and are served all the same."""

from __future__ import annotations

from cloudsignal.wire.bundle import Quotas
from tests.support.rig import Rig


def test_clients_sign_in_and_publish_while_valkey_has_no_room(rig: Rig) -> None:
    org = rig.org()
    before, during, third = rig.plane.issue(org), rig.plane.issue(org), rig.plane.issue(org, "third")
    first = rig.client(before, client_id="first")
    rig.plane.redis.config_set("maxmemory", 1)
    try:
        second = rig.client(during, client_id="second")
        assert second.subscribe("a")
        answer = rig.dial().connect(version=5, username=third.username, password=third.password, client_id="second")
        assert answer.code == 0x85, "client IDs are claimed all the same"
        first.publish("a", b"hello")
        assert second.delivery().payload == b"hello"
    finally:
        rig.plane.redis.config_set("maxmemory", 0)


def test_stored_sessions_are_counted_while_valkey_has_no_room(rig: Rig) -> None:
    """Each is kept by the broker for as long as its client asked: a full Valkey must not make them free."""
    org = rig.org(quotas=Quotas(stored_sessions=1))
    issued = rig.plane.issue(org)
    rig.plane.redis.config_set("maxmemory", 1)
    try:
        codes = [
            rig.dial()
            .connect(
                version=5, username=issued.username, password=issued.password, client_id=name, properties=[(17, 3_600)]
            )
            .code
            for name in ("one", "two", "one")
        ]
    finally:
        rig.plane.redis.config_set("maxmemory", 0)
    assert codes == [0, 0x97, 0]

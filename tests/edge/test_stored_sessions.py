"""Sessions that outlive their connection are counted per organization over all edges."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Quotas
from tests.support.broker_state import keep, stored
from tests.support.parts import wait_for
from tests.support.rig import Rig

BOTH = pytest.mark.parametrize("version", [4, 5])


@BOTH
def test_a_session_that_would_be_kept_beyond_the_quota_is_refused_and_others_sign_in(rig: Rig, version: int) -> None:
    org = rig.org(quotas=Quotas(stored_sessions=2))
    issued = rig.plane.issue(org)
    for name in ("a", "b"):
        code, wire = keep(rig, issued, name, version)
        assert code == 0
        wire.disconnect()
    over = 0x97 if version == 5 else 3
    assert keep(rig, issued, "c", version)[0] == over
    event = rig.plane.event(org=org, kind="auth_failed")
    assert (event.reason, event.client_id, event.details["limit"]) == ("quota", "c", "stored_sessions")
    rig.client(issued, client_id="c", version=version).ping()  # nothing of this one is kept
    code, again = keep(rig, issued, "a", version)
    assert code == 0, "one that is kept already needs no room"
    again.disconnect()
    # A clean start gives the room back.
    code, fresh = keep(rig, issued, "b", version, clean=True)
    fresh.disconnect()
    wait_for(lambda: set(stored(rig, org)) == {"a"}, what="room for another")
    code, wire = keep(rig, issued, "c", version)
    assert code == 0
    wire.disconnect()


def test_the_ledger_says_when_the_broker_drops_a_session_and_forgets_it_then(rig: Rig) -> None:
    org = rig.org(quotas=Quotas(stored_sessions=1))
    issued = rig.plane.issue(org)
    _, wire = keep(rig, issued, "a", 5)
    live = stored(rig, org)["a"] - time.time()
    assert 3_600 < live <= 3_600 + 7_200
    wire.disconnect()
    wait_for(lambda: 3_500 < stored(rig, org)["a"] - time.time() <= 3_600, what="the end of the stored session")
    rig.valkey.redis.zadd(keys.stored(org), {"a": time.time() - 1})
    code, _ = keep(rig, issued, "b", 5)
    assert code == 0
    assert set(stored(rig, org)) == {"b"}


@BOTH
def test_sessions_that_never_began_leave_nothing_behind(make_rig: Callable[..., Rig], version: int) -> None:
    """The broker is away, and who is refused tries again with ever new client ids."""
    rig = make_rig()
    org = rig.org(quotas=Quotas(stored_sessions=1))
    issued = rig.plane.issue(org)
    rig.broker.stop()
    names = [f"c{number}" for number in range(3)]
    away = 0x88 if version == 5 else 3
    assert [keep(rig, issued, name, version)[0] for name in names] == [away] * 3
    wait_for(
        lambda: not any(rig.valkey.redis.exists(keys.client(org, name)) for name in names), what="the client ids free"
    )
    assert stored(rig, org) == {}
    rig.broker.start()
    assert keep(rig, issued, "first", version)[0] == 0


def test_what_somebody_else_noted_neither_uses_up_the_quota_nor_lifts_it(rig: Rig) -> None:
    org = rig.org(quotas=Quotas(stored_sessions=1))
    issued = rig.plane.issue(org)
    rig.valkey.redis.zadd(keys.stored(org), {"invented": time.time() + 2 * 31 * 86_400, "another": 1e300})
    assert keep(rig, issued, "a", 5)[0] == 0
    assert set(stored(rig, org)) == {"a"}
    rig.valkey.redis.delete(keys.stored(org))
    rig.valkey.redis.set(keys.stored(org), "text")
    assert keep(rig, issued, "b", 5)[0] == 0
    assert keep(rig, issued, "c", 5)[0] == 0x97


def test_a_session_ended_early_by_its_client_is_not_counted(rig: Rig) -> None:
    """MQTT 5 s3.14.2.2.2: DISCONNECT may bring the session's end with it."""
    org = rig.org()
    issued = rig.plane.issue(org)
    _, wire = keep(rig, issued, "a", 5)
    assert set(stored(rig, org)) == {"a"}
    wire.send(bytes.fromhex("e007000511") + (0).to_bytes(4, "big"))
    wire.closed()
    wait_for(lambda: not stored(rig, org), what="nothing kept")

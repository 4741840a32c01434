"""Live sessions: seen by their own organization, closed by those who may."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks
from redis import Redis

from audit.access import AuditQuery, search
from cloudsignal.errors import Forbidden, NotFound, Unavailable
from cloudsignal.redis import client
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode
from cloudsignal.wire.report import LiveSession
from orgs.access.grants import Access
from orgs.permissions import Role
from orgs.sessions.closing import close_session
from orgs.sessions.reads import live_sessions
from tests.support.sessions import publish
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db


def connected(access: Access, session: str, *, node: str = "edge-1", at: float = 0) -> LiveSession:
    """Publish a session as an edge does."""
    live = LiveSession(
        session=session, org=access.org_id, username="pump", client_id="c1", node=node, ip="192.0.2.1", port=4711,
        transport="mqtts", mqtt_version="5", tls_version="TLSv1.3", tls_cipher="TLS_AES_256_GCM_SHA384",
        token_id="tok_x", connected_at=at or time.time(), expires_at=0,
    )  # fmt: skip
    publish(client(), live)
    return live


def changes() -> list[Change]:
    return [decode(fields[b"b"], Change) for _, fields in client().xrange(keys.CHANGES)]  # type: ignore[misc,union-attr]


def test_sessions_of_all_nodes_newest_first_and_of_nobody_else() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    older = connected(ours, "s1", at=100)
    newer = connected(ours, "s2", node="edge-2", at=200)
    connected(theirs, "s3")
    client().hset(keys.sessions("edge-1"), "s4", b"not a session")
    client().hset(keys.live(ours.org_id), "s4", "edge-1")
    # Whoever can write to Redis names another organization's session: it stays theirs.
    client().hset(keys.live(ours.org_id), "s3", "edge-1")
    assert live_sessions(ours) == (newer, older)


def test_a_session_that_no_node_lists_any_more_leaves_the_index() -> None:
    ours = organization("Ours")
    kept = connected(ours, "s1")
    connected(ours, "s2")
    connected(ours, "s3", node="edge-2")
    client().hdel(keys.sessions("edge-1"), "s2")
    client().delete(keys.sessions("edge-2"))
    assert live_sessions(ours) == (kept,)
    assert client().hkeys(keys.live(ours.org_id)) == [b"s1"]


@pytest.mark.parametrize("seconds", [None, 3600])
def test_a_list_that_no_edge_keeps_up_is_not_shown(seconds: int | None) -> None:
    ours = organization("Ours")
    kept = connected(ours, "s1")
    connected(ours, "s2", node="invented")
    redis, name = client(), keys.sessions("invented")
    if seconds is None:
        redis.persist(name)
    else:
        redis.expire(name, seconds)
    assert live_sessions(ours) == (kept,)


def test_a_page_reads_the_sessions_of_its_organization_alone() -> None:
    """However many keys there are, and however many sessions others have: the same commands, no SCAN."""
    ours, theirs = organization("Ours"), organization("Theirs")
    connected(ours, "s1")
    live_sessions(ours)  # the first one connects
    before = calls()
    live_sessions(ours)
    few = calls() - before
    for number in range(300):
        connected(theirs, f"t{number}")
        client().set(f"cs1:other:{number}", "x")
    before = calls()
    live_sessions(ours)
    assert calls() - before == few
    assert not set(few) & {"cmdstat_scan", "cmdstat_keys", "cmdstat_hvals"}


def calls() -> Counter[str]:
    """How often each command was called on this Valkey."""
    stats = client().info("commandstats")
    return Counter({name: values["calls"] for name, values in stats.items() if name != "cmdstat_info"})  # type: ignore[union-attr]


def test_when_redis_is_away_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    access = organization()
    nowhere = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    monkeypatch.setattr("orgs.sessions.reads.fast_client", lambda: nowhere)
    with pytest.raises(Unavailable):
        live_sessions(access)


@pytest.mark.parametrize("role", list(Role))
def test_closing_asks_the_edge_and_is_audited(
    role: Role, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    owner = organization()
    access = member(owner.org, role)
    live = connected(owner, "s1")
    if role not in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}:
        with pytest.raises(Forbidden):
            close_session(access, "s1")
        return
    with django_capture_on_commit_callbacks(execute=True):
        assert close_session(access, "s1") == live
    (change,) = [change for change in changes() if change.kind == "close"]
    assert (change.org, change.session, change.cause) == (owner.org_id, "s1", "kicked")
    (event,) = search(owner, AuditQuery(kind="session.kicked")).events
    assert (event.actor, event.target, event.username) == (access.actor, "session:s1", "pump")


def test_a_session_of_another_organization_cannot_be_closed() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    connected(theirs, "s1")
    for session in ("s1", "", "s2"):
        with pytest.raises(NotFound):
            close_session(ours, session)
    assert [change for change in changes() if change.kind == "close"] == []
    assert search(ours, AuditQuery(kind="session.kicked")).events == ()

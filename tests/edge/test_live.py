"""What changes under live sessions: expiry, refresh, revocation, suspension, kicks, policies, claims, takeover."""

from __future__ import annotations

import time

import pytest

from cloudsignal.edge.codec import Kind, Will
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Quotas
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode
from cloudsignal.wire.report import Heartbeat, LiveSession
from cloudsignal.wire.sealed import unchecked
from tests.support.parts import ALLOW_ALL, early_in_a_minute, wait_for
from tests.support.rig import Rig
from tests.support.wire import ended

BOTH = pytest.mark.parametrize("version", [4, 5])


@BOTH
def test_a_session_ends_when_its_credential_expires(rig: Rig, version: int) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org, ttl=2), version=version)
    started = time.monotonic()
    packets = client.closed()
    assert time.monotonic() - started > 0.5
    if version == 5:
        assert packets == [(Kind.DISCONNECT, b"\x87\x15\x1f\0\x12credential expired")]
    event = rig.plane.event(org=org, kind="session_closed")
    assert event.reason == "expired"


def test_a_refresh_prolongs_the_live_session_and_the_first_secret_still_signs_in(rig: Rig) -> None:
    org = rig.org()
    first = rig.plane.issue(org, ttl=3)
    client = rig.client(first)
    rig.plane.issue(org, ttl=60)
    rig.client(first, client_id="again").disconnect()
    time.sleep(max(0.0, first.expires_at + 1.5 - time.time()))
    client.ping()


def test_the_list_of_live_sessions_says_the_end_that_a_refresh_gave_them(rig: Rig) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org, ttl=60))
    connect = rig.plane.event(org=org, kind="connect")

    def end() -> int:
        blob = rig.plane.redis.hget(keys.sessions("edge-1"), connect.session)
        return decode(blob, LiveSession).expires_at if isinstance(blob, bytes) else 0

    wait_for(end, what="the session on the list")
    later = rig.plane.issue(org, ttl=3_600)
    wait_for(lambda: end() == later.expires_at, what="the end that the refresh gave it")
    client.disconnect()


def test_a_spoilt_list_or_index_of_live_sessions_is_written_anew(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    client = rig.client(issued, client_id="one")
    first = rig.plane.event(org=org, kind="connect").session
    redis, listed, index = rig.plane.redis, keys.sessions("edge-1"), keys.live(org)
    wait_for(lambda: redis.hexists(index, first), what="the session in the index")
    for key in (listed, index):
        redis.delete(key)
        redis.set(key, "text")
    wait_for(lambda: redis.type(listed) == b"hash" and redis.hexists(listed, first), what="the list", seconds=20)
    wait_for(lambda: redis.type(index) == b"hash" and redis.hexists(index, first), what="the index")
    client.disconnect()


def test_a_refresh_that_is_revoked_prolongs_no_more(rig: Rig) -> None:
    """The session ends when its own secret does, not when somebody happens to look at it the next time."""
    org = rig.org()
    first = rig.plane.issue(org, ttl=5)
    later = rig.plane.issue(org, ttl=3_600)
    client = rig.client(first)
    rig.plane.revoke(later)
    client.closed(seconds=20)
    assert rig.plane.event(org=org, kind="session_closed").reason == "expired"


@BOTH
def test_a_revoked_secret_ends_its_session_and_no_other(rig: Rig, version: int) -> None:
    def revoked() -> float | None:
        """Seconds since the commit; nothing when an edge that reads everything anew came before the change."""
        org = rig.org()
        issued, other = rig.plane.issue(org), rig.plane.issue(org, "other")
        client, bystander = rig.client(issued, version=version), rig.client(other, version=version)
        rig.plane.revoke(issued)
        ended(client, 0x87)
        event = rig.plane.event(org=org, kind="session_closed")
        assert event.reason == "revoked"
        bystander.ping()
        seconds = event.details.get("seconds_since_commit")
        return None if seconds is None else float(seconds)

    seconds = revoked()
    if seconds is None:
        seconds = revoked()
    assert seconds is not None
    assert seconds >= 0


@BOTH
def test_a_revoked_session_leaves_no_will_behind(rig: Rig, version: int) -> None:
    org = rig.org()
    watcher = rig.client(rig.plane.issue(org, "watcher"))
    watcher.subscribe("wills/#")
    issued = rig.plane.issue(org, "goner")
    client = rig.client(issued, version=version, will=Will(b"wills/x", b"gone"))
    rig.plane.revoke(issued)
    ended(client, 0x87)
    watcher.nothing()


@BOTH
def test_a_lost_client_leaves_its_will_in_its_own_organization_only(rig: Rig, version: int) -> None:
    org, other = rig.org(), rig.org()
    watchers = [rig.client(rig.plane.issue(name, "watcher"), version=version) for name in (org, other)]
    for watcher in watchers:
        watcher.subscribe("#")
    client = rig.client(rig.plane.issue(org, "goner"), version=version, will=Will(b"wills/x", b"gone", qos=1))
    client.close()
    message = watchers[0].delivery()
    assert (message.topic, message.payload) == (b"wills/x", b"gone")
    watchers[1].nothing()
    assert rig.plane.event(org=org, kind="disconnect").reason == "lost"


@BOTH
def test_suspending_an_organization_ends_its_sessions_and_no_others(rig: Rig, version: int) -> None:
    org, other = rig.org(), rig.org()
    client, bystander = rig.client(rig.plane.issue(org), version=version), rig.client(rig.plane.issue(other))
    rig.plane.deploy(org, suspended=True)
    ended(client, 0x98)
    assert rig.plane.event(org=org, kind="session_closed").reason == "org_suspended"
    bystander.ping()


@BOTH
def test_a_kick_ends_the_one_session(rig: Rig, version: int) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    client, bystander = (
        rig.client(issued, version=version, client_id="a"),
        rig.client(issued, version=version, client_id="b"),
    )
    session = rig.plane.event(org=org, kind="connect", client_id="a").session
    rig.plane.announce(Change("close", rig.plane.new_org(), session=session))
    rig.plane.announce(Change("close", org, session=session, cause="kicked by a person"))
    ended(client, 0x98)
    event = rig.plane.event(org=org, kind="session_closed")
    assert (event.reason, event.details["asked"]) == ("kicked", "kicked by a person")
    bystander.ping()


@BOTH
def test_a_new_policy_stops_subscriptions_it_no_longer_grants_and_keeps_the_others(rig: Rig, version: int) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    client, sender = rig.client(issued, version=version), rig.client(rig.plane.issue(org, "sender"))
    client.subscribe("a/#", "b/#", qos=1)
    rig.plane.enforced(
        org,
        rig.plane.deploy(
            org, "version: '3'\nrules: [{id: s, who: sender, topic: '#'}, {id: b, topic: 'b/#', action: sub}]"
        ),
    )
    rig.plane.event(org=org, kind="acl_denied", action="subscribe", topic="a/#")
    sender.publish("a/1", b"no", qos=1)
    sender.publish("b/1", b"yes", qos=1)
    message = client.delivery()
    assert message.topic == b"b/1"
    client.nothing()
    assert client.publish("a/1", qos=1) == (0x87 if version == 5 else 0)


@BOTH
def test_a_new_policy_that_forbids_the_will_ends_the_session_and_drops_the_will(rig: Rig, version: int) -> None:
    org = rig.org()
    watcher = rig.client(rig.plane.issue(org, "watcher"))
    watcher.subscribe("will/#")
    client = rig.client(rig.plane.issue(org), version=version, will=Will(b"will/x", b"gone"))
    rig.plane.deploy(org, "version: '3'\nrules: [{id: w, topic: 'will/#', action: sub}]")
    ended(client, 0x98)
    assert rig.plane.event(org=org, kind="session_closed").reason == "will_denied"
    watcher.nothing()


def test_a_rule_that_expires_stops_deciding_without_any_deploy(rig: Rig) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    org = rig.org(f"version: '3'\nrules: [{{id: brief, topic: 'a/#', expires: {until}}}]")
    client = rig.client(rig.plane.issue(org))
    assert client.publish("a/1", qos=1) in {0, 0x10}
    time.sleep(3.1)
    assert client.publish("a/1", qos=1) == 0x87


@BOTH
def test_what_an_expired_rule_had_granted_ends_without_any_deploy(rig: Rig, version: int) -> None:
    """Deliveries stop at once; subscription and will end when the session is looked at, within a minute."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    org = rig.org(
        f"version: '3'\nrules: [{{id: brief, topic: 'a/#', expires: {until}}}, {{id: s, who: sender, topic: '#'}}]"
    )
    sender = rig.client(rig.plane.issue(org, "sender"))
    sender.subscribe("a/will")
    issued = rig.plane.issue(org)
    holder = rig.client(issued, version=version, client_id="holder", will=Will(b"a/will", b"gone"))
    reader = rig.client(issued, version=version, client_id="reader", keep_alive=1)
    assert reader.subscribe("a/#", qos=1) == [1]
    end = time.time() + 6
    while time.time() < end and not rig.plane.events(org=org, kind="acl_denied", action="subscribe"):
        reader.ping()
        time.sleep(0.3)
    assert rig.plane.event(org=org, kind="acl_denied", action="subscribe").client_id == "reader"
    ended(holder, 0x98)
    assert rig.plane.event(org=org, kind="session_closed", client_id="holder").reason == "will_denied"
    sender.publish("a/1", b"no", qos=1)
    reader.nothing()
    sender.nothing()
    assert not rig.plane.events(org=org, kind="acl_denied", action="receive"), "ended at the broker, not only held back"


def test_changed_claims_reach_the_live_session(rig: Rig) -> None:
    org = rig.org("version: '3'\nrules: [{id: site, topic: 'sites/{claims.site}/#'}]")
    issued = rig.plane.issue(org, claims={"site": "north"})
    client = rig.client(issued)
    assert client.subscribe("sites/north/#") == [0]
    assert client.publish("sites/north/x", qos=1) == 0
    client.delivery()
    rig.plane.change_claims(issued, {"site": "south"})
    rig.plane.event(org=org, kind="acl_denied", action="subscribe", topic="sites/north/#")
    assert client.publish("sites/north/x", qos=1) == 0x87
    assert client.publish("sites/south/x", qos=1) in {0, 0x10}


@BOTH
def test_the_same_client_id_again_ends_the_first_session(rig: Rig, version: int) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    first = rig.client(issued, version=version, client_id="one")
    second = rig.client(issued, version=version, client_id="one")
    ended(first, 0x8E)
    assert rig.plane.event(org=org, kind="session_closed").reason == "taken_over"
    second.ping()


def test_the_same_client_id_in_two_organizations_never_meets(rig: Rig) -> None:
    clients = [rig.client(rig.plane.issue(rig.org()), client_id="same") for _ in range(2)]
    for client in clients:
        client.subscribe("x", qos=1)
    clients[0].publish("x", b"first", qos=1)
    assert clients[0].delivery().payload == b"first"
    clients[1].nothing()
    clients[0].ping()


@BOTH
def test_a_silent_client_is_closed_after_one_and_a_half_keep_alives(rig: Rig, version: int) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org), version=version, keep_alive=1)
    started = time.monotonic()
    ended(client, 0x8D)
    assert time.monotonic() - started > 1.4
    assert rig.plane.event(org=org, kind="disconnect").reason == "keep_alive"


def test_a_client_that_is_only_ever_denied_is_not_taken_for_dead(rig: Rig) -> None:
    org = rig.org("version: '3'\nrules: []")
    client = rig.client(rig.plane.issue(org), keep_alive=1)
    for _ in range(8):
        time.sleep(0.4)
        client.send(client.message("no"))
    client.ping()


def test_deliveries_inside_the_holes_of_a_subscription_are_kept_back_at_every_qos(rig: Rig) -> None:
    policy = """
version: '3'
rules:
  - {id: hole, effect: deny, who: reader, topic: 'all/secret/#'}
  - {id: all, topic: 'all/#'}
"""
    org = rig.org(policy)
    sender = rig.client(rig.plane.issue(org, "sender"))
    for version in (4, 5):
        reader = rig.client(rig.plane.issue(org, "reader"), version=version, client_id=f"reader{version}")
        assert reader.subscribe("all/#", qos=2) == [2]
        # More than the broker's window of unacknowledged messages: the edge must acknowledge in the client's place.
        for qos in (0, 1, 2):
            for number in range(30):
                sender.publish("all/secret/x", b"hidden", qos=qos, packet_id=number + 1)
        sender.publish("all/open", b"shown", qos=2)
        assert reader.delivery().payload == b"shown"
        reader.nothing()
        reader.disconnect()
    denied = rig.plane.events(org=org, kind="acl_denied", action="receive")
    wait_for(
        lambda: sum(e.count for e in rig.plane.events(org=org, kind="acl_denied", action="receive")) == 180,
        what="180 counted denials",
    )
    assert {event.rule for event in denied} == {"hole"}


def test_denials_of_one_topic_are_one_fold_with_an_exact_sum_though_the_client_reconnects(rig: Rig) -> None:
    org = rig.org("version: '3'\nrules: []")
    issued = rig.plane.issue(org)
    for _ in range(5):
        client = rig.client(issued)
        for number in range(50):
            client.send(client.message("a", qos=1, packet_id=number + 1))
        for _ in range(50):
            client.expect(Kind.PUBACK)
        client.disconnect()
    wait_for(
        lambda: sum(event.count for event in rig.plane.events(org=org, kind="acl_denied")) == 250, what="a sum of 250"
    )
    found = rig.plane.events(org=org, kind="acl_denied")
    [first] = [event for event in found if not event.repeats]
    assert (first.count, {event.repeats for event in found}) == (1, {"", first.id})


def test_quotas_of_an_organization_bind_it_and_nobody_else(rig: Rig) -> None:
    quotas = Quotas(connections=2, messages_per_minute=5, packet_bytes=200, subscriptions_per_session=2)
    org, other = rig.org(quotas=quotas), rig.org()
    issued = rig.plane.issue(org)
    client = rig.client(issued, client_id="a")
    second = rig.client(issued, client_id="b", version=4)
    third = rig.dial()
    assert third.connect(version=5, username=issued.username, password=issued.password, client_id="c").code == 0x97
    assert rig.plane.event(org=org, kind="auth_failed").reason == "quota"
    assert client.subscribe("1", "2", "3") == [0, 0, 0x97]
    assert second.subscribe("1", "2", "3") == [0, 0, 0x80]
    early_in_a_minute()
    codes = [client.publish("t", qos=1, packet_id=n + 1) for n in range(8)]
    # 0x10: nobody subscribes. The edge does for a moment, when it counts what an organization retains.
    assert [code if code > 0x10 else 0 for code in codes] == [0] * 5 + [0x97] * 3
    event = rig.plane.event(org=org, kind="limit_reached", reason="messages_per_minute")
    assert event.session
    client.send(client.message("big", b"x" * 300))
    ended(client, 0x95)
    bystander = rig.client(rig.plane.issue(other))
    assert bystander.publish("t", b"x" * 300, qos=1) in {0, 0x10}


def test_a_node_lists_its_sessions_and_beats(rig: Rig) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org), client_id="listed")
    connect = rig.plane.event(org=org, kind="connect")

    def listed() -> LiveSession | None:
        blob = rig.plane.redis.hget(keys.sessions("edge-1"), connect.session)
        return decode(blob, LiveSession) if isinstance(blob, bytes) else None

    entry = wait_for(listed, what="the session on the list")
    assert (entry.org, entry.username, entry.client_id, entry.tls_version) == (org, "dev", "listed", "TLSv1.3")

    def sequence() -> int:
        blob = rig.plane.redis.get(keys.node("edge-1"))
        assert isinstance(blob, bytes)
        return decode(unchecked(blob), Heartbeat).sequence

    wait_for(lambda: sequence() > 0, what="a heartbeat that counts events")
    client.disconnect()
    wait_for(lambda: listed() is None, what="the session off the list")


def test_a_deploy_is_reported_once_and_a_repetition_changes_nothing(rig: Rig) -> None:
    org = rig.org()
    revision = rig.plane.deploy(org, ALLOW_ALL)
    rig.plane.enforced(org, revision)
    rig.plane.announce(Change("bundle", org))
    time.sleep(0.3)
    reports = [report for report in rig.plane.reports(org) if report.revision == revision]
    assert [report.status for report in reports] == ["enforcing"]
    assert reports[0].deployment == "dep_1"

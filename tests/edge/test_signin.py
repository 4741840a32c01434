"""Signing in: every refusal, its answer on the wire, its reason in the audit, and no telling by the clock."""

from __future__ import annotations

import time

import pytest

from cloudsignal.edge.codec import Connect, Kind, Properties, Will, encode_connect
from cloudsignal.edge.signin.check import SAME_WORK, Name, check, parse_name, session_end
from cloudsignal.wire import keys
from cloudsignal.wire.credential import Credential, Secret, make_secret, seal_credential, secret_mac
from tests.support.parts import PEPPER, Issued
from tests.support.rig import Rig
from tests.support.wire import ClosedError

BOTH = pytest.mark.parametrize("version", [4, 5])
ORG = "org_aaaaaaaaaaaa"


@pytest.mark.parametrize(
    "username",
    [None, "", "dev", "@", "dev@", "@" + ORG, "dev@org_short", "dev@ORG_AAAAAAAAAAAA", "a/b@" + ORG, "a\n@" + ORG],
)
def test_a_username_that_is_not_local_at_org_is_malformed(username: str | None) -> None:
    assert parse_name(username) is None


def test_the_local_part_may_contain_an_at_sign() -> None:
    assert parse_name("a@example.com@" + ORG) == Name("a@example.com", ORG)


def test_the_same_number_of_secrets_is_compared_whether_or_not_the_name_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(*arguments: object, **options: object) -> bytes:
        calls.append(1)
        return secret_mac(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("cloudsignal.edge.signin.check.secret_mac", counted)
    name = Name("dev", ORG)
    known = Credential(ORG, "dev", 1, (Secret("t", b"x" * 32, 0),))
    work = []
    for record in (None, known):
        calls.clear()
        check(record, pepper=PEPPER, name=name, password=b"tkn_wrong", now=0)
        work.append(len(calls))
    assert work == [SAME_WORK, SAME_WORK]


def test_a_refresh_prolongs_a_session_and_a_revocation_ends_it() -> None:
    a, b = Secret("a", b"", 100), Secret("b", b"", 200)
    assert session_end(Credential(ORG, "d", 1, (a,)), "a", now=0) == (100, None)
    assert session_end(Credential(ORG, "d", 1, (a, b)), "a", now=0) == (200, None)
    assert session_end(Credential(ORG, "d", 1, (a, Secret("s", b"", 0))), "a", now=0) == (0, None)
    revoked = Secret("a", b"", 100, revoked=True)
    assert session_end(Credential(ORG, "d", 1, (revoked, b)), "a", now=0)[1] == "revoked"
    assert session_end(Credential(ORG, "d", 1, (revoked, b)), "b", now=0) == (200, None)
    assert session_end(Credential(ORG, "d", 1, (b,), revoked=True), "b", now=0)[1] == "revoked"


def refused(rig: Rig, version: int, username: str | None, password: str | None, **options: object) -> int:
    wire = rig.dial()
    code = wire.connect(version=version, username=username, password=password, **options).code  # type: ignore[arg-type]
    wire.closed()
    return code


@BOTH
def test_each_refusal_has_its_code_and_its_reason(rig: Rig, version: int) -> None:
    five = version == 5
    org, other = rig.org(), rig.org()
    plane = rig.plane
    good = plane.issue(org, "good")
    elsewhere = plane.issue(other, "good")
    expired = plane.issue(org, "expired", ttl=-5)
    revoked = plane.issue(org, "revoked")
    plane.revoke(revoked)
    stranger = make_secret(PEPPER, org)
    cases = [
        ("good", "tkn_wrong", 0x86, 4, "bad_secret"),
        ("good", None, 0x86, 4, "bad_secret"),
        ("nobody", stranger, 0x86, 4, "unknown"),
        ("expired", expired.password, 0x87, 5, "expired"),
        ("revoked", revoked.password, 0x87, 5, "revoked"),
        ("good", elsewhere.password, 0x87, 5, "wrong_org"),
        ("stranger", elsewhere.password, 0x87, 5, "wrong_org"),
    ]
    for index, (local, password, code5, code3, reason) in enumerate(cases):
        client_id = f"case{index}"
        code = refused(rig, version, f"{local}@{org}", password, client_id=client_id)
        assert code == (code5 if five else code3), reason
        event = plane.event(org=org, kind="auth_failed", client_id=client_id)
        assert (event.reason, event.username) == (reason, local)
        assert event.mqtt_version == ("5" if five else "3.1.1")
        assert event.tls_cipher.startswith("TLS_")
    assert rig.client(good, version=version).connect is not None


@BOTH
def test_malformed_names_and_unknown_organizations_are_the_platforms_affair(rig: Rig, version: int) -> None:
    unknown = rig.plane.new_org()
    for username, reason in (("nonsense", "malformed"), (None, "malformed"), (f"dev@{unknown}", "unknown")):
        client_id = f"p-{version}-{reason}-{username and len(username)}"
        password = "x" if username else None
        assert refused(rig, version, username, password, client_id=client_id) == (0x86 if version == 5 else 4)
        event = rig.plane.event(kind="auth_failed", client_id=client_id)
        assert (event.org, event.reason) == ("", reason)


@BOTH
def test_a_suspended_organization_and_one_without_a_policy_are_refused(rig: Rig, version: int) -> None:
    suspended = rig.org(suspended=True)
    issued = rig.plane.issue(suspended)
    assert refused(rig, version, issued.username, issued.password) == (0x88 if version == 5 else 3)
    assert rig.plane.event(org=suspended, kind="auth_failed").reason == "org_suspended"
    bare = rig.plane.new_org()
    issued = rig.plane.issue(bare)
    assert refused(rig, version, issued.username, issued.password) == (0x88 if version == 5 else 3)
    assert rig.plane.event(org=bare, kind="auth_failed").reason == "no_policy"


def test_whoever_hangs_up_before_a_refusal_is_told_has_failed_all_the_same(rig: Rig) -> None:
    """A success comes at once: who waits no longer than one takes could guess secrets and leave no trace."""
    org = rig.org()
    issued = rig.plane.issue(org)
    impatient = rig.dial()
    impatient.send(encode_connect(Connect(5, "impatient", True, 60, issued.username, b"tkn_wrong")))
    impatient.close()
    event = rig.plane.event(org=org, kind="auth_failed", client_id="impatient")
    assert (event.reason, event.username) == ("bad_secret", "dev")


def test_nothing_can_be_told_from_the_time_a_refusal_takes(rig: Rig) -> None:
    org, other = rig.org(), rig.org()
    rig.plane.issue(org, "good")
    foreign = rig.plane.issue(other, "good")
    attempts = {
        "unknown": (f"nobody@{org}", "tkn_" + "a" * 34),
        "bad_secret": (f"good@{org}", "tkn_" + "a" * 34),
        "malformed": ("nonsense", "x"),
        "no such org": (f"good@{rig.plane.new_org()}", "x"),
        "wrong_org": (f"good@{org}", foreign.password),
    }
    times: dict[str, list[float]] = {name: [] for name in attempts}
    for _ in range(5):
        for name, (username, password) in attempts.items():
            wire = rig.dial()
            started = time.perf_counter()
            wire.connect(version=5, username=username, password=password)
            times[name].append(time.perf_counter() - started)
    # The quickest of each kind: a busy machine delays some. Refusals take whole quarters of a second, so that one which
    # took longer on its way would differ by a quarter.
    quickest = [min(values) for values in times.values()]
    assert min(quickest) >= 0.24
    assert max(quickest) - min(quickest) < 0.12, times


def test_a_static_credential_does_not_expire(rig: Rig) -> None:
    org = rig.org()
    client = rig.client(rig.plane.issue(org, ttl=0))
    client.ping()


def test_an_empty_client_id_is_assigned_without_the_prefix(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    wire = rig.dial()
    answer = wire.connect(version=5, username=issued.username, password=issued.password)
    assigned = next(value for name, value in answer.properties if name == 18)
    assert isinstance(assigned, bytes)
    assert assigned.startswith(b"auto-")
    assert org.encode() not in assigned
    event = rig.plane.event(org=org, kind="connect")
    assert event.client_id == assigned.decode()


@BOTH
def test_a_client_id_belongs_to_the_username_that_holds_its_session(rig: Rig, version: int) -> None:
    org = rig.org()
    alice, bob = rig.plane.issue(org, "alice"), rig.plane.issue(org, "bob")
    first = rig.client(alice, version=version, client_id="shared")
    code = refused(rig, version, bob.username, bob.password, client_id="shared")
    assert code == (0x85 if version == 5 else 2)
    assert rig.plane.event(org=org, kind="auth_failed").reason == "client_id_taken"
    first.ping()
    first.disconnect()
    rig.plane.event(org=org, kind="disconnect")
    time.sleep(0.1)
    rig.client(bob, version=version, client_id="shared").disconnect()


@BOTH
def test_a_client_id_stays_with_its_username_while_the_broker_keeps_the_session(rig: Rig, version: int) -> None:
    org = rig.org()
    alice, bob = rig.plane.issue(org, "alice"), rig.plane.issue(org, "bob")
    options: dict[str, object] = {"client_id": "stored", "clean": False}
    if version == 5:
        options["properties"] = [(17, 600)]
    rig.client(alice, version=version, **options).disconnect()
    rig.plane.event(org=org, kind="disconnect")
    time.sleep(0.1)
    assert refused(rig, version, bob.username, bob.password, client_id="stored") == (0x85 if version == 5 else 2)
    again = rig.dial()
    answer = again.connect(version=version, username=alice.username, password=alice.password, **options)  # type: ignore[arg-type]
    assert answer.session_present
    ttl = rig.plane.redis.ttl(keys.client(org, "stored"))
    assert isinstance(ttl, int)
    assert ttl > 0


@BOTH
def test_a_will_the_policy_forbids_refuses_the_login_and_names_the_topic(rig: Rig, version: int) -> None:
    org = rig.org("version: '3'\nrules: [{id: ok, topic: 'ok/#'}]")
    issued = rig.plane.issue(org)
    will = Will(b"secret/last", b"bye")
    code = refused(rig, version, issued.username, issued.password, will=will)
    assert code == (0x87 if version == 5 else 5)
    assert rig.plane.event(org=org, kind="auth_failed").reason == "will_denied"
    denied = rig.plane.event(org=org, kind="acl_denied")
    assert (denied.action, denied.topic, denied.rule) == ("will", "secret/last", "none")


def test_versions_before_3_1_1_and_after_5_are_refused_by_name(rig: Rig) -> None:
    for head, answer in (
        (b"\0\6MQIsdp\3", b"\x20\x02\0\x01"),
        (b"\0\4MQTT\3", b"\x20\x02\0\x01"),
        (b"\0\4MQTT\6", b"\x20\x03\0\x84\0"),
    ):
        wire = rig.dial()
        body = head + b"\2\0\x3c" + b"\0\1a"
        wire.send(bytes([Kind.CONNECT, len(body)]) + body)
        assert [bytes([f, len(b)]) + b for f, b in wire.closed()] == [answer]


def test_a_sealed_record_moved_to_another_name_or_organization_signs_nobody_in(rig: Rig) -> None:
    org, other = rig.org(), rig.org()
    issued = rig.plane.issue(org, "alice")
    blob = seal_credential(rig.plane.records[org, "alice"], PEPPER)
    rig.plane.store_credential(org, "bob", blob)
    rig.plane.store_credential(other, "alice", blob)
    assert refused(rig, 5, f"bob@{org}", issued.password) == 0x86
    assert refused(rig, 5, f"alice@{other}", issued.password) == 0x87
    assert rig.plane.event(org=org, kind="policy_refused", username="bob").reason.endswith("another name")
    assert rig.plane.event(org=other, kind="auth_failed").reason == "wrong_org"


def test_an_older_record_put_back_after_a_revocation_signs_nobody_in(rig: Rig) -> None:
    org = rig.org()
    issued = rig.plane.issue(org)
    old = seal_credential(rig.plane.records[org, "dev"], PEPPER)
    client = rig.client(issued)
    rig.plane.revoke(issued)
    assert [first for first, _ in client.closed()] == [Kind.DISCONNECT]
    rig.plane.store_credential(org, "dev", old)
    # Nothing is announced: whoever put it back would rather not. A name not in memory makes the edge read it anew.
    rig.plane.announce_quietly(org, "dev")
    assert refused(rig, 5, issued.username, issued.password) in {0x86, 0x87}
    assert not rig.plane.events(org=org, kind="connect")[1:]
    rig.plane.event(org=org, kind="policy_refused", username="dev")


def test_editing_any_part_of_a_record_signs_nobody_in(rig: Rig) -> None:
    org = rig.org()
    ended = int(time.time()) - 5
    mac = secret_mac(PEPPER, org=org, username="dev", secret="pw", expires_at=ended)
    blob = seal_credential(Credential(org, "dev", 1, (Secret("token", mac, ended),)), PEPPER)
    later = blob.replace(ended.to_bytes(4, "big"), (ended + 3600).to_bytes(4, "big"))
    assert later != blob
    rig.plane.store_credential(org, "dev", later)
    forged = Credential(org, "eve", 1, (Secret("t", b"m" * 32, 0),))
    rig.plane.store_credential(org, "eve", seal_credential(forged, b"q" * 32))
    assert refused(rig, 5, f"dev@{org}", "pw") == 0x86
    assert refused(rig, 5, f"eve@{org}", "anything") == 0x86
    reasons = {event.reason for event in rig.plane.events(org=org, kind="auth_failed")}
    assert reasons == {"unknown"}


def test_the_answer_to_a_garbage_password_is_bad_secret(rig: Rig) -> None:
    org = rig.org()
    issued: Issued = rig.plane.issue(org)
    wire = rig.dial()
    wire.version = 5
    wire.send(encode_connect(Connect(5, "g", True, 0, issued.username, b"\xff\xfe\0", None, Properties())))
    assert wire.connack().code == 0x86


def test_a_connection_that_never_says_connect_is_closed(rig: Rig) -> None:
    wire = rig.dial()
    with pytest.raises((ClosedError, TimeoutError)):
        wire.receive(seconds=0.2)
    wire.closed(seconds=14)


@BOTH
@pytest.mark.parametrize("known", [True, False])
def test_a_username_with_what_awscrt_appends_is_told_so(rig: Rig, version: int, known: bool) -> None:
    org = rig.org() if known else rig.plane.new_org()
    issued = rig.plane.issue(org, "dev")
    presented = f"{issued.username}?SDK=PythonV2&Version=1.22.0"
    client_id = f"aws-{version}-{known}"
    assert refused(rig, version, presented, issued.password, client_id=client_id) == (0x86 if version == 5 else 4)
    event = rig.plane.event(kind="auth_failed", client_id=client_id)
    assert (event.org, event.username, event.reason) == (org if known else "", "dev", "malformed")
    assert "turn their metrics off" in str(event.details["text"])

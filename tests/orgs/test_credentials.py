"""Credentials: issue, refresh, revoke; bounds, roles, other tenants; and that no secret stays behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

from audit.access import AuditQuery, search
from cloudsignal.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from cloudsignal.models import OutboxRow
from cloudsignal.redis import client
from cloudsignal.secrets.keyring import pepper
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode
from cloudsignal.wire.credential import Credential as Record
from cloudsignal.wire.credential import open_credential, secret_mac
from orgs.access.grants import Access
from orgs.credentials import identities
from orgs.credentials.identities import revoke_everything
from orgs.credentials.issuing import (
    External,
    check_secret,
    issue_credential,
    refresh_credential,
    revoke_credential,
    revoke_identity,
)
from orgs.credentials.reads import credential_counts, get_credential, list_credentials, list_identities
from orgs.models import Credential, MqttIdentity
from orgs.permissions import Role
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db


@pytest.fixture
def access() -> Access:
    return organization()


def stored(access: Access, username: str) -> Record:
    """The record an edge would read."""
    blob = client().hget(keys.credential(access.org_id, username), "b")
    assert isinstance(blob, bytes)
    return open_credential(blob, pepper(), org=access.org_id, username=username)


def age(token_id: str, seconds: int) -> None:
    with platform_scope():
        for row in Credential.objects.filter(token_id=token_id):
            assert row.expires_at is not None
            row.expires_at -= timedelta(seconds=seconds)
            row.issued_at -= timedelta(seconds=seconds)
            row.save()


# --- issue -----------------------------------------------------------------------------------------------------------


def test_a_credential_is_short_lived_opaque_and_on_redis_when_the_answer_goes_out(
    access: Access, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        issued = issue_credential(access)
    assert issued.username == f"{issued.local}@{access.org_id}"
    assert issued.password.startswith("tkn_")
    assert (issued.expires_in, issued.static) == (3600, False)
    assert issued.refresh_recommended_at == issued.issued_at + timedelta(seconds=3240)
    record = stored(access, issued.local)
    expires = int(issued.expires_at.timestamp()) if issued.expires_at else 0
    (secret,) = record.secrets
    assert (secret.token_id, secret.expires_at, secret.revoked) == (issued.token_id, expires, False)
    assert secret.mac == secret_mac(
        pepper(), org=access.org_id, username=issued.local, secret=issued.password, expires_at=expires
    )
    ((_, entry),) = client().xrange(keys.CHANGES)  # type: ignore[misc,union-attr]
    change = decode(entry[b"b"], Change)
    assert (change.kind, change.org, change.username) == ("credential", access.org_id, issued.local)
    assert abs(change.committed_at - datetime.now(UTC).timestamp()) < 10
    with platform_scope():
        assert not OutboxRow.objects.filter(task="orgs.tasks.push_credential").exists()


def test_when_redis_is_away_the_row_waits_for_a_worker(
    access: Access,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    from redis import Redis

    nowhere = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    monkeypatch.setattr("orgs.tasks.fast_client", lambda: nowhere)
    monkeypatch.setattr("cloudsignal.outbox._send", lambda task, payload: (_ for _ in ()).throw(OSError("away")))
    with django_capture_on_commit_callbacks(execute=True):
        issued = issue_credential(access)
    with platform_scope():
        row = OutboxRow.objects.get(task="orgs.tasks.push_credential")
    assert row.payload == {"org": access.org_id, "username": issued.local}
    assert "unavailable" in row.last_error


@pytest.mark.parametrize("ttl", [60, 86_400])
def test_the_bounds_of_the_ttl_are_inclusive(access: Access, ttl: int) -> None:
    assert issue_credential(access, ttl=ttl).expires_in == ttl


@pytest.mark.parametrize("ttl", [59, 86_401, 0, -1, 10**12, True, 60.5, "60"])
def test_any_other_ttl_is_refused(access: Access, ttl: int) -> None:
    with pytest.raises(Invalid) as refused:
        issue_credential(access, ttl=ttl)
    assert (refused.value.code, refused.value.field) == ("bad_ttl", "ttl")
    assert credential_counts(access).identities == 0


@pytest.mark.parametrize("name", ["a", "7", "press-line-4", "x" * 63, "a_b-c"])
def test_a_static_credential_has_a_name_and_does_not_expire(access: Access, name: str) -> None:
    issued = issue_credential(access, username=name, static=True, note="line 4")
    assert (issued.username, issued.expires_at, issued.expires_in) == (f"{name}@{access.org_id}", None, None)
    row = get_credential(access, issued.token_id)
    assert (row.state, row.identity.static, row.identity.note) == ("static", True, "line 4")


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "ä", "a@b", "a/b", "a+", "x" * 64, "a\n", "a b", "a\0"])
def test_a_bad_name_is_refused(access: Access, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        issue_credential(access, username=name, static=True)
    assert refused.value.field == "username"


def test_a_static_credential_without_a_name_is_refused(access: Access) -> None:
    with pytest.raises(Invalid, match="needs a name"):
        issue_credential(access, static=True)


def test_asking_again_for_the_same_person_reissues_on_the_same_username_and_keeps_claims(access: Access) -> None:
    ada = External("integration", "ada@example.com", "ada@example.com")
    first = issue_credential(access, external=ada, claims={"email": "ada@example.com", "team": ["a", "b"]})
    second = issue_credential(access, external=ada, claims={"shift": 2})
    assert (second.local, second.email, second.provider) == (first.local, "ada@example.com", "integration")
    assert second.password != first.password
    with org_scope(access.org_id):
        claims = MqttIdentity.objects.get(username=first.local).claims
    assert claims == {"email": "ada@example.com", "team": ["a", "b"], "shift": 2}
    other = issue_credential(access, external=External("other", "ada@example.com"))
    assert other.local != first.local


def test_replacing_revokes_the_others(access: Access) -> None:
    first = issue_credential(access, username="pump")
    second = issue_credential(access, username="pump", replace_existing=True)
    assert get_credential(access, first.token_id).state == "revoked"
    assert get_credential(access, second.token_id).state == "active"


@pytest.mark.parametrize(
    "claims",
    [
        {"": "x"},
        {"a b": "x"},
        {"a": None},
        {"a": {"b": 1}},
        {"a": [1]},
        {"a": "x" * 1025},
        {"a": "nul\0"},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**60},
        {"a": "\ud800"},
        {f"c{n}": 1 for n in range(51)},
        {"a": ["x"] * 51},
    ],
)
def test_bad_claims_are_refused(access: Access, claims: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refused:
        issue_credential(access, claims=claims)  # type: ignore[arg-type]
    assert refused.value.field == "claims"
    assert credential_counts(access).identities == 0


# --- refresh ---------------------------------------------------------------------------------------------------------


def test_a_refresh_adds_a_secret_and_leaves_the_earlier_valid_until_its_own_end(access: Access) -> None:
    first = issue_credential(access, ttl=600, claims={"team": "a"})
    second = refresh_credential(access, first.token_id)
    assert (second.local, second.expires_in) == (first.local, 600)
    assert get_credential(access, first.token_id).state == "active"
    assert check_secret(access.org, first.token_id, first.password).token_id == first.token_id
    assert check_secret(access.org, second.token_id, second.password).refreshed_from == first.token_id
    third = refresh_credential(access, second.token_id)
    age(second.token_id, 601)
    assert get_credential(access, second.token_id).state == "expired"
    assert get_credential(access, third.token_id).state == "active"


def test_what_is_expired_revoked_or_static_is_not_refreshed(access: Access) -> None:
    expired, revoked = issue_credential(access, ttl=60), issue_credential(access)
    static = issue_credential(access, username="pump", static=True)
    age(expired.token_id, 61)
    revoke_credential(access, revoked.token_id)
    for token, code in (
        (expired, "credential_expired"),
        (revoked, "credential_revoked"),
        (static, "credential_static"),
    ):
        with pytest.raises(Conflict) as refused:
            refresh_credential(access, token.token_id)
        assert refused.value.code == code


def test_a_wrong_secret_fits_no_token(access: Access) -> None:
    issued, other = issue_credential(access), issue_credential(access)
    for token_id, secret in (
        (issued.token_id, other.password),
        (issued.token_id, ""),
        ("tok_nothing", issued.password),
        (issued.token_id, issued.password + "x"),
    ):
        with pytest.raises(Unauthenticated):
            check_secret(access.org, token_id, secret)
    with pytest.raises(Unauthenticated):
        check_secret(organization().org, issued.token_id, issued.password)
    assert check_secret(access.org, issued.token_id, issued.password).identity.username == issued.local


# --- revoke ----------------------------------------------------------------------------------------------------------


def test_revoking_reaches_the_record_and_is_done_once(
    access: Access, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        issued = issue_credential(access, username="pump")
        kept = issue_credential(access, username="pump")
        revoke_credential(access, issued.token_id)
    record = stored(access, "pump")
    assert {secret.token_id: secret.revoked for secret in record.secrets} == {
        issued.token_id: True,
        kept.token_id: False,
    }
    revision = record.revision
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        assert revoke_credential(access, issued.token_id).state == "revoked"
    assert callbacks == []
    assert stored(access, "pump").revision == revision
    assert len(search(access, AuditQuery(kind="credential.revoked")).events) == 1


def test_revoking_many_tells_the_edges_of_all_at_once(
    access: Access,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    """One after the other the last of five hundred would be cut off seconds after the first."""
    with django_capture_on_commit_callbacks(execute=True):
        for number in range(30):
            issue_credential(access, username=f"sensor-{number}")
    before = client().xlen(keys.CHANGES)
    with django_capture_on_commit_callbacks(execute=True) as callbacks, django_assert_max_num_queries(30):
        ended = revoke_everything(access)
    assert (ended.identities, ended.credentials) == (30, 30)
    assert len(callbacks) == 2  # one push, and one order to discard what they have stored
    assert client().xlen(keys.CHANGES) - before == 30
    for number in range(30):
        record = stored(access, f"sensor-{number}")
        assert record.revision == 2
        assert all(secret.revoked for secret in record.secrets)
    with platform_scope():
        assert OutboxRow.objects.filter(task="orgs.tasks.push_batch").count() == 0


def test_what_many_revocations_have_ended_is_audited_however_far_they_came(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "BATCH", 2)
    for number in range(5):
        issue_credential(access, username=f"sensor-{number}")
    tell, batches = identities.tell_edges_of_many, iter([None, None, RuntimeError("killed")])

    def told(locked: Sequence[MqttIdentity]) -> None:
        if error := next(batches, None):
            raise error
        tell(locked)

    with monkeypatch.context() as patch:
        patch.setattr(identities, "tell_edges_of_many", told)
        with pytest.raises(RuntimeError):
            revoke_everything(access)
    assert credential_counts(access).active == 1
    revoke_everything(access)
    found = search(access, AuditQuery(kind="credential.revoked")).events
    assert [(event.after or {})["credentials"] for event in found] == [1, 2, 2]


def test_what_a_new_credential_changes_besides_is_audited_too(access: Access) -> None:
    """Claims decide what a client may do, and replacing closes sessions: neither may hide behind an issued secret."""
    issue_credential(access, username="pump", claims={"room": "hall"})
    [issued] = search(access, AuditQuery(kind="credential.issued")).events
    assert (issued.after or {})["claims"] == {"room": "hall"}
    issue_credential(access, username="pump", claims={"room": "hall"})
    kinds = "claims.changed,credential.revoked"
    assert search(access, AuditQuery(kind=kinds)).events == ()
    issue_credential(access, username="pump", claims={"room": "lab"}, replace_existing=True)
    revoked, changed = search(access, AuditQuery(kind=kinds)).events
    assert (changed.before, changed.after) == ({"claims": {"room": "hall"}}, {"claims": {"room": "lab"}})
    assert (revoked.username, revoked.after) == ("pump", {"revoked": True, "credentials": 2})


def test_revoking_a_name_ends_all_of_it_and_a_new_credential_brings_back_only_itself(
    access: Access, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        old = [issue_credential(access, username="pump"), issue_credential(access, username="pump", static=True)]
        revoke_identity(access, "pump")
    record = stored(access, "pump")
    assert record.revoked
    assert all(secret.revoked for secret in record.secrets)
    assert credential_counts(access).active == 0
    with django_capture_on_commit_callbacks(execute=True):
        new = issue_credential(access, username="pump")
    record = stored(access, "pump")
    assert not record.revoked
    assert {secret.token_id for secret in record.secrets if not secret.revoked} == {new.token_id}
    assert {get_credential(access, issued.token_id).state for issued in old} == {"revoked"}


def test_the_bound_of_a_record_cuts_away_nothing_that_still_signs_in(
    access: Access, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orgs.credentials.push.SECRETS_MAX", 4)
    static = issue_credential(access, username="pump", static=True)
    live = issue_credential(access, username="pump")
    for _ in range(6):
        revoke_credential(access, issue_credential(access, username="pump").token_id)
    with django_capture_on_commit_callbacks(execute=True):
        newest = issue_credential(access, username="pump")
    secrets = stored(access, "pump").secrets
    assert len(secrets) == 4
    assert {secret.token_id for secret in secrets if not secret.revoked} == {
        static.token_id,
        live.token_id,
        newest.token_id,
    }


# --- roles and tenants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_owner_admin_and_developer_issue_and_revoke_the_others_do_not(role: Role) -> None:
    owner = organization()
    access = member(owner.org, role)
    existing = issue_credential(owner, username="pump")
    if role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}:
        issued = issue_credential(access)
        assert revoke_credential(access, issued.token_id).state == "revoked"
        assert revoke_identity(access, "pump").revoked_at is not None
    else:
        for attempt in (
            lambda: issue_credential(access),
            lambda: revoke_credential(access, existing.token_id),
            lambda: revoke_identity(access, "pump"),
        ):
            with pytest.raises(Forbidden):
                attempt()
        assert get_credential(owner, existing.token_id).state == "active"
    assert existing.token_id in {row.token_id for row in list_credentials(access).rows}


def test_another_organization_has_no_such_credential(access: Access) -> None:
    issued = issue_credential(access, username="pump")
    other = organization("Other")
    for attempt in (
        lambda: get_credential(other, issued.token_id),
        lambda: revoke_credential(other, issued.token_id),
        lambda: refresh_credential(other, issued.token_id),
        lambda: revoke_identity(other, "pump"),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert list_credentials(other).rows == ()
    assert list_identities(other).rows == ()
    assert get_credential(access, issued.token_id).state == "active"


# --- lists -----------------------------------------------------------------------------------------------------------


def test_the_list_pages_by_key_and_filters_by_state_and_name(access: Access) -> None:
    issued = [issue_credential(access, username=f"pump-{n}") for n in range(5)]
    static = issue_credential(access, username="press", static=True)
    revoke_credential(access, issued[0].token_id)
    age(issued[1].token_id, 3601)
    seen, cursor = [], ""
    while True:
        page = list_credentials(access, cursor=cursor, limit=2)
        seen += [row.token_id for row in page.rows]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert sorted(seen) == sorted([*(one.token_id for one in issued), static.token_id])
    assert len(set(seen)) == len(seen)

    def tokens(**filters: str) -> set[str]:
        return {row.token_id for row in list_credentials(access, **filters).rows}  # type: ignore[arg-type]

    assert tokens(state="revoked") == {issued[0].token_id}
    assert tokens(state="expired") == {issued[1].token_id}
    assert tokens(state="static") == {static.token_id}
    assert tokens(state="active") == {*(one.token_id for one in issued[2:]), static.token_id}
    assert tokens(username="pump-") == {one.token_id for one in issued}
    for filters in ({"state": "odd"}, {"cursor": "x"}, {"cursor": "1-"}, {"cursor": "9" * 40 + "-1"}):
        with pytest.raises(Invalid):
            tokens(**filters)


def test_identities_are_listed_by_name_with_their_live_secrets(access: Access) -> None:
    for name in ("b", "a", "c"):
        issue_credential(access, username=name)
    issue_credential(access, username="a")
    revoke_identity(access, "c")
    rows = list_identities(access).rows
    assert [(row.identity.username, row.active) for row in rows] == [("a", 2), ("b", 1), ("c", 0)]
    first = list_identities(access, limit=1)
    assert first.next_cursor == "a"
    rest = list_identities(access, cursor="a").rows
    assert [row.identity.username for row in rest] == ["b", "c"]
    assert [row.identity.username for row in list_identities(access, search="b").rows] == ["b"]


def test_the_counts_at_the_head_of_the_page(access: Access) -> None:
    issue_credential(access, ttl=60)
    issue_credential(access, ttl=86_400)
    issue_credential(access, username="pump", static=True)
    revoke_credential(access, issue_credential(access).token_id)
    counts = credential_counts(access)
    assert (counts.active, counts.static, counts.ends_in_hour, counts.ends_in_day) == (3, 1, 1, 2)


# --- secrecy ---------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_the_database_on_redis_or_in_the_log(
    access: Access,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("DEBUG"), django_capture_on_commit_callbacks(execute=True):
        issued = [issue_credential(access), issue_credential(access, username="pump", static=True)]
        issued.append(refresh_credential(access, issued[0].token_id))
        revoke_identity(access, "pump")
    secrets = [one.password for one in issued]
    found = caplog.text
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT relispartition AND relname NOT IN ('django_migrations', 'orgs_deletion')"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t")  # noqa: S608
            found += cursor.fetchone()[0]
    redis = client()
    for key in redis.scan_iter():
        found += repr(redis.dump(key))
    assert access.org_id in found
    assert issued[0].token_id in found
    for secret in secrets:
        assert secret not in found
        assert secret.removeprefix("tkn_")[:20] not in found


def test_what_expired_a_week_ago_is_deleted(access: Access) -> None:
    from orgs.tasks import expire_credentials

    old, recent = issue_credential(access), issue_credential(access)
    static = issue_credential(access, username="pump", static=True)
    age(old.token_id, 8 * 86_400)
    age(recent.token_id, 86_400)
    assert expire_credentials() == 1
    left = {row.token_id for row in list_credentials(access).rows}
    assert left == {recent.token_id, static.token_id}


def test_redis_forgets_an_expired_record_in_time_and_keeps_a_static_one(
    access: Access, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        issued = issue_credential(access, ttl=60)
        issue_credential(access, username="pump", static=True)
    left = client().ttl(keys.credential(access.org_id, issued.local))
    assert 7 * 86_400 <= int(left) <= 7 * 86_400 + 61  # type: ignore[arg-type]
    assert client().ttl(keys.credential(access.org_id, "pump")) == -1

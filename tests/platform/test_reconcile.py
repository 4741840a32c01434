"""Redis emptied, restarted or left behind: everything comes back by itself."""

from __future__ import annotations

import time

import pytest
from django.conf import settings
from redis import Redis

from acl.models import Deployment
from acl.services.deployments import deploy
from acl.services.drafts import save_draft
from acl.tasks import push_bundle
from cloudsignal.redis import client
from cloudsignal.secrets.keyring import pepper, signing_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import open_bundle
from cloudsignal.wire.credential import open_credential
from cloudsignal.wire.heads import SLACK, Heads, open_heads
from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential, revoke_identity
from orgs.credentials.reconcile import LOCK, MARK
from orgs.models import Credential, MqttIdentity, Organization
from orgs.tasks import push_credential, reconcile
from tests.support.world import organization

pytestmark = pytest.mark.django_db


@pytest.fixture
def redis() -> Redis:
    return client()


def state(redis: Redis) -> dict[bytes, dict[bytes, bytes]]:
    found = [*redis.scan_iter(match=keys.BUNDLE_PATTERN), *redis.scan_iter(match="cs1:cred:*")]
    return {key: redis.hgetall(key) for key in found}  # type: ignore[misc]


def test_an_emptied_redis_fills_itself_with_exactly_what_was_there(redis: Redis) -> None:
    one, two = organization("One"), organization("Two")
    issue_credential(one, username="pump", static=True)
    issue_credential(one, username="press")
    issue_credential(two, username="pump", claims={"team": "red"})
    revoke_identity(one, "press")
    assert reconcile() == 5
    before = state(redis)
    assert len(before) == 5
    redis.flushall()
    assert reconcile() == 5
    assert state(redis) == before
    assert reconcile() == 0
    blob = redis.hget(keys.credential(two.org_id, "pump"), "b")
    assert isinstance(blob, bytes)
    assert open_credential(blob, pepper(), org=two.org_id, username="pump").claims == {"team": "red"}
    blob = redis.hget(keys.bundle(one.org_id), "b")
    assert isinstance(blob, bytes)
    assert open_bundle(blob, signing_key().public_key(), org=one.org_id).revision == 1


def test_a_bundle_left_behind_is_brought_up_to_date(redis: Redis) -> None:
    access = organization()
    push_bundle(access.org_id)
    save_draft(access, text='version: "3"\nrules: [{topic: a}]\n')
    deploy(access)
    assert redis.hget(keys.bundle(access.org_id), "rev") == b"1"
    assert reconcile() == 1
    assert redis.hget(keys.bundle(access.org_id), "rev") == b"2"


def test_credentials_are_compared_when_redis_was_restarted_and_now_and_then(redis: Redis) -> None:
    access = organization()
    issue_credential(access, username="pump")
    reconcile()
    name = keys.credential(access.org_id, "pump")
    with platform_scope():
        MqttIdentity.objects.update(revised_at="2020-01-01T00:00:00Z")
    redis.delete(name)
    assert reconcile() == 0  # nothing has changed since all were compared a moment ago
    redis.hset(MARK, "run_id", "another process")
    assert reconcile() == 1
    redis.delete(name)
    redis.hset(MARK, "at", 0)
    assert reconcile() == 1


def test_a_revocation_whose_push_failed_arrives_with_the_next_comparison(redis: Redis) -> None:
    access = organization()
    issue_credential(access, username="pump")
    reconcile()
    revoke_identity(access, "pump")  # and both the push and its task are lost
    assert reconcile() == 1
    blob = redis.hget(keys.credential(access.org_id, "pump"), "b")
    assert isinstance(blob, bytes)
    assert open_credential(blob, pepper(), org=access.org_id, username="pump").revoked


def test_one_worker_compares_credentials_at_a_time(redis: Redis) -> None:
    access = organization()
    issue_credential(access, username="pump")
    redis.set(LOCK, "1", ex=60)
    assert reconcile() == 1  # the bundle alone
    redis.delete(LOCK)
    assert reconcile() == 1
    assert not redis.exists(LOCK)


@pytest.mark.parametrize("value", ["x", "nan", "-1", "9" * 40])
def test_a_spoilt_mark_stops_nothing(redis: Redis, value: str) -> None:
    access = organization()
    issue_credential(access, username="pump")
    reconcile()
    redis.hset(MARK, "at", value)
    redis.delete(keys.credential(access.org_id, "pump"))
    assert reconcile() == 1


def test_what_nobody_can_sign_in_with_any_more_is_not_brought_back(redis: Redis) -> None:
    access = organization()
    issue_credential(access, username="pump")
    with platform_scope():
        Credential.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert reconcile() == 1  # the bundle alone
    assert state(redis).keys() == {keys.bundle(access.org_id).encode()}


def test_a_database_restored_from_a_backup_goes_on_above_what_the_edges_have(redis: Redis) -> None:
    access = organization()
    issue_credential(access, username="pump")
    save_draft(access, text='version: "3"\nrules: [{topic: a}]\n')
    deploy(access)
    issue_credential(access, username="pump")
    reconcile()
    with platform_scope():  # as the backup had it
        Organization.objects.update(revision=1)
        MqttIdentity.objects.update(revision=1)
    redis.hset(MARK, "at", 0)
    assert reconcile() == 2
    assert redis.hget(keys.bundle(access.org_id), "rev") == b"3"
    assert redis.hget(keys.credential(access.org_id, "pump"), "rev") == b"3"
    revoke_identity(access, "pump")
    redis.hset(MARK, "at", 0)
    assert reconcile() == 1
    blob = redis.hget(keys.credential(access.org_id, "pump"), "b")
    assert isinstance(blob, bytes)
    assert open_credential(blob, pepper(), org=access.org_id, username="pump").revoked
    redis.hset(MARK, "at", 0)
    assert reconcile() == 0


@pytest.mark.parametrize("how", ["at once", "in time"])
@pytest.mark.parametrize("claimed", [str(2**52), "9" * 300, "inf", "nan", "0x7f"])
def test_a_revision_invented_on_redis_cannot_keep_a_revocation_out(redis: Redis, claimed: str, how: str) -> None:
    access = organization()
    issue_credential(access, username="pump")
    reconcile()
    for name in (keys.bundle(access.org_id), keys.credential(access.org_id, "pump")):
        redis.hset(name, mapping={"rev": claimed, "b": b"invented"})
    revoke_identity(access, "pump")
    if how == "at once":
        assert push_credential.run(org=access.org_id, username="pump")
        assert push_bundle.run(org=access.org_id) == 1
    else:
        redis.hset(MARK, "at", 0)
        assert reconcile() == 2
    blob = redis.hget(keys.credential(access.org_id, "pump"), "b")
    assert isinstance(blob, bytes)
    assert open_credential(blob, pepper(), org=access.org_id, username="pump").revoked
    assert redis.hget(keys.bundle(access.org_id), "rev") == b"1"
    redis.hset(MARK, "at", 0)
    assert reconcile() == 0


# --- somebody else writes to Redis -----------------------------------------------------------------------------------


@pytest.fixture
def attacker() -> Redis:
    """A client of Redis that is none of ours."""
    return Redis.from_url(settings.REDIS_URL)


def history(redis: Redis) -> tuple[Access, dict[str, dict[bytes, bytes]]]:
    """An organization that took rights away, and the records from before it did."""
    access = organization()
    issue_credential(access, username="pump")
    reconcile()
    names = keys.bundle(access.org_id), keys.credential(access.org_id, "pump")
    before: dict[str, dict[bytes, bytes]] = {name: redis.hgetall(name) for name in names}  # type: ignore[misc]
    save_draft(access, text='version: "3"\nrules: [{topic: a}]\n')
    deploy(access)
    revoke_identity(access, "pump")
    reconcile()
    return access, before


@pytest.mark.parametrize("claimed", ["the newest", "the old one", "more", "none"])
def test_old_records_put_back_are_replaced_whatever_revision_they_claim(
    redis: Redis, attacker: Redis, claimed: str
) -> None:
    _, before = history(redis)
    right = state(redis)
    for name, record in before.items():
        newest = int(right[name.encode()][b"rev"])
        rev = {"the newest": newest, "the old one": record[b"rev"], "more": newest + 7, "none": ""}[claimed]
        attacker.hset(name, mapping={"rev": rev, "b": record[b"b"]})
    assert state(redis) != right
    assert reconcile() == 2
    assert state(redis) == right
    assert reconcile() == 0


def test_everything_rolled_back_or_swapped_is_set_right(redis: Redis, attacker: Redis) -> None:
    one, _ = history(redis)
    other = organization("Other")
    issue_credential(other, username="pump")
    reconcile()
    right = state(redis)
    for first, second in (
        (keys.bundle(one.org_id), keys.bundle(other.org_id)),
        (keys.credential(one.org_id, "pump"), keys.credential(other.org_id, "pump")),
    ):
        attacker.rename(first, "aside")
        attacker.rename(second, first)
        attacker.rename("aside", second)
    assert reconcile() == 4
    assert state(redis) == right


def test_the_list_of_heads_names_every_newest_bundle_and_replaces_what_stands_there(
    redis: Redis, attacker: Redis
) -> None:
    def heads() -> Heads:
        blob = redis.get(keys.HEADS)
        assert isinstance(blob, bytes)
        return open_heads(blob, signing_key().public_key())

    access = organization()
    other = organization("Other")
    reconcile()
    old, first = redis.get(keys.HEADS), heads()
    save_draft(access, text='version: "3"\nrules: [{topic: a}]\n')
    version = deploy(access).version
    reconcile()
    second = heads()
    assert second.revision > first.revision
    assert second.orgs[access.org_id] == (2, bytes.fromhex(version.digest.removeprefix("sha256:")))
    assert second.orgs[other.org_id] == first.orgs[other.org_id]
    assert abs(second.signed_at - time.time()) < SLACK
    attacker.set(keys.HEADS, old)  # type: ignore[arg-type]
    reconcile()
    assert heads().orgs == second.orgs
    attacker.delete(keys.HEADS)
    attacker.hset(keys.HEADS, "a", "b")
    reconcile()
    assert heads().orgs == second.orgs


def test_keys_made_something_else_of_stop_neither_comparison_nor_push(redis: Redis, attacker: Redis) -> None:
    access, _ = history(redis)
    other = organization("Other")
    reconcile()
    right = state(redis)
    names = [keys.bundle(access.org_id), keys.credential(access.org_id, "pump")]
    names += [keys.CHANGES, keys.AUDIT, keys.REPORTS, MARK]
    attacker.delete(*names, LOCK, keys.bundle(other.org_id))
    for name in names:
        attacker.set(name, "spoilt")
    attacker.set(LOCK, "held for ever")
    assert reconcile() == 3
    assert state(redis) == right
    for name in (keys.bundle(access.org_id), keys.CHANGES):
        attacker.delete(name)
        attacker.set(name, "spoilt")
    assert push_bundle.run(org=access.org_id) == 2
    assert redis.xlen(keys.CHANGES) == 1
    assert state(redis) == right


def test_another_genuine_bundle_of_the_same_revision_is_overtaken_for_edges_have_taken_it(redis: Redis) -> None:
    """The database was restored from a backup, and went on from there to the revision that edges know already."""
    access, _ = history(redis)
    with platform_scope():
        Deployment.objects.order_by("-revision").first().delete()  # type: ignore[union-attr]
    assert reconcile() == 1
    bundle = redis.hget(keys.bundle(access.org_id), "b")
    assert isinstance(bundle, bytes)
    assert open_bundle(bundle, signing_key().public_key(), org=access.org_id).revision == 3
    assert reconcile() == 0

"""Bundles on Redis: signed, ordered by revision, announced once, refilled when lost."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from redis import Redis

from acl.models import Deployment
from acl.policy import parse
from acl.services.deployments import deploy, rollback
from acl.services.drafts import save_draft
from acl.services.push import build_bundle
from acl.tasks import push_bundle
from cloudsignal.redis import State, client, write_state
from cloudsignal.secrets.keyring import signing_key
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, Quotas, open_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError, decode
from orgs.access.grants import Access
from orgs.organizations.lifecycle import resume_organization, suspend_organization
from orgs.organizations.settings import change_settings
from tests.support.world import organization, person

pytestmark = pytest.mark.django_db

POLICY = 'version: "3"\nrules:\n  - {id: own, topic: "dev/{username}/#"}\n'


@pytest.fixture
def access() -> Access:
    return organization()


@pytest.fixture
def redis() -> Redis:
    return client()


def on_redis(access: Access) -> Bundle:
    blob = client().hget(keys.bundle(access.org_id), "b")
    assert isinstance(blob, bytes)
    return open_bundle(blob, signing_key().public_key(), org=access.org_id)


def changes(redis: Redis) -> list[Change]:
    return [decode(fields[b"b"], Change) for _, fields in redis.xrange(keys.CHANGES)]  # type: ignore[misc,union-attr]


def test_a_bundle_says_what_the_database_says_and_verifies(access: Access, redis: Redis) -> None:
    save_draft(access, text=POLICY)
    deployment = deploy(access)
    assert push_bundle(access.org_id) == 2
    bundle = on_redis(access)
    assert (bundle.org, bundle.revision, bundle.deployment) == (access.org_id, 2, deployment.pk)
    assert (bundle.status, bundle.digest, bundle.quotas) == ("active", deployment.version.digest, Quotas())
    assert bundle.publish_while_split == "accept"
    policy = parse(bundle.policy).policy
    assert policy is not None
    assert [rule.id for rule in policy.rules] == ["own"]
    assert bundle.issued_at == deployment.created_at.timestamp()
    (change,) = changes(redis)
    assert (change.kind, change.org, change.committed_at) == ("bundle", access.org_id, bundle.issued_at)
    blob = redis.hget(keys.bundle(access.org_id), "b")
    with pytest.raises(WireError):
        open_bundle(blob, Ed25519PrivateKey.generate().public_key(), org=access.org_id)  # type: ignore[arg-type]


def test_a_bundle_says_whether_publishes_are_acknowledged_during_a_split(access: Access) -> None:
    change_settings(access, publish_while_split="refuse")
    assert push_bundle(access.org_id) == on_redis(access).revision == 2
    assert on_redis(access).publish_while_split == "refuse"


def test_running_twice_writes_the_same_bytes_and_announces_once(access: Access, redis: Redis) -> None:
    assert push_bundle(access.org_id) == push_bundle(access.org_id) == 1
    assert len(changes(redis)) == 1


def test_an_older_state_never_replaces_a_newer_one(access: Access, redis: Redis) -> None:
    save_draft(access, text=POLICY)
    deploy(access)
    push_bundle(access.org_id)
    newest = redis.hgetall(keys.bundle(access.org_id))
    late = Change(kind="bundle", org=access.org_id)
    assert not write_state(redis, State(keys.bundle(access.org_id), 1, b"old", late))
    assert redis.hgetall(keys.bundle(access.org_id)) == newest
    assert len(changes(redis)) == 1
    # revisions are numbers, not texts: 10 is newer than 9
    assert write_state(redis, State("x", 9, b"9", late))
    assert write_state(redis, State("x", 10, b"10", late))
    assert not write_state(redis, State("x", 9, b"9", late))


def test_a_spoilt_record_of_the_same_revision_is_written_over_and_announced(access: Access, redis: Redis) -> None:
    push_bundle(access.org_id)
    redis.hset(keys.bundle(access.org_id), "b", b"spoilt")
    push_bundle(access.org_id)
    assert on_redis(access).revision == 1
    assert len(changes(redis)) == 2


def test_a_rollback_is_the_old_policy_under_a_new_revision(access: Access) -> None:
    save_draft(access, text=POLICY)
    deploy(access)
    push_bundle(access.org_id)
    back = rollback(access, number=1)
    push_bundle(access.org_id)
    bundle = on_redis(access)
    assert (bundle.revision, bundle.deployment, bundle.digest) == (3, back.pk, back.version.digest)


def test_suspension_travels_in_the_bundle(access: Access) -> None:
    operator = person(operator=True)
    suspend_organization(operator, access.org_id)
    push_bundle(access.org_id)
    assert (on_redis(access).status, on_redis(access).revision) == ("suspended", 2)
    resume_organization(operator, access.org_id)
    push_bundle(access.org_id)
    assert (on_redis(access).status, on_redis(access).revision) == ("active", 3)


def test_an_organization_that_is_gone_is_not_pushed(redis: Redis) -> None:
    assert push_bundle("org_aaaaaaaaaaaa") == 0
    assert build_bundle("org_aaaaaaaaaaaa") is None
    assert redis.keys("cs1:*") == []


def test_the_newest_revision_is_in_force_whatever_the_order_of_times(access: Access) -> None:
    save_draft(access, text=POLICY)
    newer = deploy(access)
    with org_scope(access.org_id):
        Deployment.objects.filter(pk=newer.pk).update(created_at="2020-01-01T00:00:00Z")
    bundle = build_bundle(access.org_id)
    assert bundle is not None
    assert bundle.deployment == newer.pk


@pytest.mark.django_db(transaction=True)
def test_a_bundle_is_one_moment_of_the_database(access: Access) -> None:
    """A deploy that commits while a bundle is built is in it whole or not at all."""
    save_draft(access, text=POLICY)
    before = build_bundle(access.org_id)

    def deploying() -> None:
        deploy(access)
        connection.close()

    def after_the_first_look(execute: Any, sql: str, *others: Any) -> Any:
        found = execute(sql, *others)
        if "acl_deployment" in sql or "orgs_organization" in sql:
            hook.close()
            thread = threading.Thread(target=deploying)
            thread.start()
            thread.join()
        return found

    with ExitStack() as hook:
        hook.enter_context(connection.execute_wrapper(after_the_first_look))
        assert build_bundle(access.org_id) == before
    after = build_bundle(access.org_id)
    assert before is not None
    assert after is not None
    assert (before.revision, after.revision) == (1, 2)
    assert before.digest != after.digest

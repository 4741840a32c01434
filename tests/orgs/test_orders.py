"""What the control plane orders about the broker: when, for whom, and signed."""

from __future__ import annotations

import time

import pytest

from cloudsignal.models import OutboxRow
from cloudsignal.redis import client
from cloudsignal.secrets.keyring import signing_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import encode
from cloudsignal.wire.order import Order, open_order
from orgs import tasks
from orgs.access.grants import Access
from orgs.broker import orders
from orgs.credentials.identities import revoke_everything
from orgs.credentials.issuing import issue_credential, revoke_credential, revoke_identity
from orgs.organizations import deletion
from tests.support.world import organization

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Access:
    client().delete(keys.ORDERS)
    return organization("Acme")


def given() -> list[Order]:
    """The orders on the stream, verified."""
    public, now = signing_key().public_key(), time.time()
    return [open_order(fields[keys.FIELD.encode()], public, now=now) for _, fields in client().xrange(keys.ORDERS)]


def stored(access: Access, **owners: str) -> None:
    """Stored sessions as edges note them: client id and its username."""
    for client_id, username in owners.items():
        client().zadd(keys.stored(access.org_id), {client_id: time.time() + 60})
        client().set(keys.client(access.org_id, client_id), f"{username}\n0190", ex=60)


def run(task: str) -> None:
    """Do what waits in the outbox for this task."""
    with platform_scope():
        rows = list(OutboxRow.objects.filter(task=task))
    for row in rows:
        getattr(tasks, task.rpartition(".")[2]).run(**row.payload)


def test_revoking_an_identity_has_its_stored_sessions_discarded_and_no_others(acme: Access) -> None:
    for name in ("old", "other"):
        issue_credential(acme, username=name)
    stored(acme, one="old", two="other", three="old")
    revoke_identity(acme, "old")
    run("orgs.tasks.discard_sessions")
    (order,) = given()
    assert (order.kind, order.org, order.username) == ("discard_sessions", acme.org_id, "old")
    assert set(order.names) == {"one", "three"}


def test_revoking_one_of_two_secrets_leaves_the_session_to_the_other(acme: Access) -> None:
    first, _second = (issue_credential(acme, username="dev") for _ in range(2))
    stored(acme, one="dev")
    revoke_credential(acme, first.token_id)
    run("orgs.tasks.discard_sessions")
    assert given() == []


def test_revoking_everything_discards_what_all_of_them_have_stored(acme: Access) -> None:
    for name in ("a", "b"):
        issue_credential(acme, username=name)
    stored(acme, one="a", two="b", three="somebody-else")
    revoke_everything(acme)
    run("orgs.tasks.discard_sessions")
    assert {(order.username, order.names) for order in given()} == {("a", ("one",)), ("b", ("two",))}


def test_many_retained_messages_are_cleared_by_several_orders(acme: Access) -> None:
    ledger = keys.retained(acme.org_id)
    client().hset(ledger, mapping={f"t/{n}": f"10 1 0 {'noisy' if n % 2 else 'quiet'}" for n in range(1_200)})
    assert orders.clear_retained(client(), acme.org_id, ["plain"], username="noisy") == 601
    found = given()
    assert [len(order.names) for order in found] == [500, 101]
    assert {name for order in found for name in order.names} == {"plain", *(f"t/{n}" for n in range(1, 1_200, 2))}
    client().delete(keys.ORDERS)
    assert orders.clear_retained(client(), acme.org_id, [], username="*") == 1_200


def test_an_organization_that_exists_is_never_forgotten(acme: Access) -> None:
    deletion.forget_organization(client(), acme.org_id)
    assert given() == []


def test_a_deleted_organization_leaves_its_id_and_the_last_word_about_it(acme: Access) -> None:
    """Entries of the change stream name usernames; what edges leave is erased by an edge, which the order asks for."""
    gone = "org_" + "z" * 12
    redis = client()
    change = Change(kind="credential", org=gone, username="marker-name")
    redis.xadd(keys.CHANGES, {keys.FIELD: encode(change)})
    redis.hset(keys.credential(gone, "marker-name"), mapping={"rev": 1, "b": b"x"})
    deletion.forget_organization(redis, gone)
    (order,) = given()
    assert (order.kind, order.org) == ("erase", gone)
    assert [name for name in redis.scan_iter() if b"marker-name" in name] == []
    assert not [entry for entry in redis.xrange(keys.CHANGES) if b"marker-name" in entry[1][keys.FIELD.encode()]]
    assert redis.ttl(keys.bundle(gone)) > 80 * 86_400

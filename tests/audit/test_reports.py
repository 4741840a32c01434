"""What nodes report on bundles: targets, deployments, and what happens to a record that a node refuses."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from redis import Redis

from acl.access import deployment_progress
from acl.models import Cluster, Deployment, Node, Target
from acl.services.clusters import retire_node
from acl.services.deployments import deploy, rollback
from acl.services.drafts import save_draft
from acl.services.nodes import note_missing
from acl.services.reports import apply_report, apply_reports
from audit.ingest.consumer import Ingest
from audit.ingest.streams import dead
from audit.models import Event
from cloudsignal.models import OutboxRow
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import BundleReport
from cloudsignal.wire.sealed import Kind, seal_record
from orgs.access.grants import Access
from orgs.models import Organization
from tests.support.world import organization, person

pytestmark = pytest.mark.django_db

POLICIES = [f'version: "3"\nrules:\n  - {{id: own, topic: "dev{number}/{{username}}/#"}}\n' for number in range(9)]

Statuses = dict[str, str]


def node(name: str, **values: Any) -> Node:
    return Node.objects.create(cluster=Cluster.objects.get(name="default"), name=name, **values)


def deployed(access: Access, number: int = 0) -> Deployment:
    save_draft(access, text=POLICIES[number])
    return deploy(access)


def report(on: Deployment, name: str, status: str = "enforcing", **changes: Any) -> BundleReport:
    with platform_scope():
        digest = Deployment.objects.select_related("version").get(pk=on.pk).version.digest
    made = BundleReport(
        node=name,
        org=on.org_id,
        revision=on.revision,
        digest=digest,
        deployment=on.pk,
        status=status,  # type: ignore[arg-type]
        reason="" if status == "enforcing" else "the bundle's signature does not verify",
        at=time.time(),
    )
    return replace(made, **changes)


def fresh(deployment: Deployment) -> Deployment:
    with platform_scope():
        return Deployment.objects.get(pk=deployment.pk)


def targets(deployment: Deployment) -> Statuses:
    with platform_scope():
        return dict(Target.objects.filter(deployment=deployment).values_list("node__name", "status"))


def pushes(org_id: str) -> int:
    with platform_scope():
        return OutboxRow.objects.filter(org_id=org_id, task="acl.tasks.push_bundle").count()


def test_a_deployment_is_enforced_when_every_node_says_so() -> None:
    access = organization()
    node("edge-1"), node("edge-2")
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    assert fresh(deployment).status == "pending"
    assert targets(deployment) == {"edge-1": "enforcing", "edge-2": "pending"}
    apply_reports([report(deployment, "edge-2")])
    found = fresh(deployment)
    assert found.status == "enforcing"
    assert found.first_ack_at is not None
    assert found.last_ack_at is not None
    assert found.created_at <= found.first_ack_at <= found.last_ack_at
    progress = deployment_progress(access, deployment.pk)
    assert (progress.finished, progress.enforcing) == (True, 2)
    assert progress.seconds is not None
    assert 0 <= progress.seconds < 30


def test_the_same_report_again_changes_nothing(django_assert_num_queries: Any) -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    first = report(deployment, "edge-1")
    apply_reports([first])
    before = deployment_progress(access, deployment.pk)
    with django_assert_num_queries(5):  # one look, in a scope, however many reports
        apply_reports([replace(first, at=first.at + 60)] * 50)
    after = deployment_progress(access, deployment.pk)
    assert (after.nodes, after.deployment.last_ack_at) == (before.nodes, before.deployment.last_ack_at)


def test_a_node_that_joins_later_gets_a_target_and_does_not_slow_the_deploy_down() -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    acknowledged = fresh(deployment).last_ack_at
    apply_reports([report(deployment, "newcomer")])
    assert targets(deployment) == {"edge-1": "enforcing", "newcomer": "enforcing"}
    assert fresh(deployment).status == "enforcing"
    assert fresh(deployment).last_ack_at == acknowledged
    with platform_scope():
        assert Event.objects.filter(kind="node.registered", target="node:newcomer", org_id="platform").count() == 1


def test_a_deployment_without_nodes_waits_for_the_first() -> None:
    access = organization()
    deployment = deployed(access)
    assert fresh(deployment).status == "pending"
    apply_reports([report(deployment, "edge-1")])
    assert fresh(deployment).status == "enforcing"


def test_a_newer_deployment_overtakes_what_was_awaited() -> None:
    access = organization()
    node("edge-1"), node("edge-2")
    first = deployed(access, 0)
    apply_reports([report(first, "edge-1")])
    second = deployed(access, 1)
    apply_reports([report(second, "edge-1"), report(second, "edge-2")])
    assert targets(first) == {"edge-1": "enforcing", "edge-2": "superseded"}
    assert targets(second) == {"edge-1": "enforcing", "edge-2": "enforcing"}
    assert (fresh(first).status, fresh(second).status) == ("superseded", "enforcing")
    apply_reports([report(first, "edge-2"), report(first, "stranger")])
    assert targets(first) == {"edge-1": "enforcing", "edge-2": "superseded"}, "too late"


def test_rolling_back_is_a_deployment_like_any_other() -> None:
    access = organization()
    node("edge-1")
    for number in (0, 1):
        apply_reports([report(deployed(access, number), "edge-1")])
    back = rollback(access, number=2)
    apply_reports([report(back, "edge-1")])
    assert (fresh(back).status, targets(back)) == ("enforcing", {"edge-1": "enforcing"})


# --- refusing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["an old record", "a forged one"])
def test_a_refusal_is_shown_on_what_is_in_force_and_brings_a_new_push(named: bool) -> None:
    access = organization()
    node("edge-1")
    old, deployment = deployed(access, 0), deployed(access, 1)
    before = pushes(access.org_id)
    forged = {} if named else {"deployment": "", "digest": "", "revision": 0}
    apply_reports([report(old, "edge-1", "refused", **forged)])
    assert targets(deployment) == {"edge-1": "refused"}
    assert fresh(deployment).status == "refused"
    [line] = deployment_progress(access, deployment.pk).nodes
    assert line.reason == "the bundle's signature does not verify"
    assert pushes(access.org_id) == before + 1
    apply_reports([report(deployment, "edge-1")])
    assert fresh(deployment).status == "enforcing"
    assert targets(deployment) == {"edge-1": "enforcing"}


def test_a_node_that_enforces_goes_on_when_it_refuses_a_spoilt_record() -> None:
    access = organization()
    node("edge-1", started_at=datetime(2026, 1, 1, tzinfo=UTC))
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    before = pushes(access.org_id)
    apply_reports([report(deployment, "edge-1", "refused", deployment="", at=time.time() + 1)])
    assert targets(deployment) == {"edge-1": "enforcing"}
    assert fresh(deployment).status == "enforcing"
    assert pushes(access.org_id) == before + 1, "the record on Redis is mended all the same"


def test_a_node_that_was_restarted_and_refuses_has_nothing_to_enforce() -> None:
    access = organization()
    edge = node("edge-1")
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    acknowledged = deployment_progress(access, deployment.pk).nodes[0].reported_at
    assert acknowledged
    edge.started_at = acknowledged + timedelta(microseconds=1)
    edge.save()
    apply_reports([report(deployment, "edge-1", "refused", deployment="")])
    assert targets(deployment) == {"edge-1": "refused"}
    assert fresh(deployment).status == "refused"


def test_a_node_that_starts_anew_with_an_old_bundle_is_not_said_to_enforce_the_newest() -> None:
    access = organization()
    edge = node("edge-1")
    first, second = deployed(access, 0), deployed(access, 1)
    apply_reports([report(first, "edge-1"), report(second, "edge-1")])
    assert fresh(second).status == "enforcing"
    before = pushes(access.org_id)
    acknowledged = deployment_progress(access, second.pk).nodes[0].reported_at
    assert acknowledged
    apply_reports([report(first, "edge-1", at=acknowledged.timestamp() - 5)])
    assert fresh(second).status == "enforcing", "what it said before counts for nothing, however often it comes"
    edge.started_at = acknowledged + timedelta(microseconds=1)  # its disk is gone, and Redis was put back
    edge.save()
    apply_reports([report(first, "edge-1")])
    assert targets(second) == {"edge-1": "pending"}
    assert fresh(second).status == "pending"
    [line] = deployment_progress(access, second.pk).nodes
    assert line.reason == "the node has started anew with an earlier version"
    assert pushes(access.org_id) == before + 1
    apply_reports([report(second, "edge-1", at=acknowledged.timestamp())])
    assert fresh(second).status == "pending", "a report from before is no acknowledgement of now"
    apply_reports([report(second, "edge-1")])
    assert fresh(second).status == "enforcing"


def test_an_acknowledgement_replayed_after_a_refusal_does_not_count() -> None:
    access = organization()
    edge = node("edge-1")
    deployment = deployed(access)
    said = report(deployment, "edge-1")
    apply_reports([said])
    edge.started_at = deployment_progress(access, deployment.pk).nodes[0].reported_at + timedelta(microseconds=1)  # type: ignore[operator]
    edge.save()
    apply_reports([report(deployment, "edge-1", "refused", deployment="")])
    assert fresh(deployment).status == "refused"
    apply_reports([said])
    assert fresh(deployment).status == "refused"


@pytest.mark.parametrize("forged", ["no seal", "another key", "another kind"])
def test_who_writes_to_redis_cannot_say_that_a_node_enforces(redis: Redis, ingest: Ingest, forged: str) -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    record = encode(report(deployment, "edge-1"))
    blob = {
        "no seal": record,
        "another key": seal_record(Kind.REPORT, record, b"somebody else's key"),
        "another kind": seal_record(Kind.HEARTBEAT, record, node_key()),
    }[forged]
    Redis.from_url(settings.REDIS_URL).xadd(keys.REPORTS, {keys.FIELD: blob})  # somebody else's client
    ingest.round(block=0)
    assert fresh(deployment).status == "pending"
    assert redis.xlen(dead(keys.REPORTS)) == 1


# --- nodes that are away --------------------------------------------------------------------------------------------


def test_a_node_that_has_gone_is_not_waited_for() -> None:
    access = organization()
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    node("edge-1"), node("edge-2", last_seen=long_ago)
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    assert fresh(deployment).status == "pending"
    assert note_missing() == 1
    assert fresh(deployment).status == "enforcing"
    assert note_missing() == 0


def test_a_node_that_refused_and_has_gone_holds_nothing_up() -> None:
    access = organization()
    node("edge-1"), node("edge-2", last_seen=datetime(2026, 1, 1, tzinfo=UTC))
    first = deployed(access, 0)
    apply_reports([report(first, "edge-2", "refused")])
    deployment = deployed(access, 1)
    apply_reports([report(deployment, "edge-1"), report(deployment, "edge-2", "refused")])
    assert fresh(deployment).status == "refused"
    assert note_missing() == 1
    assert fresh(deployment).status == "enforcing"
    assert fresh(first).status == "refused", "what was refused stays so in the history"
    assert deployment_progress(access, deployment.pk).finished


def test_nothing_is_awaited_when_the_only_node_refused_and_has_gone() -> None:
    access = organization()
    node("edge-1", last_seen=datetime(2026, 1, 1, tzinfo=UTC))
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1", "refused")])
    assert note_missing() == 1
    assert fresh(deployment).status == "pending"
    assert deployment_progress(access, deployment.pk).finished


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["missing", "retired"])
def test_a_node_is_not_noted_as_gone_before_its_deployments_are_settled(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody would look at them again, and they would wait for ever."""
    monkeypatch.setattr("acl.services.targets.LOCK_SECONDS", 0.2)
    access, operator = organization(), person(operator=True)
    online = how == "missing"
    node("edge-1"), node("edge-2", last_seen=datetime(2026, 1, 1, tzinfo=UTC))
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1")])
    Node.objects.filter(name="edge-2").update(online=online)
    failed: list[Exception] = []

    def going() -> None:
        try:
            note_missing() if online else retire_node(operator, "edge-2")
        except OperationalError as error:
            failed.append(error)
        finally:
            connection.close()

    with platform_scope():
        Organization.objects.select_for_update().get(pk=access.org_id)
        thread = threading.Thread(target=going)
        thread.start()
        thread.join()
    assert failed, "the lock was waited for"
    assert fresh(deployment).status == "pending"
    going()
    assert fresh(deployment).status == "enforcing"


# --- reports that make no sense -------------------------------------------------------------------------------------

NONSENSE: dict[str, dict[str, Any]] = {
    "no organization": {"org": ""},
    "not an organization": {"org": "org_'; --"},
    "no node": {"node": ""},
    "NUL": {"node": "a\0b"},
    "time: NaN": {"at": math.nan},
    "time: infinite": {"at": math.inf},
}


@pytest.mark.parametrize("changes", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_put_aside_and_the_others_count(redis: Redis, ingest: Ingest, changes: dict[str, Any]) -> None:
    access = organization()
    node("edge-1"), node("edge-2")
    deployment = deployed(access)
    for made in (report(deployment, "edge-1"), report(deployment, "x", **changes), report(deployment, "edge-2")):
        redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(made), node_key())})
    ingest.round(block=0)
    assert fresh(deployment).status == "enforcing"
    assert redis.xlen(keys.REPORTS) == 0
    assert redis.xlen(dead(keys.REPORTS)) == 1
    with platform_scope():
        assert Event.objects.filter(kind="audit.unreadable", org_id="platform").count() == 1


@pytest.mark.parametrize("blob", [b"", b"\xc1", encode({"node": 1}), encode([]), b"\x91" * 50_000])
def test_a_malformed_report_is_put_aside(redis: Redis, ingest: Ingest, blob: bytes) -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, blob, node_key())})
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(report(deployment, "edge-1")), node_key())})
    ingest.round(block=0)
    assert fresh(deployment).status == "enforcing"
    assert (redis.xlen(keys.REPORTS), redis.xlen(dead(keys.REPORTS))) == (0, 1)


@pytest.mark.parametrize(
    "changes",
    [{"org": "org_aaaaaaaaaaaa"}, {"deployment": "dep_aaaaaaaaaaaaaaaa"}, {"digest": "sha256:" + "0" * 64}],
    ids=["organization", "deployment", "digest"],
)
def test_a_report_on_what_was_never_deployed_counts_for_nothing(changes: dict[str, str]) -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    assert not apply_report(report(deployment, "edge-1", **changes))
    assert targets(deployment) == {"edge-1": "pending"}


def test_a_report_of_another_tenants_deployment_counts_for_nothing() -> None:
    mine, other = organization(), organization()
    node("edge-1")
    deployment = deployed(mine)
    assert not apply_report(report(deployment, "edge-1", org=other.org_id))
    assert targets(deployment) == {"edge-1": "pending"}
    with org_scope(other.org_id):
        assert not Target.objects.filter(deployment_id=deployment.pk).exists()


@pytest.mark.parametrize("at", [0.0, -1e12, 4e9, 1e300])
def test_a_clock_that_is_wrong_gives_no_impossible_times(at: float) -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1", at=at)])
    [line] = deployment_progress(access, deployment.pk).nodes
    assert line.seconds is not None
    assert 0 <= line.seconds < 30


def test_a_long_reason_is_cut() -> None:
    access = organization()
    node("edge-1")
    deployment = deployed(access)
    apply_reports([report(deployment, "edge-1", "refused", reason="r\0" * 5_000)])
    [line] = deployment_progress(access, deployment.pk).nodes
    assert line.reason == "r" * 500


@pytest.mark.django_db(transaction=True)
def test_a_report_waits_for_a_deploy_that_is_under_way() -> None:
    """Otherwise it would work from what the deploy is about to overtake, and write that back over it."""
    access = organization()
    node("edge-1"), node("edge-2")
    deployment = deployed(access, 0)
    made = [report(deployment, "edge-1"), report(deployment, "edge-2")]

    def reporting() -> None:
        try:
            apply_reports(made)
        finally:
            connection.close()

    thread = threading.Thread(target=reporting)
    with platform_scope():
        Organization.objects.select_for_update().get(pk=access.org_id)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        newer = deployed(access, 1)
    thread.join(10)
    assert not thread.is_alive()
    assert (fresh(deployment).status, fresh(newer).status) == ("superseded", "pending")
    assert targets(deployment) == {"edge-1": "superseded", "edge-2": "superseded"}

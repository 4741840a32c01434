"""Deploy and roll back: one transaction, tests as a gate, one target per node, newer always wins."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.utils import timezone

from acl.access import (
    current_deployment,
    deployment_progress,
    get_deployment,
    get_version,
    list_deployments,
    list_versions,
)
from acl.models import Cluster, Deployment, Node, PolicyVersion, Target
from acl.policy import MAX_DOCUMENT_BYTES, digest, parse
from acl.services.deployments import deploy, rollback
from acl.services.drafts import save_draft
from acl.services.examination import Side, compare
from audit.access import AuditQuery, search
from cloudsignal.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from cloudsignal.models import OutboxRow
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.models import Organization
from orgs.permissions import Role
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db

POLICY = 'version: "3"\nrules:\n  - {id: own, topic: "dev/{username}/#"}\n'


def node(name: str, *, online: bool = True, cluster: str = "default") -> Node:
    group, _ = Cluster.objects.get_or_create(name=cluster)
    return Node.objects.create(cluster=group, name=name, online=online)


def written(access: Access) -> dict[str, int]:
    """What a refused deploy must leave untouched."""
    with org_scope(access.org_id):
        return {
            "versions": PolicyVersion.objects.count(),
            "deployments": Deployment.objects.count(),
            "revision": Organization.objects.get().revision,
            "outbox": OutboxRow.objects.count(),
            "audit": len(search(access, AuditQuery(kind="policy.deployed,policy.rolled_back")).events),
        }


# --- deploy ----------------------------------------------------------------------------------------------------------


def test_a_deploy_makes_an_immutable_version_and_one_target_for_each_online_node() -> None:
    access = organization()
    node("edge-1"), node("edge-2"), node("gone", online=False), node("elsewhere", cluster="other")
    save_draft(access, text=POLICY)
    deployment = deploy(access, note="first rules")
    assert (deployment.kind, deployment.status, deployment.revision) == ("deploy", "pending", 2)
    version = get_version(access, 2)
    policy = parse(POLICY).policy
    assert policy is not None
    assert (version.source, version.digest, version.note) == (POLICY, digest(policy), "first rules")
    assert version.created_by == access.actor
    progress = deployment_progress(access, deployment.pk)
    assert [(row.node, row.status, row.seconds) for row in progress.nodes] == [
        ("edge-1", "pending", None),
        ("edge-2", "pending", None),
    ]
    assert not progress.finished
    current = current_deployment(access)
    assert current == deployment
    (event,) = search(access, AuditQuery(kind="policy.deployed", limit=1)).events
    assert event.before is not None
    assert event.after is not None
    assert (event.before["version"], event.after["version"], event.after["digest"]) == (1, 2, version.digest)
    with org_scope(access.org_id):
        row = OutboxRow.objects.order_by("-id")[0]
        assert (row.task, row.payload) == ("acl.tasks.push_bundle", {"org": access.org_id})


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("rules: [", "policy_invalid", ""),
        ('version: "3"\nrules:\n  - {topic: "a/#/b"}\n', "policy_invalid", "rules[0].topic"),
        ('version: "3"\nrulez: []\n', "policy_invalid", "rulez"),
        (
            POLICY + 'tests:\n  - {name: "pump is heard", as: {username: pump}, do: pub, topic: x, expect: allow}\n',
            "policy_tests_failed",
            "pump is heard",
        ),
    ],
)
def test_an_error_or_a_failing_test_refuses_the_deploy_and_leaves_nothing(text: str, code: str, part: str) -> None:
    access = organization()
    save_draft(access, text=text)
    before = written(access)
    with pytest.raises(Invalid) as refused:
        deploy(access)
    assert refused.value.code == code
    assert part in str(refused.value.details)
    assert refused.value.details
    assert written(access) == before
    save_draft(access, text=POLICY)
    assert deploy(access).version.number == 2


def test_a_policy_as_large_as_they_get_is_deployed_compared_and_gone_back_to() -> None:
    """Its canonical form, in which every name is written out and all is ASCII, is larger than a document may be."""
    access = organization()
    text = POLICY + "  - {id: long, topic: a, note: " + "é" * 500_000 + "}\n"
    save_draft(access, text=text)
    version = deploy(access).version
    assert len(text.encode()) < MAX_DOCUMENT_BYTES < len(version.document)
    save_draft(access, text=POLICY)
    assert compare(access, Side(), Side()).relation == "narrower"
    rollback(access, number=1)
    assert compare(access, Side(), Side(version=2)).relation == "wider"
    assert rollback(access, number=2).version == version


def test_passing_tests_and_warnings_do_not_refuse() -> None:
    access = organization()
    text = POLICY + '  - {id: again, topic: "dev/{username}/#"}\n'
    text += "tests:\n  - {name: own, as: {username: pump}, do: pub, topic: dev/pump/x, expect: allow, rule: own}\n"
    save_draft(access, text=text)
    assert deploy(access).version.number == 2


def test_what_is_in_force_is_not_deployed_again() -> None:
    access = organization()
    with pytest.raises(Conflict) as refused:
        deploy(access)
    assert refused.value.code == "nothing_to_deploy"
    save_draft(access, text=POLICY)
    deploy(access)
    with pytest.raises(Conflict):
        deploy(access)
    save_draft(access, text="# a comment is a version of its own\n" + POLICY)
    assert deploy(access).version.number == 3


def test_a_draft_that_changed_since_it_was_looked_at_is_not_deployed() -> None:
    access = organization()
    seen = save_draft(access, text=POLICY).etag
    save_draft(access, text=POLICY + "# more\n")
    with pytest.raises(Conflict) as refused:
        deploy(access, if_match=seen)
    assert refused.value.code == "draft_changed"
    assert current_deployment(access).version.number == 1  # type: ignore[union-attr]


def test_nothing_is_deployed_over_something_else_than_was_compared() -> None:
    access = organization()
    seen = current_deployment(access)
    assert seen is not None
    save_draft(access, text=POLICY)
    deploy(access, over=seen.pk)
    save_draft(access, text="# more\n" + POLICY)
    for late in (lambda: deploy(access, over=seen.pk), lambda: rollback(access, number=1, over=seen.pk)):
        with pytest.raises(Conflict) as refused:
            late()
        assert refused.value.code == "deployment_changed"
    assert current_deployment(access).version.number == 2  # type: ignore[union-attr]


def test_a_newer_deployment_overtakes_targets_that_still_wait() -> None:
    access = organization()
    node("edge-1"), node("edge-2")
    save_draft(access, text=POLICY)
    first = deploy(access)
    with org_scope(access.org_id):
        Target.objects.filter(deployment=first, node__name="edge-1").update(status="enforcing")
    save_draft(access, text=POLICY + "# 2\n")
    second = deploy(access)
    progress = deployment_progress(access, first.pk)
    assert [row.status for row in progress.nodes] == ["enforcing", "superseded"]
    assert progress.deployment.status == "superseded"
    assert progress.finished
    assert [row.status for row in deployment_progress(access, second.pk).nodes] == ["pending", "pending"]


def test_only_the_newest_deployment_counts_as_in_force() -> None:
    access = organization()
    node("edge-1")
    for number in range(3):
        save_draft(access, text=POLICY + f"# {number}\n")
        made = deploy(access)
        with org_scope(access.org_id):
            Target.objects.filter(deployment=made).update(status="enforcing")
            Deployment.objects.filter(pk=made.pk).update(status="enforcing")
    states = [deployment.status for deployment in list_deployments(access)]
    assert states == ["enforcing", "superseded", "superseded", "superseded"]


def test_a_node_that_is_silent_or_retired_is_not_counted_as_enforcing() -> None:
    access = organization()
    node("edge-1"), node("edge-2"), node("edge-3")
    save_draft(access, text=POLICY)
    made = deploy(access)
    with org_scope(access.org_id):
        Target.objects.filter(deployment=made).update(status="enforcing")
    assert deployment_progress(access, made.pk).everywhere
    Node.objects.filter(name="edge-2").update(online=False)
    Node.objects.filter(name="edge-3").update(retired_at=timezone.now())
    progress = deployment_progress(access, made.pk)
    assert (progress.enforcing, progress.counted, progress.offline) == (1, 2, 1)
    assert not progress.everywhere


# --- rollback --------------------------------------------------------------------------------------------------------


def test_a_rollback_sends_the_earlier_version_under_a_newer_revision() -> None:
    access = organization()
    save_draft(access, text=POLICY)
    deploy(access)
    back = rollback(access, number=1, note="it broke")
    assert (back.kind, back.version.number, back.revision, back.note) == ("rollback", 1, 3, "it broke")
    assert [version.number for version in list_versions(access)] == [2, 1]
    assert [(row.version.number, row.kind) for row in list_deployments(access)] == [
        (1, "rollback"),
        (2, "deploy"),
        (1, "deploy"),
    ]
    (event,) = search(access, AuditQuery(kind="policy.rolled_back")).events
    assert event.before is not None
    assert event.after is not None
    assert (event.before["version"], event.after["version"]) == (2, 1)
    with pytest.raises(Conflict):
        rollback(access, number=1)


@pytest.mark.parametrize("number", [0, 99, -1])
def test_a_version_that_is_not_there_cannot_be_gone_back_to(number: int) -> None:
    access = organization()
    before = written(access)
    with pytest.raises(NotFound):
        rollback(access, number=number)
    assert written(access) == before


# --- roles, tenants, bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_who_may_deploy_and_roll_back(role: Role) -> None:
    owner = organization()
    save_draft(owner, text=POLICY)
    access = member(owner.org, role)
    if role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}:
        assert deploy(access).created_by == access.actor
        assert rollback(access, number=1).kind == "rollback"
    else:
        before = written(owner)
        with pytest.raises(Forbidden):
            deploy(access)
        with pytest.raises(Forbidden):
            rollback(access, number=1)
        assert written(owner) == before
    assert list_versions(access)[0].org_id == owner.org_id


def test_another_organization_sees_and_changes_nothing() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    save_draft(theirs, text=POLICY)
    foreign = deploy(theirs)
    for attempt in (
        lambda: get_deployment(ours, foreign.pk),
        lambda: deployment_progress(ours, foreign.pk),
        lambda: get_version(ours, 2),
        lambda: rollback(ours, number=2),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert [version.number for version in list_versions(ours)] == [1]
    assert get_deployment(theirs, foreign.pk).version.number == 2


def test_a_note_has_a_bound() -> None:
    access = organization()
    save_draft(access, text=POLICY)
    with pytest.raises(Invalid) as refused:
        deploy(access, note="x" * 201)
    assert refused.value.field == "note"
    assert deploy(access, note="x" * 200).note == "x" * 200


def test_lists_page_by_number_and_revision() -> None:
    access = organization()
    for n in range(4):
        save_draft(access, text=f"{POLICY}# {n}\n")
        deploy(access)
    assert [version.number for version in list_versions(access, limit=2)] == [5, 4]
    assert [version.number for version in list_versions(access, before=4, limit=2)] == [3, 2]
    assert [row.revision for row in list_deployments(access, before=3, limit=5)] == [2, 1]


@pytest.mark.django_db(transaction=True)
def test_deploys_at_the_same_time_get_revisions_and_numbers_of_their_own() -> None:
    access = organization()
    save_draft(access, text=POLICY)
    start, done = threading.Barrier(3), []  # so many of one organization are looked at or wait

    def race() -> None:
        start.wait()
        try:
            done.append(deploy(access).revision)
        except DomainError as refused:
            done.append(refused.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, done)) == ["2", "nothing_to_deploy", "nothing_to_deploy"]
    assert [version.number for version in list_versions(access)] == [2, 1]


def test_a_deployment_that_was_read_a_moment_before_its_nodes_is_looked_at_again() -> None:
    """Its last node has reported in between: the page must not stop asking with words of before."""
    access = organization()
    node("edge-1")
    save_draft(access, text=POLICY)
    made = deploy(access)
    with org_scope(access.org_id):
        Target.objects.filter(deployment=made).update(status=Target.Status.ENFORCING)
    assert not deployment_progress(access, made.pk).finished
    with org_scope(access.org_id):
        Deployment.objects.filter(pk=made.pk).update(status=Deployment.Status.ENFORCING)
    assert deployment_progress(access, made.pk).finished

"""Clusters and nodes: for operators alone, and in the platform's log."""

from __future__ import annotations

import pytest

from acl.access import deployment_progress, list_nodes
from acl.models import Cluster, Deployment, Node, Target
from acl.services.clusters import assign_organization, create_cluster, retire_node
from acl.services.deployments import deploy
from acl.services.drafts import save_draft
from audit.access import AuditQuery, search, search_platform
from cloudsignal.errors import Conflict, Invalid, NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.models import User
from tests.support.world import organization, person

pytestmark = pytest.mark.django_db

POLICY = 'version: "3"\nrules: [{id: a, topic: a}]\n'


@pytest.fixture
def operator() -> User:
    return person(operator=True)


def node(name: str, *, online: bool = True, cluster: str = "default") -> Node:
    return Node.objects.create(cluster=Cluster.objects.get(name=cluster), name=name, online=online)


def test_a_deployment_waits_for_the_nodes_of_the_organizations_cluster(operator: User) -> None:
    access = organization()
    create_cluster(operator, name="eu-west")
    node("edge-1"), node("eu-1", cluster="eu-west")
    assign_organization(operator, access.org_id, cluster="eu-west", ip="192.0.2.9")
    save_draft(access, text=POLICY)
    progress = deployment_progress(access, deploy(access).pk)
    assert [row.node for row in progress.nodes] == ["eu-1"]
    (event,) = search(access, AuditQuery(kind="org.updated")).events
    assert (event.before, event.after) == ({"cluster": "default"}, {"cluster": "eu-west"})
    assert event.actor == f"operator:{operator.email}"
    (event,) = search_platform(operator, AuditQuery(kind="cluster.created")).events
    assert event.target == "cluster:eu-west"


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "x" * 64, "a\n", "ä"])
def test_a_bad_name_is_refused(operator: User, name: str) -> None:
    with pytest.raises(Invalid):
        create_cluster(operator, name=name)
    with pytest.raises(Conflict):
        create_cluster(operator, name="default")
    assert [cluster.name for cluster in Cluster.objects.all()] == ["default"]


def test_a_retired_node_is_waited_for_no_longer(operator: User) -> None:
    access = organization()
    first, second = node("edge-1"), node("edge-2")
    save_draft(access, text=POLICY)
    deployment = deploy(access)
    with org_scope(access.org_id):
        Target.objects.filter(node=first).update(status=Target.Status.ENFORCING)
    with pytest.raises(Conflict):
        retire_node(operator, "edge-2")
    Node.objects.filter(pk=second.pk).update(online=False)
    assert retire_node(operator, "edge-2").retired_at is not None
    progress = deployment_progress(access, deployment.pk)
    assert [(row.node, row.status) for row in progress.nodes] == [("edge-1", "enforcing"), ("edge-2", "superseded")]
    assert progress.deployment.status == Deployment.Status.ENFORCING
    assert search_platform(operator, AuditQuery(kind="node.retired")).events[0].target == "node:edge-2"
    assert retire_node(operator, "edge-2").name == "edge-2"
    assert len(search_platform(operator, AuditQuery(kind="node.retired")).events) == 1


def test_what_is_not_there_is_not_found(operator: User) -> None:
    access = organization()
    for attempt in (
        lambda: retire_node(operator, "nowhere"),
        lambda: assign_organization(operator, access.org_id, cluster="nowhere"),
        lambda: assign_organization(operator, "org_aaaaaaaaaaaa", cluster="default"),
        lambda: assign_organization(operator, "x", cluster="default"),
    ):
        with pytest.raises(NotFound):
            attempt()
    with pytest.raises(Conflict):
        assign_organization(operator, access.org_id, cluster="default")


def test_nobody_but_an_operator_sees_or_changes_clusters() -> None:
    access = organization()
    owner = access.user
    assert owner is not None
    node("edge-1", online=False)
    for attempt in (
        lambda: list_nodes(owner),
        lambda: create_cluster(owner, name="mine"),
        lambda: retire_node(owner, "edge-1"),
        lambda: assign_organization(owner, access.org_id, cluster="default"),
        lambda: search_platform(owner, AuditQuery()),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert Node.objects.get(name="edge-1").retired_at is None
    assert [row.name for row in list_nodes(person(operator=True))] == ["edge-1"]

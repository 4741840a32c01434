"""Reading drafts, versions and deployments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Prefetch

from acl.models import Cluster, Deployment, Node, PolicyDraft, PolicyVersion, Target
from acl.models.deployment import in_force
from cloudsignal.errors import NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import User
from orgs.permissions import Permission

PAGE = 50


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node of a deployment."""

    node: str
    online: bool
    """Whether the node sends heartbeats. What an offline node enforces is known only as of its last report."""
    retired: bool
    status: Target.Status
    reported_at: datetime | None
    seconds: float | None
    """From the commit of the deployment to the node's acknowledgement."""
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A deployment node by node."""

    deployment: Deployment
    nodes: tuple[NodeProgress, ...]

    @property
    def finished(self) -> bool:
        """Whether the deployment is complete: no online node is pending, or a newer deployment has superseded it.

        The deployment is read before its nodes: it may still be pending when the last of them no longer is.
        """
        if self.deployment.status == Deployment.Status.SUPERSEDED:
            return True
        pending = [node for node in self.nodes if node.status == Target.Status.PENDING]
        if self.deployment.status == Deployment.Status.PENDING and not pending:
            return bool(self.nodes) and not any(node.online for node in self.nodes)
        return not any(node.online for node in pending)

    @property
    def pending(self) -> int:
        """How many nodes have not answered yet, online or not."""
        return sum(node.status == Target.Status.PENDING for node in self.nodes)

    @property
    def counted(self) -> int:
        """How many nodes the deployment was sent to, without those retired since."""
        return sum(not node.retired for node in self.nodes)

    @property
    def enforcing(self) -> int:
        """How many nodes enforce the deployment now: they acknowledged it and are online."""
        return sum(node.status == Target.Status.ENFORCING and node.online for node in self.nodes)

    @property
    def offline(self) -> int:
        """How many nodes are offline: whether they enforce the deployment is unknown."""
        return sum(not node.online and not node.retired for node in self.nodes)

    @property
    def awaited(self) -> int:
        """How many online nodes have not answered yet."""
        return sum(node.status == Target.Status.PENDING and node.online for node in self.nodes)

    @property
    def everywhere(self) -> bool:
        """Whether every node of the cluster enforces the deployment now."""
        return 0 < self.counted == self.enforcing

    @property
    def seconds(self) -> float | None:
        """Seconds from the commit to the last acknowledgement so far."""
        return max((node.seconds for node in self.nodes if node.seconds is not None), default=None)


def get_draft(access: Access) -> PolicyDraft:
    """The organization's draft."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return PolicyDraft.objects.get(org=access.org)


def list_versions(access: Access, *, before: int | None = None, limit: int = PAGE) -> tuple[PolicyVersion, ...]:
    """Versions, newest first, without their texts; ``before`` is the number the page ends at."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = PolicyVersion.objects.filter(org=access.org).defer("document", "source")
        if before is not None:
            found = found.filter(number__lt=before)
        return tuple(found.order_by("-number")[:limit])


def get_version(access: Access, number: int) -> PolicyVersion:
    """One version with its text; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(PolicyVersion, access.org_id, f"Version {number}", number=number)


def list_deployments(access: Access, *, before: int | None = None, limit: int = PAGE) -> tuple[Deployment, ...]:
    """Deployments with version and targets, newest first; ``before`` is the revision the page ends at."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = Deployment.objects.filter(org=access.org).select_related("version").prefetch_related(_targets())
        if before is not None:
            found = found.filter(revision__lt=before)
        return tuple(found.order_by("-revision")[:limit])


def current_deployment(access: Access) -> Deployment | None:
    """The active (newest) deployment, with its version."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return in_force(access.org_id)


def get_deployment(access: Access, deployment_id: str) -> Deployment:
    """One deployment with its version; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(Deployment, access.org_id, "The deployment", related=["version"], pk=deployment_id)


def deployment_progress(access: Access, deployment_id: str) -> Progress:
    """A deployment node by node, by name; raises :class:`NotFound`."""
    deployment = get_deployment(access, deployment_id)
    with org_scope(access.org_id):
        rows = (
            Target.objects.filter(org=access.org, deployment=deployment).select_related("node").order_by("node__name")
        )
        nodes = tuple(_node(deployment, row) for row in rows)
    return Progress(deployment, nodes)


def list_clusters(user: User) -> tuple[Cluster, ...]:
    """Every broker cluster, by name. For operators; others get :class:`NotFound`."""
    if not user.is_operator:
        raise NotFound()
    return tuple(Cluster.objects.order_by("name"))


def list_nodes(user: User) -> Sequence[Node]:
    """Every node of every cluster, by name. For operators; others get :class:`NotFound`."""
    if not user.is_operator:
        raise NotFound()
    return tuple(Node.objects.select_related("cluster").order_by("cluster__name", "name"))


def _node(deployment: Deployment, row: Target) -> NodeProgress:
    seconds = None
    if row.reported_at is not None and row.status == Target.Status.ENFORCING:
        seconds = max(0.0, (row.reported_at - deployment.created_at).total_seconds())
    node = row.node
    retired = node.retired_at is not None
    online = node.online and not retired
    return NodeProgress(node.name, online, retired, Target.Status(row.status), row.reported_at, seconds, row.reason)


def _targets() -> Prefetch[str]:
    return Prefetch("targets", queryset=Target.objects.select_related("node").order_by("node__name"))

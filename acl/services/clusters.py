"""Clusters and their nodes, as operators arrange them. Nodes register themselves; an operator moves or retires them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.utils import timezone

from acl.models import Cluster, Node, Target
from acl.services.targets import settle
from audit import kinds
from audit.services.record import record
from cloudsignal import ids
from cloudsignal.errors import Conflict, Invalid, NotFound, quoted
from cloudsignal.tenancy.scopes import platform_scope
from orgs.models import Organization, User

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Operator:
    """The actor of an operator's change to clusters; its audit events belong to no organization."""

    actor: str
    ip: str = ""
    org_id: str | None = None


def create_cluster(operator: User, *, name: str, ip: str = "") -> Cluster:
    """A new, empty cluster. Raises :class:`Invalid` for a bad name and :class:`Conflict` when it is taken."""
    who = _operator(operator, ip)
    if not NAME.match(name):
        raise Invalid(
            "bad_name", "A name has up to 63 of a-z, 0-9 and -, and begins with a letter or digit.", field="name"
        )
    with platform_scope():
        cluster, made = Cluster.objects.get_or_create(name=name)
        if not made:
            raise Conflict("name_taken", f"There is a cluster {name} already.", field="name")
        record(who, kinds.CLUSTER_CREATED, target=f"cluster:{name}", after={"name": name})
    return cluster


def assign_organization(operator: User, org_id: str, *, cluster: str, ip: str = "") -> Organization:
    """Assign an organization to another cluster, whose nodes its deployments then wait for."""
    who = _operator(operator, ip)
    if not ids.ORG.match(org_id):
        raise NotFound("The organization")
    with platform_scope():
        to = _cluster(cluster)
        org = Organization.objects.select_for_update().select_related("cluster").filter(pk=org_id).first()
        if org is None:
            raise NotFound("The organization")
        before = org.cluster.name
        if before == cluster:
            raise Conflict("cluster_unchanged", f"The organization is on {cluster} already.")
        org.cluster = to
        org.save(update_fields=["cluster"])
        actor = Operator(who.actor, ip, org_id)
        record(actor, kinds.ORG_UPDATED, target=f"org:{org_id}", before={"cluster": before}, after={"cluster": cluster})
    return org


def retire_node(operator: User, name: str, *, ip: str = "") -> Node:
    """Retire a node, so that no deployment waits for it. A node started again under its name registers anew.

    Raises :class:`Conflict` while it is online: stop it first, or it would go on serving unseen.
    """
    who = _operator(operator, ip)
    with platform_scope():
        node = (
            Node.objects.select_for_update(no_key=True, of=["self"]).select_related("cluster").filter(name=name).first()
        )
        if node is None:
            raise NotFound("The node")
        if node.retired_at is not None:
            return node
        if node.online:
            raise Conflict("node_online", f"{name} is online. Stop it first; it is offline a few seconds later.")
        node.retired_at = timezone.now()
        node.save(update_fields=["retired_at"])
        settle([node])
        Target.objects.filter(node=node, status=Target.Status.PENDING).update(status=Target.Status.SUPERSEDED)
        record(who, kinds.NODE_RETIRED, target=f"node:{name}", before={"cluster": node.cluster.name})
    return node


def _cluster(name: str) -> Cluster:
    found = Cluster.objects.filter(name=name).first()
    if found is None:
        raise NotFound(f"The cluster {quoted(name[:63])}")
    return found


def _operator(user: User, ip: str) -> Operator:
    if not user.is_operator:
        raise NotFound()
    return Operator(f"operator:{user.email}", ip)

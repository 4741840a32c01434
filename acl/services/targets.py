"""Compute the status of a deployment from its targets."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection

from acl.models import Deployment, Node, Target
from acl.models.deployment import in_force
from orgs.models import Organization

LOCK_SECONDS = 3
"""How long a report waits for a deploy that is under way before it is tried again."""


UNFINISHED = (Deployment.Status.PENDING, Deployment.Status.REFUSED)


def settle(gone: Iterable[Node]) -> None:
    """Recompute deployments that await, or were refused by, nodes now offline. Needs the platform's scope.

    In the transaction that notes that they have gone: nobody would look again afterwards. Organizations are locked in
    order, so two that settle cannot wait for each other.
    """
    held = Target.objects.filter(
        node__in=gone, status__in=(Target.Status.PENDING, Target.Status.REFUSED), deployment__status__in=UNFINISHED
    )
    for org_id in sorted(set(held.values_list("org_id", flat=True))):
        lock(org_id)
        deployment = in_force(org_id)
        if deployment is not None and deployment.status in UNFINISHED:
            deployment.status = status_of(deployment)
            deployment.save(update_fields=["status"])


def lock(org_id: str) -> Organization | None:
    """The organization, locked: deploying locks it too before it touches targets. Waits a few seconds at most."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    return Organization.objects.select_for_update(no_key=True).filter(pk=org_id).first()


def status_of(deployment: Deployment) -> Deployment.Status:
    """``refused`` when a node that is online refuses, ``pending`` while one is awaited, else ``enforcing``.

    A deployment that nobody enforces yet stays pending, also when there is no node at all.
    """
    rows = Target.objects.filter(org_id=deployment.org_id, deployment=deployment)
    there = set(rows.filter(node__online=True, node__retired_at=None).values_list("status", flat=True))
    if Target.Status.REFUSED in there:
        return Deployment.Status.REFUSED
    if Target.Status.PENDING in there or not rows.filter(status=Target.Status.ENFORCING).exists():
        return Deployment.Status.PENDING
    return Deployment.Status.ENFORCING

"""The state of a deployment, worked out from its targets."""

from __future__ import annotations

from django.db import connection

from acl.models import Deployment, Target
from orgs.models import Organization
from orgs.tenancy import platform_scope

LOCK_SECONDS = 3
"""How long a report waits for a deploy that is under way before it is tried again."""


def settle(org_id: str, deployment_id: str) -> None:
    """Work the deployment's state out anew: a node it waited for has gone."""
    with platform_scope():
        if lock(org_id) is None:
            return
        deployment = Deployment.objects.filter(org_id=org_id, pk=deployment_id).first()
        if deployment is not None and deployment.status == Deployment.Status.PENDING:
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

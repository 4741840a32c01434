"""What nodes report on bundles, turned into targets and the state of a deployment."""

from __future__ import annotations

from datetime import UTC, datetime

from acl.models import Deployment, Target
from acl.services.nodes import known
from cloudsignal import ids, outbox
from cloudsignal.wire.report import BundleReport
from orgs.tenancy import org_scope, platform_scope


def apply_report(report: BundleReport) -> bool:
    """Note that a node enforces or refuses a bundle; False when it names nothing we know. Safe to apply twice.

    A node that joined after the deployment gets a target now. A target that enforces stays so: a report that comes late
    or again changes nothing. After a refusal the bundle is pushed again, in case Redis held a spoilt record.
    """
    if not ids.ORG.match(report.org) or not report.node:
        return False
    with platform_scope():
        node = known(report.node)
    with org_scope(report.org):
        deployment = Deployment.objects.select_for_update().filter(org_id=report.org, pk=report.deployment).first()
        if deployment is None:
            return False
        target, made = Target.objects.select_for_update().get_or_create(
            org_id=report.org, deployment=deployment, node=node
        )
        if target.status == Target.Status.ENFORCING:
            return True
        target.status = Target.Status(report.status)
        target.reported_at = datetime.fromtimestamp(report.at, UTC)
        target.reason = report.reason[:500]
        target.save(update_fields=["status", "reported_at", "reason"])
        _acknowledge(deployment, target, counts=not made)
        if target.status == Target.Status.REFUSED:
            outbox.enqueue("acl.tasks.push_bundle", org=report.org, key=report.org, payload={"org": report.org})
    return True


def _acknowledge(deployment: Deployment, target: Target, *, counts: bool) -> None:
    """Settle the deployment after one of its targets has. ``counts`` is false for a node that joined later."""
    at = target.reported_at
    if target.status == Target.Status.ENFORCING and at is not None and (counts or deployment.first_ack_at is None):
        deployment.first_ack_at = min(deployment.first_ack_at or at, at)
        deployment.last_ack_at = max(deployment.last_ack_at or at, at)
    if deployment.status != Deployment.Status.SUPERSEDED:
        deployment.status = _status(deployment)
    deployment.save(update_fields=["first_ack_at", "last_ack_at", "status"])


def _status(deployment: Deployment) -> Deployment.Status:
    rows = Target.objects.filter(org_id=deployment.org_id, deployment=deployment)
    states = list(rows.values_list("status", "node__online"))
    if any(status == Target.Status.REFUSED for status, _ in states):
        return Deployment.Status.REFUSED
    if any(status == Target.Status.PENDING and online for status, online in states):
        return Deployment.Status.PENDING
    return Deployment.Status.ENFORCING

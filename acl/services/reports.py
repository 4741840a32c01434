"""Apply the bundle reports of nodes to targets and deployments. Safe to apply twice or late."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db.models import Exists, OuterRef
from django.utils import timezone

from acl.models import Deployment, Node, Target
from acl.models.deployment import in_force
from acl.services.nodes import known
from acl.services.targets import lock, status_of
from cloudsignal import ids
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.report import BundleReport
from orgs.models import Organization
from orgs.publishing import push_again

logger = logging.getLogger(__name__)

WENT_BACK = "the node has started anew with an earlier version"


def apply_reports(reports: Sequence[BundleReport]) -> None:
    """Apply reports in order. A node that starts reports on every organization it serves; what is known is skipped."""
    names = {report.deployment for report in reports if report.status == "enforcing"}
    with platform_scope():
        newer = Deployment.objects.filter(org=OuterRef("org"), revision__gt=OuterRef("deployment__revision"))
        done = Target.objects.filter(~Exists(newer), deployment_id__in=names, status=Target.Status.ENFORCING)
        standing = set(done.values_list("org_id", "deployment_id", "node__name"))
    for report in reports:
        if report.status == "refused" or (report.org, report.deployment, report.node[:128]) not in standing:
            apply_report(report)


def apply_report(report: BundleReport) -> bool:
    """Note that a node enforces or refuses a bundle; False when it names nothing we know.

    A node that joined after the deployment gets a target now. Raises ``ValueError`` when the report makes no sense.
    """
    if not ids.ORG.match(report.org) or not report.node or not math.isfinite(report.at):
        raise ValueError("the report names no organization, no node or no time")
    with platform_scope():
        node = known(report.node)
        org = lock(report.org)
        if org is None:
            return False
        return _enforcing(org, node, report) if report.status == "enforcing" else _refused(org, node, report)


def _enforcing(org: Organization, node: Node, report: BundleReport) -> bool:
    deployment = Deployment.objects.select_related("version").filter(org=org, pk=report.deployment).first()
    if deployment is None or deployment.version.digest != report.digest:
        logger.warning("node %s enforces something of %s that was never deployed", node.name, org.pk)
        return False
    current = in_force(org.pk)
    if current is not None and deployment.revision < current.revision:
        return _went_back(org, node, report, current)
    if deployment.status == Deployment.Status.SUPERSEDED:
        return True
    _supersede(org, node, deployment)
    target, _ = Target.objects.get_or_create(org=org, deployment=deployment, node=node)
    if target.status != Target.Status.ENFORCING and not _replayed(target, report):
        _change(deployment, target, Target.Status.ENFORCING, at=_time(report, deployment), reason="")
    return True


def _went_back(org: Organization, node: Node, report: BundleReport, current: Deployment) -> bool:
    """Handle a node that acknowledged the active deployment and later reports an earlier one.

    It has lost its disk and met an old bundle: it is awaited again, and the page does not say that it enforces.
    """
    target = Target.objects.filter(org=org, deployment=current, node=node, status=Target.Status.ENFORCING).first()
    if target is None or _replayed(target, report) or not _restarted(node, target, _time(report, current)):
        return True
    push_again(org)
    _change(current, target, Target.Status.PENDING, at=_time(report, current), reason=WENT_BACK)
    return True


def _refused(org: Organization, node: Node, report: BundleReport) -> bool:
    """Handle a refused bundle, which was damaged, forged or old: push the active one again.

    A node that enforces the deployment already goes on with it. One that has been started since has nothing to go on
    with, denies everything, and so refuses.
    """
    push_again(org)
    deployment = in_force(org.pk)
    if deployment is None:
        return False
    target, _ = Target.objects.get_or_create(org=org, deployment=deployment, node=node)
    at = _time(report, deployment)
    if target.status == Target.Status.ENFORCING and (_replayed(target, report) or not _restarted(node, target, at)):
        return True
    _change(deployment, target, Target.Status.REFUSED, at=at, reason=report.reason)
    return True


def _change(deployment: Deployment, target: Target, status: Target.Status, *, at: datetime, reason: str) -> None:
    target.status, target.reported_at, target.reason = status, at, reason.replace("\0", "")[:500]
    target.save(update_fields=["status", "reported_at", "reason"])
    if status == Target.Status.ENFORCING and deployment.status != Deployment.Status.ENFORCING:
        # Once all have acknowledged the times stand: a node that joins next week did not make this deploy slow.
        deployment.first_ack_at = min(deployment.first_ack_at or at, at)
        deployment.last_ack_at = max(deployment.last_ack_at or at, at)
    deployment.status = status_of(deployment)
    deployment.save(update_fields=["first_ack_at", "last_ack_at", "status"])


def _supersede(org: Organization, node: Node, newer: Deployment) -> None:
    """Mark earlier pending targets of this node as superseded: a newer revision always wins."""
    older = Target.objects.filter(
        org=org, node=node, status=Target.Status.PENDING, deployment__revision__lt=newer.revision
    )
    older.update(status=Target.Status.SUPERSEDED)


def _replayed(target: Target, report: BundleReport) -> bool:
    """Whether the node has reported something newer about the deployment."""
    return target.reported_at is not None and report.at < target.reported_at.timestamp()


def _restarted(node: Node, target: Target, at: datetime) -> bool:
    acknowledged = target.reported_at
    return acknowledged is not None and node.started_at is not None and acknowledged < node.started_at <= at


def _time(report: BundleReport, deployment: Deployment) -> datetime:
    """The time in the report, limited to the range from the deployment to now: the node's clock is not trusted."""
    now = timezone.now()
    at = datetime.fromtimestamp(max(0.0, min(report.at, now.timestamp())), UTC)
    return max(deployment.created_at, min(at, now))

"""Deployments of policy versions, with one target per node."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from acl.models.cluster import Node
from acl.models.policy import PolicyVersion
from cloudsignal import ids


class Deployment(models.Model):
    """One version sent to the organization's cluster. The newest by ``revision`` is active."""

    class Kind(models.TextChoices):
        """How the deployment was started."""

        DEPLOY = "deploy"
        ROLLBACK = "rollback"

    class Status(models.TextChoices):
        """Seen over all targets: ``pending`` until every node enforces; ``refused`` when one refuses."""

        PENDING = "pending"
        ENFORCING = "enforcing"
        REFUSED = "refused"
        SUPERSEDED = "superseded"

    id = models.CharField(primary_key=True, max_length=20, default=ids.deployment_id, editable=False)
    org = models.ForeignKey("orgs.Organization", on_delete=models.CASCADE, related_name="deployments")
    version = models.ForeignKey(
        PolicyVersion, on_delete=models.CASCADE, related_name="deployments", db_constraint=False, db_index=False
    )
    kind = models.CharField(max_length=8, choices=Kind.choices)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    revision = models.BigIntegerField()
    """The organization's revision that this deployment made."""
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)
    first_ack_at = models.DateTimeField(null=True, blank=True)
    last_ack_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "id"], name="acl_deployment_org_id"),
            models.UniqueConstraint(fields=["org", "revision"], name="acl_deployment_revision"),
        ]

    def __str__(self) -> str:
        return self.id


class Target(models.Model):
    """The state of a deployment on one node: pending, enforcing, refused, or superseded by a newer deployment."""

    class Status(models.TextChoices):
        """The last status that the node reported."""

        PENDING = "pending"
        ENFORCING = "enforcing"
        REFUSED = "refused"
        SUPERSEDED = "superseded"

    org = models.ForeignKey("orgs.Organization", on_delete=models.CASCADE, related_name="targets")
    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="targets", db_constraint=False, db_index=False
    )
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="targets")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    reported_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "deployment", "node"], name="acl_target_node"),
            models.UniqueConstraint(fields=["org", "id"], name="acl_target_org_id"),
        ]

    def __str__(self) -> str:
        return f"{self.deployment_id} on {self.node_id}: {self.status}"


def in_force(org_id: str) -> Deployment | None:
    """The active deployment with its version and organization, read in one query.

    Needs the organization's scope, or the platform's.
    """
    return Deployment.objects.filter(org_id=org_id).select_related("version", "org").order_by("-revision").first()

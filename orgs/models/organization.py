"""Organizations and their memberships."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from cloudsignal import ids
from orgs.permissions import Role


class Organization(models.Model):
    """A tenant. Its id is the org part of every MQTT username and the name of its mountpoint; it never changes."""

    class Status(models.TextChoices):
        """``suspended`` disconnects all clients and keeps the data; ``deleting`` waits out its grace period."""

        ACTIVE = "active"
        SUSPENDED = "suspended"
        DELETING = "deleting"

    class PublishWhileSplit(models.TextChoices):
        """Whether edges acknowledge publishes while broker nodes are split; what crosses the split is then lost."""

        ACCEPT = "accept"
        REFUSE = "refuse"

    id = models.CharField(primary_key=True, max_length=16, default=ids.org_id, editable=False)
    name = models.CharField(max_length=80)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    cluster = models.ForeignKey("acl.Cluster", on_delete=models.PROTECT, related_name="organizations")
    revision = models.BigIntegerField(default=0)
    """Rises with every change that edges must know: policy, status, quotas. Never falls."""
    revised_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(default=timezone.now)
    suspended_at = models.DateTimeField(null=True, blank=True)
    """Set while an operator's suspension stands, also under ``deleting``: an owner cannot lift it by deleting."""
    suspended_reason = models.CharField(max_length=200, blank=True)
    delete_after = models.DateTimeField(null=True, blank=True)
    """While ``deleting``: the end of the grace period, when all data is deleted."""
    mfa_required = models.BooleanField(default=False)
    """Members without a second factor can only set one up."""
    allowed_origins = models.JSONField(default=list, blank=True)
    """Origins (RFC 6454) whose pages may call the token service, such as ``https://app.example.com``."""
    connections = models.PositiveIntegerField(default=1_000)
    messages_per_minute = models.PositiveIntegerField(default=60_000)
    packet_bytes = models.PositiveIntegerField(default=262_144)
    subscriptions_per_session = models.PositiveIntegerField(default=100)
    retained_messages = models.PositiveIntegerField(default=10_000)
    retained_bytes = models.PositiveIntegerField(default=16_777_216)
    stored_sessions = models.PositiveIntegerField(default=1_000)
    publish_while_split = models.CharField(
        max_length=10, choices=PublishWhileSplit.choices, default=PublishWhileSplit.ACCEPT
    )

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(id__regex=r"^org_[a-z2-7]{12}$"), name="orgs_organization_id"),
            models.CheckConstraint(
                condition=models.Q(status__in=["active", "suspended", "deleting"]), name="orgs_organization_status"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def bump(self) -> None:
        """Raise the revision, so that edges fetch the bundle. The caller holds the row's lock and saves it."""
        self.revision += 1
        self.revised_at = timezone.now()


class Membership(models.Model):
    """A person's role in an organization. Past ``ends_at`` (time-boxed auditors) it grants nothing."""

    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey("orgs.User", on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=[(role.value, role.value) for role in Role])
    ends_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "user"], name="orgs_membership_org_user"),
            models.UniqueConstraint(fields=["org", "id"], name="orgs_membership_org_id"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.org_id} as {self.role}"

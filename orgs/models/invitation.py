"""Invitations: a person who is asked to join, by email."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from orgs.models.organization import Organization
from orgs.permissions import Role


class Invitation(models.Model):
    """An invitation. Its link is signed and not stored: who reads this table can follow none."""

    id = models.CharField(primary_key=True, max_length=40, editable=False)
    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=10, choices=[(role.value, role.value) for role in Role])
    ends_at = models.DateTimeField(null=True, blank=True)
    """End of the membership (time-boxed auditors)."""
    round = models.PositiveIntegerField(default=1)
    """Rises with every resend: earlier links stop working."""
    invited_by = models.CharField(max_length=320)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "id"], name="orgs_invitation_org_id"),
            models.UniqueConstraint(
                fields=["org", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="orgs_invitation_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} to {self.org_id} as {self.role}"

    @property
    def state(self) -> str:
        """``open``, ``expired``, ``accepted`` or ``revoked``, as of now."""
        if self.accepted_at:
            return "accepted"
        if self.revoked_at:
            return "revoked"
        return "open" if self.expires_at > timezone.now() else "expired"

"""The draft a tenant edits and the immutable versions made from it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone


class PolicyDraft(models.Model):
    """The one draft of an organization. What stands here is enforced nowhere."""

    org = models.OneToOneField("orgs.Organization", on_delete=models.CASCADE, primary_key=True, related_name="draft")
    text = models.TextField(blank=True)
    revision = models.PositiveIntegerField(default=1)
    """Rises with every save; the ETag is made from it."""
    updated_at = models.DateTimeField(default=timezone.now)
    updated_by = models.CharField(max_length=320)

    def __str__(self) -> str:
        return f"draft {self.revision} of {self.org_id}"

    @property
    def etag(self) -> str:
        """Strong validator of the text (RFC 9110 s8.8.3), with its quotes."""
        return f'"draft-{self.revision}"'


class PolicyVersion(models.Model):
    """A version that was deployed. Never changed: the application role may not update the table."""

    org = models.ForeignKey("orgs.Organization", on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=71)
    document = models.BinaryField()
    """Canonical JSON, the bytes under the digest."""
    source = models.TextField()
    """The text as it was written, comments included."""
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "number"], name="acl_policyversion_number"),
            models.UniqueConstraint(fields=["org", "id"], name="acl_policyversion_org_id"),
        ]

    def __str__(self) -> str:
        return f"version {self.number} of {self.org_id}"

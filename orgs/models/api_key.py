"""Keys with which programs use the API of one organization."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from orgs.models.organization import Organization


class ApiKey(models.Model):
    """An API key. Only the SHA-256 of it is stored: it carries 160 random bits, so a fast hash is right."""

    class Kind(models.TextChoices):
        """The use of a key (CONTRACTS: "Identifiers")."""

        SECRET = "sk", "secret"
        RESTRICTED = "rk", "restricted"
        PUBLISHABLE = "pk", "publishable"

    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")
    person = models.ForeignKey(
        "orgs.User", on_delete=models.CASCADE, null=True, blank=True, related_name="api_keys", db_index=False
    )
    """The person of a CLI session, which may do no more than they may at that moment. None for keys of programs."""
    sign_on = models.CharField(max_length=20, blank=True)
    """The SSO connection of a CLI session that began in an SSO session: the key ends with that connection."""
    kind = models.CharField(max_length=2, choices=Kind.choices)
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=4)
    scopes = models.JSONField(default=list, blank=True)
    """Values of ``orgs.permissions.Permission``; only for restricted keys."""
    ip_allow = models.JSONField(default=list, blank=True)
    """Networks in CIDR form; empty allows every address."""
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    rotated_at = models.DateTimeField(null=True, blank=True)
    """Time of its rotation; it stays active beside its successor until ``expires_at``."""
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["org", "id"], name="orgs_apikey_org_id")]

    def __str__(self) -> str:
        return f"{self.kind}_...{self.hint}"

    @property
    def actor(self) -> str:
        """The actor in the audit: ``key:sk_...x7m4``, or ``key:rk_...x7m4 of EMAIL`` for a CLI session."""
        return f"key:{self} of {self.created_by.removeprefix('user:')}" if self.person_id else f"key:{self}"

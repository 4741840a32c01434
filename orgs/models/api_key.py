"""Keys with which programs use the API of one organization."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from orgs.models.organization import Organization


class ApiKey(models.Model):
    """An API key. Only the SHA-256 of it is stored: it carries 160 random bits, so a fast hash is right."""

    class Kind(models.TextChoices):
        """What a key may be used for (CONTRACTS: "Identifiers")."""

        SECRET = "sk", "secret"
        RESTRICTED = "rk", "restricted"
        PUBLISHABLE = "pk", "publishable"

    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")
    person = models.ForeignKey(
        "orgs.User", on_delete=models.CASCADE, null=True, blank=True, related_name="api_keys", db_index=False
    )
    """Whose command line it is: it may do no more than they may at that moment. None for keys of programs."""
    sign_on = models.CharField(max_length=20, blank=True)
    """For a command line of somebody who came through single sign-on: its id. The key ends with that way in."""
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
    """When it got its successor, beside which it works until ``expires_at``."""
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["org", "id"], name="orgs_apikey_org_id")]

    def __str__(self) -> str:
        return f"{self.kind}_...{self.hint}"

    @property
    def actor(self) -> str:
        """How the audit names who uses it: ``key:sk_...x7m4``, or ``key:rk_...x7m4 of EMAIL`` for a command line."""
        return f"key:{self} of {self.created_by.removeprefix('user:')}" if self.person_id else f"key:{self}"

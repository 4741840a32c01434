"""Identity providers whose JSON Web Tokens an organization exchanges for MQTT credentials."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from cloudsignal import ids
from orgs.models.organization import Organization


class IdentityProvider(models.Model):
    """An identity provider whose tokens are trusted, with its keys: ``jwks_url`` or ``secret``, never both."""

    class Kind(models.TextChoices):
        """Known services with defaults of their own, and any other."""

        SUPABASE = "supabase", "Supabase"
        FIREBASE = "firebase", "Firebase"
        AUTH0 = "auth0", "Auth0"
        CLERK = "clerk", "Clerk"
        OIDC = "oidc", "OpenID Connect"

    id = models.CharField(primary_key=True, max_length=20, default=ids.provider_id, editable=False)
    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="providers")
    name = models.CharField(max_length=63, db_collation="C")
    """The provider part of its identities (``MqttIdentity.provider``); never changes."""
    kind = models.CharField(max_length=10, choices=Kind.choices)
    issuer = models.CharField(max_length=255)
    audience = models.CharField(max_length=255)
    jwks_url = models.CharField(max_length=500, blank=True)
    algorithms = models.JSONField(default=list)
    """Signature algorithms (RFC 7518 s3.1) that are accepted; no others ever are."""
    secret = models.BinaryField(null=True, blank=True)
    """A shared secret, encrypted (``cloudsignal.secrets.sealing``)."""
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)
    changed_by = models.CharField(max_length=320, blank=True, default="", db_default="")
    """The actor who last changed issuer or keys; empty while that is ``created_by``."""
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "name"], name="orgs_identityprovider_name"),
            models.UniqueConstraint(fields=["org", "id"], name="orgs_identityprovider_org_id"),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.org_id}"

"""MQTT identities and the secrets that sign them in. A secret itself is never stored, only its keyed hash."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from orgs.models.organization import Organization


class MqttIdentity(models.Model):
    """One MQTT username of an organization: who a client is, across all of its secrets.

    ``provider`` and ``external_id`` say whose identity it is elsewhere (identity provider or integration and its user
    id); asking again for the same one reissues on the same username and keeps its claims.
    """

    # No index of its own: several begin with it, and with one more the check of a foreign key from the credentials may
    # settle on it while the table is young, which reads every name of the organization for every row.
    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="identities", db_index=False)
    username = models.CharField(max_length=63, db_collation="C")
    static = models.BooleanField(default=False)
    """The flagged exception: its credentials do not expire."""
    provider = models.CharField(max_length=64, blank=True)
    external_id = models.CharField(max_length=255, blank=True)
    email = models.CharField(max_length=254, blank=True)
    claims = models.JSONField(default=dict, blank=True)
    note = models.CharField(max_length=200, blank=True)
    revision = models.BigIntegerField(default=0)
    """Rises with every change an edge must know of."""
    revised_at = models.DateTimeField(default=timezone.now)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "username"], name="orgs_mqttidentity_username"),
            models.UniqueConstraint(fields=["org", "id"], name="orgs_mqttidentity_org_id"),
            models.UniqueConstraint(
                fields=["org", "provider", "external_id"],
                condition=~models.Q(external_id=""),
                name="orgs_mqttidentity_external",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["revised_at"], name="orgs_mqttidentity_revised")]

    def __str__(self) -> str:
        return f"{self.username}@{self.org_id}"


class Credential(models.Model):
    """One secret of an identity. ``expires_at`` None marks a static one."""

    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="credentials", db_index=False)
    identity = models.ForeignKey(
        MqttIdentity, on_delete=models.CASCADE, related_name="credentials", db_constraint=False, db_index=False
    )
    token_id = models.CharField(max_length=40, unique=True)
    mac = models.BinaryField(max_length=32)
    """``cloudsignal.wire.credential.secret_mac``, 32 bytes."""
    hint = models.CharField(max_length=4)
    """The last four characters of the secret, so that a person can tell two apart."""
    issued_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    refreshed_from = models.CharField(max_length=40, blank=True)
    """Token id of the secret this one was refreshed from."""
    created_by = models.CharField(max_length=320)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["org", "id"], name="orgs_credential_org_id")]
        indexes: ClassVar = [
            models.Index(fields=["org", "identity", "issued_at"], name="orgs_credential_identity"),
            models.Index(fields=["org", "-issued_at", "-id"], name="orgs_credential_newest"),
            models.Index(fields=["org", "expires_at"], name="orgs_credential_org_expires"),
            models.Index(fields=["expires_at"], name="orgs_credential_expires"),
            models.Index(
                fields=["org", "-issued_at", "-id"],
                condition=models.Q(revoked_at__isnull=False),
                name="orgs_credential_revoked",
            ),
        ]

    def __str__(self) -> str:
        return self.token_id

    @property
    def state(self) -> str:
        """``active``, ``static``, ``expired`` or ``revoked``, as of now.

        Revoking an identity revokes those of its secrets that have not expired, so their own field says it all.
        """
        if self.revoked_at:
            return "revoked"
        if self.expires_at is None:
            return "static"
        return "active" if self.expires_at > timezone.now() else "expired"

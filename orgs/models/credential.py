"""MQTT identities and their credentials. A secret itself is never stored, only its keyed hash."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from orgs.models.organization import Organization

RENEWED_AT_MOST = timedelta(hours=24)
"""The longest life of a client's first password, from its issue, while the client refreshes without a break."""


def unended(now: datetime) -> Q:
    """Secrets that are neither revoked nor expired at ``now``; retired ones too, on which sessions may live.

    The first bound of the last part is implied by :data:`RENEWED_AT_MOST`; it lets an index on ``expires_at`` serve.
    """
    renewed = Q(expires_at__gt=now - RENEWED_AT_MOST, renewed_until__gt=now)
    return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now) | renewed)


def signing_in(now: datetime) -> Q:
    """Secrets that are accepted at sign-in at ``now``."""
    return unended(now) & Q(retired_at=None)


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
    """Whether its credentials never expire: the flagged exception."""
    provider = models.CharField(max_length=64, blank=True)
    external_id = models.CharField(max_length=255, blank=True)
    email = models.CharField(max_length=254, blank=True)
    claims = models.JSONField(default=dict, blank=True)
    note = models.CharField(max_length=200, blank=True)
    revision = models.BigIntegerField(default=0)
    """Rises with every change that edges must know."""
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
    first = models.CharField(max_length=40, blank=True, default="", db_default="")
    """Token id of the secret that the refreshes began with; empty for that one itself."""
    renewed_at = models.DateTimeField(null=True, blank=True)
    """Time of the client's last refresh; set on a first secret only."""
    renewed_until = models.DateTimeField(null=True, blank=True)
    """Later expiry of a first secret whose client refreshes without a break. Many MQTT libraries reconnect with the
    password they began with."""
    retired_at = models.DateTimeField(null=True, blank=True)
    """Time at which it made room for newer ones: it signs in no more. Its sessions go on, and it can be refreshed."""
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
        """``active``, ``static``, ``retired``, ``expired`` or ``revoked``, as of now.

        Revoking an identity revokes those of its secrets that have not expired, so their own field says it all.
        """
        if self.revoked_at:
            return "revoked"
        if self.expires_at is None:
            return "static"
        now = timezone.now()
        if self.expires_at <= now and (self.renewed_until is None or self.renewed_until <= now):
            return "expired"
        return "retired" if self.retired_at else "active"

    @property
    def ends_at(self) -> datetime | None:
        """Time after which it is not accepted: its expiry, or later while its client refreshes; None if static."""
        return max(self.expires_at, self.renewed_until or self.expires_at) if self.expires_at else None

    @property
    def refreshable(self) -> bool:
        """Whether it can be refreshed: short-lived, not expired, not revoked. A retired one can."""
        return self.revoked_at is None and self.ends_at is not None and self.ends_at > timezone.now()

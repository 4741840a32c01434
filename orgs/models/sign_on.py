"""SSO connections: identity providers that sign members in to the dashboard.

Not :class:`~orgs.models.IdentityProvider`, whose tokens are exchanged for MQTT credentials of the organization's users.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from cloudsignal import ids
from orgs.models.organization import Organization
from orgs.permissions import Role


class SingleSignOn(models.Model):
    """An SSO connection. OIDC uses ``issuer``, ``client_id`` and mostly ``secret``; SAML uses ``metadata``."""

    class Kind(models.TextChoices):
        """The protocol."""

        OIDC = "oidc", "OpenID Connect"
        SAML = "saml", "SAML 2.0"

    id = models.CharField(primary_key=True, max_length=20, default=ids.sign_on_id, editable=False)
    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="sign_ons")
    kind = models.CharField(max_length=4, choices=Kind.choices)
    name = models.CharField(max_length=63)
    """The label of its button on the sign-in page."""
    issuer = models.CharField(max_length=255)
    """OIDC: the issuer. SAML: the entity ID that the metadata names."""
    client_id = models.CharField(max_length=255, blank=True)
    secret = models.BinaryField(null=True, blank=True)
    """The client's secret, encrypted (``cloudsignal.secrets.sealing``); None for a public client and for SAML."""
    algorithms = models.JSONField(default=list)
    """Signature algorithms of ID tokens that are accepted (RFC 7518 s3.1); no others ever are."""
    metadata = models.TextField(blank=True)
    """The identity provider's SAML metadata, as it was pasted or fetched when this was saved."""
    domains = models.JSONField(default=list, blank=True)
    """Email domains that the organization claims, in lowercase."""
    approved_domains = models.JSONField(default=list, blank=True)
    """The domains that an operator has approved; only there are the provider's email addresses trusted."""
    role = models.CharField(max_length=10, blank=True, choices=[(role.value, role.value) for role in Role])
    """The role of new members from approved domains; if empty, only invited people can sign in."""
    required = models.BooleanField(default=False)
    """Whether members must sign in through SSO; owners can sign in with a second factor instead."""
    enabled = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=320)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "name"], name="orgs_singlesignon_name"),
            models.UniqueConstraint(fields=["org", "id"], name="orgs_singlesignon_org_id"),
            models.CheckConstraint(condition=~models.Q(role="owner"), name="orgs_singlesignon_no_owners"),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.org_id}"


class SignOnAccount(models.Model):
    """The link of an SSO connection's ``subject`` to the ``user`` who signs in with it."""

    org = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="sign_on_accounts")
    sign_on = models.ForeignKey(
        SingleSignOn, on_delete=models.CASCADE, related_name="accounts", db_constraint=False, db_index=False
    )
    user = models.ForeignKey("orgs.User", on_delete=models.CASCADE, related_name="sign_on_accounts")
    subject = models.CharField(max_length=255, db_collation="C")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["org", "sign_on", "subject"], name="orgs_signonaccount_subject"),
            models.UniqueConstraint(fields=["org", "sign_on", "user"], name="orgs_signonaccount_user"),
            models.UniqueConstraint(fields=["org", "id"], name="orgs_signonaccount_org_id"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} through {self.sign_on_id}"

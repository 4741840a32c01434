"""Audit of account changes: passwords, second factors, passkeys, email addresses.

An account belongs to a person, and what it opens to organizations: each of them that the person is a member of has the
event in its audit, because an auditor asks there who could come in and how. None learns of the others. The platform's
own log has it for operators, and for people who are in no organization yet.
"""

from __future__ import annotations

from django.db import transaction

from audit import kinds
from audit.services.record import record
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from orgs.actors import SystemActor
from orgs.models import Membership, User

CHANGES = {
    "account/email/password_changed": "password changed",
    "account/email/password_set": "password set",
    "account/email/password_reset": "password reset by email",
    "account/email/email_changed": "email address changed",
    "account/email/email_deleted": "email address removed",
    "mfa/email/totp_activated": "authenticator app added",
    "mfa/email/totp_deactivated": "authenticator app removed",
    "mfa/email/recovery_codes_generated": "recovery codes generated",
    "mfa/email/webauthn_added": "passkey added",
    "mfa/email/webauthn_removed": "passkey removed",
}
"""The audited change by django-allauth's notification template; it contains no secret."""


def record_account_change(person: User, change: str, *, ip: str = "") -> None:
    """Record a change in the audit log of each organization of the person; ``change`` is from :data:`CHANGES`."""
    with transaction.atomic():
        with user_scope(person.pk):
            orgs = sorted(Membership.objects.filter(user=person).values_list("org_id", flat=True))
        for org_id in orgs:
            with org_scope(org_id):
                _record(SystemActor(org_id, f"user:{person.email}", ip), person, change)
        if person.is_operator or not orgs:
            with platform_scope():
                _record(SystemActor(None, f"user:{person.email}", ip), person, change)


def _record(actor: SystemActor, person: User, change: str) -> None:
    record(actor, kinds.ACCOUNT_CHANGED, target=f"user:{person.email}", after={"change": change})

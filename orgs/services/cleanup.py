"""Deleting what has no use any more."""

from __future__ import annotations

from datetime import datetime

from orgs.models import Credential
from orgs.tenancy import platform_scope

BATCH = 5_000
ROUNDS = 100


def delete_expired(*, before: datetime) -> int:
    """Delete the credentials that expired before ``before``, in transactions of :data:`BATCH`; returns how many."""
    total = 0
    for _ in range(ROUNDS):
        with platform_scope():
            old = Credential.objects.filter(expires_at__lt=before).values_list("pk", flat=True)[:BATCH]
            deleted, _ = Credential.objects.filter(pk__in=list(old)).delete()
        total += deleted
        if deleted < BATCH:
            break
    return total

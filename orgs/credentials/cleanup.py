"""Deletion of expired credentials and browser sessions."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session

from cloudsignal.tenancy.scopes import platform_scope
from orgs.models import Credential

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


def clear_sessions() -> None:
    """Delete expired browser sessions, anonymous ones included, and their rows in people's session lists."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    UserSession.objects.exclude(session_key__in=Session.objects.values("session_key")).delete()

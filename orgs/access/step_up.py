"""Step-up: dangerous actions require a recent authentication, not only a session.

Whoever has a stolen cookie or an unlocked laptop can then read, but not delete an organization or create a key.
"""

from __future__ import annotations

import time

from allauth.account.authentication import get_authentication_records
from django.http import HttpRequest

from cloudsignal.errors import Forbidden

RECENT_SECONDS = 300
CODE = "reauthentication_required"


def is_recent(request: HttpRequest) -> bool:
    """Whether the person has signed in or reauthenticated within :data:`RECENT_SECONDS`."""
    now = time.time()
    records = get_authentication_records(request, request.user)
    return any(0 <= now - float(record.get("at", 0)) < RECENT_SECONDS for record in records)


def require_recent(request: HttpRequest) -> None:
    """Raise :class:`Forbidden` (``reauthentication_required``) unless :func:`is_recent`."""
    if not is_recent(request):
        raise Forbidden(CODE, "Confirm your identity: enter your password or second factor again.")

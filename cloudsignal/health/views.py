"""``/healthz`` says that the process answers; ``/readyz`` that it can do its work."""

from __future__ import annotations

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from cloudsignal.redis import fast_client

TOLD: dict[str, Callable[[], str]] = {}
"""Further members of the body of ``/readyz``, by name: ``ok``, or what is wrong in words that anybody may read.

Nothing of it makes the control plane unready: a balancer that took it away would change nothing about it.
"""


@require_safe
@never_cache
def healthz(_request: HttpRequest) -> JsonResponse:
    """Liveness: 200 as long as the process answers. Asks nothing of the database or Redis."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def readyz(_request: HttpRequest) -> JsonResponse:
    """Readiness: 200 when PostgreSQL and Redis answer and row-level security binds the application role, else 503.

    The body also lists what is wrong elsewhere (:data:`TOLD`).
    """
    parts = {"database": _database(), "redis": _redis()}
    ready = all(state == "ok" for state in parts.values())
    told = {name: _told(ask) if parts["database"] == "ok" else "unknown" for name, ask in TOLD.items()}
    body = {"status": "ok" if ready else "unavailable", **parts, **told}
    return JsonResponse(body, status=200 if ready else 503)


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except (DatabaseError, OSError):
        return "unknown"


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            row = cursor.fetchone()
    except (DatabaseError, OSError):
        return "unavailable"
    return "the application role bypasses row-level security" if row is None or row[0] else "ok"


def _redis() -> str:
    try:
        fast_client().ping()
    except (RedisError, OSError):
        return "unavailable"
    return "ok"

"""Cross-origin requests to the token service (Fetch standard): from the origins an organization has allowed, no others.

No cookie is ever involved, so ``Access-Control-Allow-Credentials`` is never sent. A preflight names no organization
unless the URL does; it is granted when any organization allows the origin, and the real answer is readable only for an
origin of the organization it belongs to.
"""

from __future__ import annotations

from rest_framework.request import Request

from orgs.models import Organization
from orgs.tenancy import org_scope, platform_scope

HEADERS = "Authorization, Content-Type, Idempotency-Key"
MAX_AGE = "600"
"""Seconds a browser remembers a preflight."""
EXPOSED = "Retry-After"


def is_allowed(origin: str, org: Organization | None) -> bool:
    """Whether pages of ``origin`` may read answers about ``org``; None asks about any organization."""
    if org is not None:
        return origin in org.allowed_origins
    with platform_scope():
        return Organization.objects.filter(allowed_origins__contains=[origin]).exists()


def named_organization(request: Request) -> Organization | None:
    """The organization in the query, if there is one."""
    named = request.query_params.get("organization_id", "")
    if not named.startswith("org_") or not named.isascii() or "\0" in named:
        return None
    with org_scope(named):
        return Organization.objects.filter(pk=named).first()


def answer_headers(origin: str, *, allowed: bool) -> dict[str, str]:
    """Headers of a real answer."""
    headers = {"Vary": "Origin"}
    if allowed:
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}
    return headers


def preflight_headers(origin: str, methods: str, *, allowed: bool) -> dict[str, str]:
    """Headers of the answer to a preflight."""
    headers = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    if allowed:
        headers |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": MAX_AGE,
        }
    return headers

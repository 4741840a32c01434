"""Cross-origin requests to the token service (Fetch standard): from the origins an organization has allowed, no others.

No cookie is ever involved, so ``Access-Control-Allow-Credentials`` is never sent. A preflight names no organization
unless the URL does; it is granted when any organization allows the origin, and the real answer is readable only for an
origin of the organization it belongs to.
"""

from __future__ import annotations

from rest_framework.request import Request

from orgs.access.grants import known_organization
from orgs.models import Organization

HEADERS = "Authorization, Content-Type, Idempotency-Key"
MAX_AGE = "600"
"""Seconds a browser remembers a preflight."""
EXPOSED = "Retry-After"


def named_organization(request: Request) -> Organization | None:
    """The organization in the query, if there is one."""
    return known_organization(request.query_params.get("organization_id", ""))


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

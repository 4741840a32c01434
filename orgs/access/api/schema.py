"""OpenAPI: the security schemes, and the parameter of every organization operation."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter

ORGANIZATION = OpenApiParameter(
    "organization_id",
    {"type": "string", "pattern": "^org_[a-z2-7]{12}$"},
    description="The organization. A key has one already; a person who is signed in must name it.",
)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme of API keys: ``Authorization: Bearer sk_...``."""

    target_class = "orgs.access.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the HTTP bearer scheme."""
        return {"type": "http", "scheme": "bearer", "description": "An API key: sk_, rk_ (scopes) or pk_."}


class PersonScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme of the dashboard's session cookie."""

    target_class = "orgs.access.api.authentication.PersonAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the cookie scheme."""
        said = "The dashboard's own session."
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME, "description": said}

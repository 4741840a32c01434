"""The JSON Schema of the policy document, for editors outside the browser."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from acl.policy.language.schema import schema_text
from orgs.access.web.gate import public_page


@public_page()
def policy_schema(request: HttpRequest) -> HttpResponseBase:
    """The schema as it is published with the package. Public on purpose: it is the same for everybody."""
    return HttpResponse(schema_text(), content_type="application/schema+json")

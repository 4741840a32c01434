"""Views: the OpenAPI schema, its documentation page, and 404 for unknown URLs of the API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from cloudsignal.api import problems
from cloudsignal.api.schema import document
from cloudsignal.errors import NotFound


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on the documentation page."""

    method: str
    path: str
    name: str
    summary: str
    parameters: tuple[dict[str, Any], ...]
    fields: tuple[tuple[str, str, bool, str], ...]
    """Of the request body: name, type, whether it is required, what it means."""
    answers: tuple[tuple[str, str], ...]


@require_safe
def schema(_request: HttpRequest) -> HttpResponseBase:
    """The OpenAPI 3.1 document as JSON."""
    return JsonResponse(document(), content_type="application/vnd.oai.openapi+json")


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document as a page for people, without JavaScript and without other hosts."""
    found = document()
    groups: dict[str, list[Operation]] = {}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(found, path, method, operation))
    return render(request, "platform/api.html", {"groups": sorted(groups.items()), "info": found["info"]})


@csrf_exempt
def unknown(request: HttpRequest) -> HttpResponseBase:
    """Answer 404 for a URL that the API does not have."""
    return refused(request, NotFound("This address", code="no_such_address"))


TOKEN_SERVICE = re.compile(r"/v2/(tokens|users/[^/]+/claims)(/|$)")
"""Where refusals have the token service's shape, also those that no operation gives."""


def refused(request: HttpRequest, error: Exception) -> HttpResponse:
    """Answer a refusal that no operation made, in the format of the requested part of the API."""
    return respond(request.path, problems.problem_of(error))


def respond(path: str, found: problems.Problem) -> HttpResponse:
    """The problem as the answer to a request for ``path``."""
    headers = problems.headers(found)
    if TOKEN_SERVICE.match(path):
        code = {404: "not_found", 400: "invalid_request", 408: "invalid_request", 413: "invalid_request"}
        data = {"error": code.get(found.status, "internal"), "error_description": found.detail}
        return JsonResponse(data, status=found.status, headers=headers)
    return JsonResponse(
        problems.render(found).data, status=found.status, content_type=problems.CONTENT_TYPE, headers=headers
    )


def _operation(found: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> Operation:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    schema = _resolve(found, body)
    required = set(schema.get("required", ()))
    fields = tuple(
        (name, _type(found, part), name in required, str(part.get("description", "")))
        for name, part in schema.get("properties", {}).items()
    )
    answers = tuple((status, str(each.get("description", ""))) for status, each in operation["responses"].items())
    return Operation(
        method.upper(),
        path,
        str(operation.get("operationId", "")),
        str(operation.get("description", "")),
        tuple(operation.get("parameters", ())),
        fields,
        answers,
    )


def _resolve(found: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return dict(found["components"]["schemas"].get(name, {})) if name else schema


def _type(found: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in schema or "allOf" in schema:
        inner = schema if "$ref" in schema else schema["allOf"][0]
        return _type(found, _resolve(found, inner))
    kind = schema.get("type", "object")
    if kind == "array":
        return f"list of {_type(found, schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)

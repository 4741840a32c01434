"""The OpenAPI document: the refusals that any operation may answer are added once, here."""

from __future__ import annotations

import copy
from functools import cache
from http import HTTPStatus
from typing import Any

from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `detail` says what happened and what to do.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "The field that is wrong."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "path": {"type": "string"},
                    "line": {"type": "integer"},
                },
                "required": ["message", "path", "line"],
            },
        },
    },
    "required": ["type", "title", "status", "code", "detail"],
}
TOKEN_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    "required": ["error", "error_description"],
}
ANY = (400, 401, 403, 404, 405, 429, 503)
WITH_BODY = (409, 412, 413, 415, 422)
OF_TOKENS = (400, 401, 404, 405, 422, 429, 503)
RETRY_AFTER = {
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait.", "required": True},
}
IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9._:-]+$"},
    "description": "The same key within a day gets the first response again; the work is done once.",
}


def document_refusals(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: add problem answers, the token service's own errors, and ``Idempotency-Key``."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"], schemas["TokenError"] = copy.deepcopy(PROBLEM), copy.deepcopy(TOKEN_ERROR)
    for operations in result["paths"].values():
        for method, operation in operations.items():
            own = operation.pop("x-token-errors", False)
            writes = method in {"post", "put", "patch", "delete"}
            statuses = OF_TOKENS if own else (*ANY, *WITH_BODY) if writes else (*ANY, 422)
            for status in statuses:
                operation["responses"].setdefault(str(status), _refusal(status, own=own))
            if method == "post" and not own:
                operation.setdefault("parameters", []).append(copy.deepcopy(IDEMPOTENCY))
    return result


def _refusal(status: int, *, own: bool) -> dict[str, Any]:
    name, media_type = ("TokenError", "application/json") if own else ("Problem", "application/problem+json")
    answer: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        answer["headers"] = copy.deepcopy(RETRY_AFTER)
    return answer


@cache
def document() -> dict[str, Any]:
    """The whole OpenAPI document, made once a process."""
    patterns = [path("v2/", include("cloudsignal.api.urls"))]
    return dict(SchemaGenerator(patterns=patterns).get_schema(request=None, public=True))  # type: ignore[no-untyped-call]

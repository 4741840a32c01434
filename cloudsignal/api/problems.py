"""Errors of the management API as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from cloudsignal.errors import DomainError, Limit

CONTENT_TYPE = "application/problem+json"


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. Anything unknown stays a 500 that says nothing of its inside."""
    if isinstance(error, DomainError):
        return domain_problem(error)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, exceptions.ValidationError):
        return problem(422, "invalid", "The request has errors.", errors=_fields(error.detail))
    if isinstance(error, exceptions.APIException):
        headers = {"Retry-After": str(error.wait or 60)} if isinstance(error, exceptions.Throttled) else {}
        code = error.get_codes()
        return problem(
            error.status_code, code if isinstance(code, str) else "invalid", str(error.detail), headers=headers
        )
    return None


def domain_problem(error: DomainError) -> Response:
    """The answer to a domain error."""
    extra: dict[str, Any] = {}
    if error.field:
        extra["field"] = error.field
    if error.details:
        extra["errors"] = [
            {"message": detail.message, "path": detail.path, "line": detail.line} for detail in error.details
        ]
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Limit) else {}
    return problem(int(error.status), error.code, error.message, headers=headers, **extra)


def problem(status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    """A problem document: ``type``, ``title``, ``status``, ``detail``, ``code`` and what else is said."""
    body = {"type": "about:blank", "title": code.replace("_", " "), "status": status, "detail": detail, "code": code}
    response = Response({**body, **extra}, status=status, headers=headers or {})
    response.content_type = CONTENT_TYPE
    return response


def _fields(detail: Any) -> list[dict[str, str]]:
    if isinstance(detail, dict):
        return [
            {"path": name if not nested["path"] else f"{name}.{nested['path']}", "message": nested["message"]}
            for name, value in detail.items()
            for nested in _fields(value)
        ]
    if isinstance(detail, list):
        return [{"path": "", "message": str(item)} for item in detail]
    return [{"path": "", "message": str(detail)}]

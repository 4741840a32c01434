"""Refusals as ``application/problem+json`` (RFC 9457): domain errors and the framework's own, mapped once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.utils import InterfaceError, OperationalError
from django.http import Http404
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.response import Response

from cloudsignal.errors import Detail, DomainError, Unavailable

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as status, code and message, independent of its rendering."""

    status: HTTPStatus
    code: str
    detail: str
    field: str | None = None
    errors: tuple[Detail, ...] = ()
    retry_after: int | None = None


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """Django REST framework's hook: any exception of a view as problem+json."""
    return render(problem_of(error))


def render(problem: Problem) -> Response:
    """The problem as a response; ``code`` is the stable word, ``errors`` lists findings one by one."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.field:
        body["field"] = problem.field
    if problem.errors:
        body["errors"] = [{"message": each.message, "path": each.path, "line": each.line} for each in problem.errors]
    return Response(body, status=int(problem.status), headers=headers(problem), content_type=CONTENT_TYPE)


def headers(problem: Problem) -> dict[str, str]:
    """The headers of a problem: ``Retry-After`` and ``WWW-Authenticate``."""
    found: dict[str, str] = {}
    if problem.retry_after is not None:
        found["Retry-After"] = str(problem.retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = 'Bearer realm="CloudSignal"'
    return found


def problem_of(error: Exception) -> Problem:
    """Map an exception to a problem. Unexpected errors are logged and answered only as ``internal``."""
    match error:
        case DomainError():
            retry = error.retry_after
            found = Problem(error.status, error.code, error.message, error.field, error.details, retry)
        case exceptions.ValidationError():
            found = _invalid(error)
        case exceptions.APIException():
            found = _framework(error)
        case Http404():
            found = Problem(HTTPStatus.NOT_FOUND, "not_found", "Not found.")
        case PermissionDenied():
            found = Problem(HTTPStatus.FORBIDDEN, "forbidden", "You are not allowed to do this.")
        case OperationalError() | InterfaceError() | RedisError():
            logger.error("a backend service is unavailable: %s", type(error).__name__)
            found = problem_of(Unavailable("unavailable", "A backend service is unavailable; retry in 5 seconds."))
        case _:
            logger.error("unexpected error: %s", type(error).__name__, exc_info=error)
            detail = "Something went wrong on our side; it has been logged."
            found = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)
    return found


def _invalid(error: exceptions.ValidationError) -> Problem:
    errors = tuple(_flat(error.detail, ""))
    first = errors[0] if errors else Detail("The input is not valid.")
    detail = f"{first.path}: {first.message}" if first.path else first.message
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail, first.path or None, errors)


def _framework(error: exceptions.APIException) -> Problem:
    status = HTTPStatus(error.status_code)
    code = {
        HTTPStatus.BAD_REQUEST: "malformed",
        HTTPStatus.UNAUTHORIZED: "unauthorized",
        HTTPStatus.FORBIDDEN: "forbidden",
        HTTPStatus.NOT_FOUND: "not_found",
        HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
    }.get(status, "refused")
    return Problem(status, code, str(error.detail))


def _flat(detail: Any, path: str) -> Iterator[Detail]:
    """Nested validation messages as a list of messages with their paths."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            here = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
            yield from _flat(inner, here)
    elif isinstance(detail, list):
        for position, inner in enumerate(detail):
            nested = isinstance(inner, dict | list)
            yield from _flat(inner, f"{path}[{position}]" if nested else path)
    else:
        yield Detail(str(detail), path)

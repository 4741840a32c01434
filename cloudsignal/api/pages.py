"""Paged lists: ``{"data": [...], "next_cursor": ...}``, continued with the cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.errors import Invalid

R = TypeVar("R")

LIMIT_DEFAULT = 50
LIMIT_MAX = 200

PARAMETERS = (
    OpenApiParameter("cursor", str, description="`next_cursor` of the page before."),
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, description="Rows."
    ),
)


def page(
    rows: Iterable[Any],
    serializer: type[serializers.BaseSerializer[Any]],
    *,
    next_cursor: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Response:
    """One page of a list."""
    data = [serializer(row, context=dict(context or {})).data for row in rows]
    return Response({"data": data, "next_cursor": next_cursor})


def first_page(
    rows: Sequence[R],
    serializer: type[serializers.BaseSerializer[Any]],
    *,
    limit: int,
    cursor: Callable[[R], object],
) -> Response:
    """The first ``limit`` of ``rows``; when there are more, with the ``cursor`` of the last one shown."""
    following = str(cursor(rows[limit - 1])) if len(rows) > limit else None
    return page(rows[:limit], serializer, next_cursor=following)


def limit_of(request: Request) -> int:
    """The page size that the caller wants; raises :class:`Invalid` unless it lies between 1 and :data:`LIMIT_MAX`."""
    text = request.query_params.get("limit", "")
    if not text:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= LIMIT_MAX):
        raise Invalid("bad_limit", f"The limit is a whole number from 1 to {LIMIT_MAX}.", field="limit")
    return int(text)


def number_cursor(request: Request) -> int | None:
    """Read the cursor of a list that is ordered by number; raises :class:`Invalid` for any other text."""
    text = request.query_params.get("cursor", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise Invalid("bad_cursor", "The cursor is not valid for this list; start from the first page.", field="cursor")
    return int(text)


def page_serializer(row: type[serializers.BaseSerializer[Any]]) -> type[serializers.Serializer[Any]]:
    """The schema of a page of ``row``."""
    name = row.__name__.removesuffix("Serializer") + "Page"
    fields = {
        "data": row(many=True),
        "next_cursor": serializers.CharField(allow_null=True, help_text="None on the last page."),
        "__doc__": "",
        "__module__": __name__,
    }
    return type(f"{name}Serializer", (serializers.Serializer,), fields)

"""Request bodies: bounded, strict JSON, and text that the database can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.http.request import RawPostDataException
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

DEPTH_MAX = 40


class TooLarge(APIException):
    """The body is larger than this operation takes: 413."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is too large."
    default_code = "too_large"


class JsonParser(BaseParser):
    """RFC 8259 JSON in UTF-8: no NaN, no duplicate names, no NUL, no lone surrogates, bounded in size and depth."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The decoded document; raises ``ParseError`` (400) or :class:`TooLarge` (413)."""
        try:
            text = read_body(stream, settings.API_BODY_MAX).decode()
            document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        except UnicodeDecodeError:
            raise ParseError("The body is not valid UTF-8.") from None
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except ValueError as error:
            raise ParseError(f"The body is not valid JSON: {error}"[:300]) from None
        check(document)
        return document


class CsvParser(BaseParser):
    """A CSV file as the body, in UTF-8 with or without a byte order mark; yields its text."""

    media_type = "text/csv"

    def parse(  # type: ignore[override]
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> str:
        """The text; raises ``ParseError`` (400) or :class:`TooLarge` (413)."""
        try:
            text = read_body(stream, settings.API_BODY_MAX).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ParseError("The file is not valid UTF-8.") from None
        if "\0" in text:
            raise ParseError("The file contains NUL.")
        return text


def read_body(stream: IO[Any], limit: int) -> bytes:
    """At most ``limit`` bytes of the body; one more raises :class:`TooLarge` without reading the rest."""
    try:
        body = stream.read(limit + 1)
    except RawPostDataException:
        raise ParseError("The body could not be read.") from None
    if len(body) > limit:
        raise TooLarge(f"The request body may have at most {limit} bytes.")
    return bytes(body)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL, nothing that is not Unicode."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check(document: Any, depth: int = 0) -> None:
    """Raise ``ParseError`` for strings that no part of the system can store, and for bottomless nesting."""
    if depth > DEPTH_MAX:
        raise ParseError("The body is nested too deeply.")
    if isinstance(document, str):
        if not is_storable(document):
            raise ParseError("A text contains NUL or a lone surrogate.")
    elif isinstance(document, dict):
        for name, value in document.items():
            check(name, depth)
            check(value, depth + 1)
    elif isinstance(document, list):
        for value in document:
            check(value, depth + 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")

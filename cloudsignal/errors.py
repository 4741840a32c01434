"""Domain errors that services raise, each with a code; mapped once to HTML, API problems and the CLI."""

# ruff: noqa: N818 - the names are the words of the domain

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar


def quoted(value: object) -> str:
    """Quote ``value`` for messages: in double quotes, with invisible characters escaped."""
    escaped = (char if char.isprintable() else repr(char)[1:-1] for char in str(value))
    return f'"{"".join(escaped)}"'


@dataclass(frozen=True, slots=True)
class Detail:
    """One of several errors in a request: a policy finding, a failing test, an invalid field."""

    message: str
    path: str = ""
    line: int = 0


class DomainError(Exception):
    """A request of a person or program is refused.

    ``code`` is stable and machine-readable; ``message`` says what happened and what to do; ``field`` names the input
    it is about; ``details`` lists further findings.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    retry_after: int | None = None
    """Seconds after which the same may succeed."""

    def __init__(self, code: str, message: str, *, field: str | None = None, details: Sequence[Detail] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.details = tuple(details)


class Invalid(DomainError):
    """The input is wrong: 422."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotFound(DomainError):
    """There is no such thing, or the asker may not know that there is: 404."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, what: str = "This page", *, code: str = "not_found") -> None:
        super().__init__(code, f"{what} does not exist, or you have no access to it.")


class Unauthenticated(DomainError):
    """The caller is not signed in, or the key is not valid: 401."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(DomainError):
    """Signed in, but the role or key does not allow it: 403."""

    status = HTTPStatus.FORBIDDEN


class Conflict(DomainError):
    """The state has moved on since it was read, or it clashes with what exists: 409."""

    status = HTTPStatus.CONFLICT


class Limit(DomainError):
    """A quota or a rate limit: 429. ``retry_after`` is in seconds."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, code: str, message: str, *, retry_after: int = 60, field: str | None = None) -> None:
        super().__init__(code, message, field=field)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """A part the answer needs is down: 503; trying again later is right."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5

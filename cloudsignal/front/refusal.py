"""Refusals that the front makes itself, before Django sees the request."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Page:
    """A complete answer: status, headers and body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a defect
    """A request that is not served. ``code`` is the stable word, ``retry_after`` in seconds."""

    def __init__(self, status: HTTPStatus, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Gone(Exception):  # noqa: N818 - the same
    """The client has disconnected; nobody waits for an answer."""


def busy(why: str) -> Refusal:
    """A 503 refusal: too many requests at once."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy", f"{why} Try again in 5 seconds.", retry_after=5)

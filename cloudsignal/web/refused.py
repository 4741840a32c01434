"""Render refusals of the front without database, session or thread: page, htmx notice, or API problem."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from django.http import HttpResponse
from django.template.loader import render_to_string

from cloudsignal.api.problems import Problem
from cloudsignal.api.views import respond
from cloudsignal.front.asgi import Scope
from cloudsignal.front.refusal import Page, Refusal

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TITLES = {
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Too large",
    HTTPStatus.SERVICE_UNAVAILABLE: "Temporarily unavailable",
}


def page(scope: Scope, refusal: Refusal) -> Page:
    """The refusal in the shape of what was asked for."""
    if scope["path"].startswith("/v2/"):
        problem = Problem(refusal.status, refusal.code, refusal.message, retry_after=refusal.retry_after)
        response: HttpResponse = respond(scope["path"], problem)
    elif any(name == b"hx-request" for name, _ in scope["headers"]):
        response = HttpResponse(refusal.message, content_type="text/plain; charset=utf-8", status=refusal.status)
    else:
        response = HttpResponse(_html(refusal.status, refusal.message), status=refusal.status)
    for name, value in SECURITY.items():
        response.headers[name] = value
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    headers = tuple((name.lower().encode(), value.encode()) for name, value in response.items())
    return Page(response.status_code, headers, response.content)


@lru_cache(maxsize=32)
def _html(status: HTTPStatus, message: str) -> str:
    title = TITLES.get(status, "Something went wrong on our side")
    return render_to_string("plain.html", {"status": int(status), "title": title, "message": message})

"""Pages: redirect after sign-in, help, CA certificate, color theme, and error pages."""

from __future__ import annotations

import sys
from http import HTTPStatus

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages.storage.cookie import CookieStorage
from django.db.utils import InterfaceError, OperationalError
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.csrf import requires_csrf_token
from redis.exceptions import RedisError

from cloudsignal.api.problems import problem_of
from cloudsignal.api.views import refused
from cloudsignal.console.shell import THEME_COOKIE, THEMES
from cloudsignal.errors import DomainError, Forbidden, Invalid, Limit, NotFound, Unavailable
from cloudsignal.web.certificate import local_ca
from cloudsignal.web.resend import resend_page
from orgs.access.grants import list_organizations
from orgs.access.web.gate import error_values, person_page, public_page, refusal
from orgs.models import User

DatabaseAway = OperationalError | InterfaceError
API = "/v2/"
"""Below it nothing is answered with a page."""
YEAR = 365 * 24 * 3600


@person_page()
def start(request: HttpRequest, user: User) -> HttpResponseBase:
    """Redirect after sign-in: to a person's only organization, else to a list; operators to the list of all."""
    entries = list_organizations(user)
    if len(entries) == 1:
        return redirect("platform:home", entries[0].org.pk)
    return redirect("platform:operator-organizations" if user.is_operator and not entries else "orgs:list")


@person_page()
def help_page(request: HttpRequest, user: User) -> HttpResponseBase:
    """The help page: keyboard shortcuts, terms and defaults."""
    return render(request, "platform/help.html")


@public_page()
def certificate(request: HttpRequest) -> HttpResponseBase:
    """The certificate of the local CA. Public on purpose: it is what clients verify the server with."""
    path = local_ca()
    if path is None:
        raise NotFound("A certificate of a local authority")
    return FileResponse(
        path.open("rb"), content_type="application/x-pem-file", as_attachment=True, filename="cloudsignal-ca.pem"
    )


@public_page()
def session(request: HttpRequest) -> HttpResponseBase:
    """The signed-in person and the CSRF token, for pages that were opened before a sign-in in another tab."""
    return JsonResponse({"person": _person_id(request), "token": get_token(request)})


@public_page(methods=("POST",))
def theme(request: HttpRequest) -> HttpResponseBase:
    """Store the color theme (light, dark or the system's) in a cookie."""
    chosen = request.POST.get("theme", "")
    if chosen not in dict(THEMES):
        raise Invalid("bad_theme", "Choose light, dark or system colors.")
    target = request.POST.get("next", "/")
    response = redirect(target if url_has_allowed_host_and_scheme(target, allowed_hosts=None) else "/")
    response.set_cookie(
        THEME_COOKIE, chosen, max_age=YEAR, secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax"
    )
    return response


def _person_id(request: HttpRequest) -> str:
    return str(request.user.pk) if isinstance(request.user, User) else ""


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    """400: the request could not be read."""
    error = DomainError("bad_request", "The request could not be read. Go back and try again.")
    return refused(request, error) if request.path.startswith(API) else refusal(request, error)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    """403 that Django raised outside the permission checks."""
    return refusal(request, Forbidden("forbidden", "You are not allowed to see or do this."))


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    """404: no URL, or nothing behind it."""
    return refusal(request, NotFound("This page"))


def too_many_requests(request: HttpRequest) -> HttpResponseBase:
    """429 of the account pages (sign-up, password reset, email addresses): their limits are counted by the minute."""
    return refusal(request, Limit("rate_limited", "Too many requests; try again in a minute.", retry_after=60))


@requires_csrf_token
def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """403: the form's token did not fit, mostly a sign-in in another tab."""
    kept = resend_page(request, status=HTTPStatus.FORBIDDEN)
    if kept is not None:
        return kept
    message = (
        "You signed in or out in another tab after this page was opened. Nothing was changed, and what you typed is "
        "kept: submit it again."
        if request.headers.get("HX-Request")
        else "This form has no valid token of your session, so nothing was changed. Open the page of the form and "
        "fill it in there."
    )
    answer = refusal(request, Forbidden("csrf", message))
    answer.headers["HX-Trigger"] = "session-changed"  # app.js fetches the new token
    return answer


def server_error(request: HttpRequest) -> HttpResponseBase:
    """An uncaught exception: 503 when a backend service is unavailable, else 500."""
    error = sys.exc_info()[1]
    if isinstance(error, DatabaseAway | RedisError):
        found = problem_of(error)
        return away(request, Unavailable(found.code, found.detail), database=not isinstance(error, RedisError))
    if request.path.startswith(API):
        return refused(request, error if isinstance(error, Exception) else RuntimeError())
    message = (
        "Nothing was changed. The nodes are not affected: they keep enforcing the policy they have. Go back and try "
        "again; if it fails again, an operator finds the reason in the log of the web process."
    )
    values = {"status": 500, "title": "Something went wrong on our side", "message": message}
    return HttpResponse(render_to_string("plain.html", values), status=500)


def away(request: HttpRequest, error: Unavailable, *, database: bool) -> HttpResponseBase:
    """503 with the time to wait: for the API a problem, for people within the shell.

    Without the ``database`` the user is unknown: the shell has the links of the address, and no names.
    """
    if request.path.startswith(API):
        return refused(request, error)
    if not database:
        return refusal(request, error)
    signed_in = settings.SESSION_COOKIE_NAME in request.COOKIES
    request.user = AnonymousUser()
    request._messages = CookieStorage(request)  # type: ignore[attr-defined]
    request.away = True  # type: ignore[attr-defined]
    if request.headers.get("HX-Request"):
        return refusal(request, error)
    response = render(request, "error.html", error_values(error, signed_in=signed_in), status=error.status)
    response.headers["Retry-After"] = str(error.retry_after)
    return response

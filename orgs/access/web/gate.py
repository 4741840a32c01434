"""The access check of every page: authentication, organization, permission. No view is served without it.

A view behind :func:`org_page` gets a resolved :class:`~orgs.access.grants.Access` and runs inside the organization's
scope: one transaction, with row-level security set to it. What a service refuses
(:class:`~cloudsignal.errors.DomainError`) and a view does not handle itself becomes the right page here, once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec, Protocol, cast
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache

from cloudsignal.api.parsers import is_storable
from cloudsignal.errors import DomainError, NotFound, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from cloudsignal.web.resend import resend_page
from orgs.access.grants import SIGN_ON_REQUIRED, Access, access_org
from orgs.models import User
from orgs.permissions import Permission

P = ParamSpec("P")
OrgView = Callable[Concatenate[HttpRequest, Access, P], HttpResponseBase]
PersonView = Callable[Concatenate[HttpRequest, User, P], HttpResponseBase]
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True)
class Requirement:
    """The scope and permissions that a view requires; the permission table test reads them from every URL."""

    scope: str
    """``org``, ``person``, ``operator`` or ``public``."""
    permission: Permission | None = None
    write: Permission | None = None
    """The permission that POST requires in addition to ``permission``."""


class Gated(Protocol):
    """A view with its :class:`Requirement`."""

    gate: Requirement

    def __call__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer a request."""
        ...


def org_page(
    permission: Permission,
    *,
    write: Permission | None = None,
    methods: tuple[str, ...] = ("GET",),
    one_transaction: bool = True,
) -> Callable[[OrgView[P]], View]:
    """A page of one organization. Strangers get 404, members without ``permission`` 403; POST may ask for ``write``.

    Without ``one_transaction`` every service the view calls has its own: for what goes on the network meanwhile, or
    commits step by step.
    """

    def decorate(view: OrgView[P]) -> View:
        def inner(request: HttpRequest, org_id: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            user = _person(request)
            request.access = None  # type: ignore[attr-defined] # a refusal need not ask again
            access = access_org(user, org_id, ip=address_of(request))
            request.access = access  # type: ignore[attr-defined]
            access.require(permission)
            if write is not None and request.method == "POST":
                access.require(write)
            with org_scope(access.org_id) if one_transaction else nullcontext():
                return view(request, access, *args, **kwargs)

        return _finish(view, inner, Requirement("org", permission, write), methods)

    return decorate


def person_page(*, methods: tuple[str, ...] = ("GET",)) -> Callable[[PersonView[P]], View]:
    """A page for anyone who is signed in, outside any organization."""

    def decorate(view: PersonView[P]) -> View:
        def inner(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            user = _person(request)
            with user_scope(user.pk):
                return view(request, user, *args, **kwargs)

        return _finish(view, inner, Requirement("person"), methods)

    return decorate


def operator_page(*, methods: tuple[str, ...] = ("GET",)) -> Callable[[PersonView[P]], View]:
    """A page for operators; everybody else gets 404."""

    def decorate(view: PersonView[P]) -> View:
        def inner(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            user = _person(request)
            if not user.is_operator:
                raise NotFound
            with platform_scope():
                return view(request, user, *args, **kwargs)

        return _finish(view, inner, Requirement("operator"), methods)

    return decorate


def public_page(
    *, methods: tuple[str, ...] = ("GET",)
) -> Callable[[Callable[Concatenate[HttpRequest, P], HttpResponseBase]], View]:
    """A public page. The decorator is explicit, so that no view is public by accident."""

    def decorate(view: Callable[Concatenate[HttpRequest, P], HttpResponseBase]) -> View:
        return _finish(view, view, Requirement("public"), methods)

    return decorate


def address_of(request: HttpRequest) -> str:
    """The client's IP address, for the audit log."""
    return str(request.META.get("REMOTE_ADDR") or "")


def _person(request: HttpRequest) -> User:
    user = request.user
    if not isinstance(user, User) or not user.is_active:
        raise Unauthenticated("not_signed_in", "Sign in first.")
    return user


def _finish(view: Callable[..., Any], inner: View, gate: Requirement, methods: tuple[str, ...]) -> View:
    allowed = ("GET", "HEAD", *methods) if "GET" in methods else methods

    @functools.wraps(view)
    def outer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in allowed:
            answer = refusal(
                request,
                WrongMethod("wrong_method", "This page accepts form submissions only. Go back and use its form."),
            )
            answer.headers["Allow"] = ", ".join(allowed)
            return answer
        try:
            if not all(is_storable(str(value)) for value in kwargs.values()):
                raise NotFound  # nothing has a name that the database cannot even be asked for
            return inner(request, *args, **kwargs)
        except DomainError as error:
            return refusal(request, error)

    gated = cast("Gated", never_cache(outer))
    gated.gate = gate
    return gated


class WrongMethod(DomainError):  # noqa: N818 - the words of the domain, as in cloudsignal.errors
    """405: the view does not accept the request's method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


TITLES: dict[HTTPStatus | str, str] = {
    "csrf": "This page is outdated",
    "forbidden": "Your role does not allow this",
    "owners_only": "Your role does not allow this",
    "mfa_required": "A second factor is required",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.FORBIDDEN: "Not allowed",
    HTTPStatus.METHOD_NOT_ALLOWED: "Nothing to show",
    HTTPStatus.CONFLICT: "This was changed in the meantime",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "Temporarily unavailable",
}


def refusal(request: HttpRequest, error: DomainError) -> HttpResponseBase:
    """Render a domain error as a page; for htmx, as plain text with the error's status."""
    htmx = bool(request.headers.get("HX-Request"))
    if isinstance(error, Unauthenticated) and not htmx:
        kept = resend_page(request, status=HTTPStatus.UNAUTHORIZED)
        return kept or redirect_to_login(again(request))
    match = request.resolver_match
    if error.code == SIGN_ON_REQUIRED and not htmx and match is not None and "org_id" in match.kwargs:
        there = reverse("orgs:sign-on-door", args=[match.kwargs["org_id"]])
        return redirect_to_login(request.get_full_path(), login_url=there)
    if htmx:
        response = HttpResponse(error.message, content_type="text/plain; charset=utf-8", status=error.status)
    else:
        # A request that is refused at the very door (its Host header) has no user yet.
        signed_in = bool(getattr(getattr(request, "user", None), "is_authenticated", False))
        if signed_in:
            _place(request)
        response = render(request, "error.html", error_values(error, signed_in=signed_in), status=error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def error_values(error: DomainError, *, signed_in: bool) -> dict[str, Any]:
    """The context of ``error.html``: inside the shell for signed-in people, so that they can navigate on."""
    layout = "shell.html" if signed_in else "entrance.html"
    return {"error": error, "title": _title(error), "signed_in": signed_in, "layout": layout}


def _place(request: HttpRequest) -> None:
    """Resolve the organization of a request that was refused before the access check, for the navigation."""
    match, user = request.resolver_match, request.user
    named = match.kwargs.get("org_id") if match is not None else None
    if named and not hasattr(request, "access") and isinstance(user, User) and is_storable(str(named)):
        with suppress(DomainError):
            request.access = access_org(user, str(named), ip=address_of(request))  # type: ignore[attr-defined]


def again(request: HttpRequest) -> str:
    """The URL to return to: of a POST, the page of its form, because the POST's own URL shows no page."""
    came = request.headers.get("Referer", "")
    if request.method != "POST" or not url_has_allowed_host_and_scheme(came, allowed_hosts={request.get_host()}):
        return request.get_full_path()
    parts = urlsplit(came)
    return parts._replace(scheme="", netloc="", fragment="").geturl() or "/"


def _title(error: DomainError) -> str:
    return TITLES.get(error.code) or TITLES.get(error.status, "The request failed")

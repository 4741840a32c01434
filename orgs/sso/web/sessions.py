"""Sessions that came through an organization's single sign-on: marked when they begin, held to it while they last."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject

from cloudsignal.errors import Forbidden
from orgs.access.grants import THROUGH_LIFETIME, way_is_open
from orgs.access.web.gate import address_of
from orgs.accounts.adapters import AccountAdapter
from orgs.models import Through, User
from orgs.sso.login import came_in

MARK = "through"
"""Where a session keeps its mark, and the word for it in django-allauth's hand-over from one step to the next."""
OPEN_PAGES = {"account_login", "account_logout", "account_inactive"}
"""The pages below /accounts/ of django-allauth that such a session may open."""


class Adapter(AccountAdapter):
    """The account adapter, which lets a session know how it came about."""

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> HttpResponseBase:
        """Every sign-in ends here, after the second factor if there is one.

        Only single sign-on names a way; any other sign-in, in the same browser too, takes the mark away.
        """
        facts = dict(kwargs.pop("signal_kwargs", None) or {})
        way = facts.pop(MARK, None)
        request.session.pop(MARK, None)
        if way is not None:
            request.session[MARK] = {**way, "at": time.time()}
            user.through = Through(way["org_id"], way["sign_on_id"])
            came_in(user.through, user, ip=address_of(request))
        response: HttpResponseBase = super().post_login(request, user, signal_kwargs=facts, **kwargs)
        return response


class SignOnSessions:
    """Middleware, after Django's own for authentication: puts the mark of the session on ``request.user``.

    A marked session that has lived too long, or whose way in was closed, is nobody's from then on.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request."""
        signed_in = request.user
        request.user = SimpleLazyObject(lambda: _held(request, signed_in))  # type: ignore[assignment]
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """The account belongs to the person, not to the organization: whoever is let in by its provider adds no
        password, passkey or address to it. That would be a way in that leads further."""
        match = request.resolver_match
        if match is None or not match.route.startswith("accounts/") or match.namespace or match.url_name in OPEN_PAGES:
            return None
        if not isinstance(request.user, User) or request.user.through is None:
            return None
        error = Forbidden(
            "came_through",
            "You are signed in through your organization's SSO, which is valid for that organization only. To change "
            'your account, sign out and sign in to it directly; "Forgot your password?" sets a first password.',
        )
        context = {"error": error, "title": "Not available through SSO", "signed_in": True}
        return render(request, "error.html", context, status=HTTPStatus.FORBIDDEN)


def _held(request: HttpRequest, user: User | AnonymousUser) -> User | AnonymousUser:
    mark = request.session.get(MARK)
    if mark is None or not isinstance(user, User):
        return user
    through = Through(str(mark["org_id"]), str(mark["sign_on_id"]))
    if not 0 <= time.time() - float(mark["at"]) < THROUGH_LIFETIME.total_seconds() or not way_is_open(through, user):
        request.session.flush()
        return AnonymousUser()
    user.through = through
    return user

"""SSO sessions of the dashboard: marked at sign-in, limited to the organization of their SSO connection."""

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
from orgs.access.grants import SSO_SESSION_LIFETIME, sso_session_valid
from orgs.access.web.gate import address_of
from orgs.accounts.adapters import AccountAdapter
from orgs.models import SsoSession, User
from orgs.sso.login import record_sign_in

MARK = "through"
"""The session key of the mark, and its key in the ``signal_kwargs`` that django-allauth passes between steps."""
OPEN_PAGES = {"account_login", "account_logout", "account_inactive"}
"""The pages below /accounts/ of django-allauth that such a session may open."""


class Adapter(AccountAdapter):
    """The account adapter, which marks sessions that signed in through SSO."""

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> HttpResponseBase:
        """Set or remove the SSO mark after a completed sign-in, second factor included.

        Only SSO names a connection; any other sign-in, in the same browser too, removes the mark.
        """
        facts = dict(kwargs.pop("signal_kwargs", None) or {})
        way = facts.pop(MARK, None)
        request.session.pop(MARK, None)
        if way is not None:
            request.session[MARK] = {**way, "at": time.time()}
            user.sso_session = SsoSession(way["org_id"], way["sign_on_id"])
            record_sign_in(user.sso_session, user, ip=address_of(request))
        response: HttpResponseBase = super().post_login(request, user, signal_kwargs=facts, **kwargs)
        return response


class SignOnSessions:
    """Middleware that sets ``request.user.sso_session`` for SSO sessions; it follows Django's AuthenticationMiddleware.

    A marked session that has expired, or whose SSO connection is disabled or removed, becomes anonymous.
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
        """Refuse account pages to SSO sessions.

        The account belongs to the person, not to the organization: a session of its provider may not add a password,
        passkey or address, which would sign in beyond the organization.
        """
        match = request.resolver_match
        if match is None or not match.route.startswith("accounts/") or match.namespace or match.url_name in OPEN_PAGES:
            return None
        if not isinstance(request.user, User) or request.user.sso_session is None:
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
    session = SsoSession(str(mark["org_id"]), str(mark["sign_on_id"]))
    expired = not 0 <= time.time() - float(mark["at"]) < SSO_SESSION_LIFETIME.total_seconds()
    if expired or not sso_session_valid(session, user):
        request.session.flush()
        return AnonymousUser()
    user.sso_session = session
    return user

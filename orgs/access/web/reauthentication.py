"""Step-up on pages: irreversible actions require a recent authentication."""

from __future__ import annotations

from urllib.parse import urlencode

from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.core.exceptions import ImmediateHttpResponse, ReauthenticationRequired
from django.http import HttpRequest
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from cloudsignal.errors import Forbidden
from orgs.access.step_up import CODE, is_recent
from orgs.models import User


def ask_again(request: HttpRequest) -> None:
    """Require a recent authentication of the person; otherwise raise a redirect to reauthentication.

    django-allauth's middleware handles the exception, and resumes the submitted form afterwards. An SSO session is
    redirected to its identity provider, and the person submits the form again. Who has nothing to
    reauthenticate with is refused with :class:`Forbidden`.
    """
    user = request.user
    if not isinstance(user, User) or is_recent(request):
        return
    if user.sso_session is not None:
        way = reverse("orgs:sign-on-start", args=[user.sso_session.org_id, user.sso_session.sign_on_id])
        url = f"{way}?{urlencode({'again': '1', 'next': request.path})}"
        raise ImmediateHttpResponse(
            HttpResponseClientRedirect(url) if request.headers.get("HX-Request") else redirect(url)
        )
    if get_reauthentication_flows(user):
        raise ReauthenticationRequired
    raise Forbidden(
        CODE,
        "Sign out and sign in again, then repeat this: your account has no password or second factor to confirm with.",
    )

"""Step-up on pages: what cannot be taken back asks again who is there."""

from __future__ import annotations

from urllib.parse import urlencode

from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.core.exceptions import ImmediateHttpResponse, ReauthenticationRequired
from django.http import HttpRequest
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from orgs.access.step_up import is_recent
from orgs.models import User


def ask_again(request: HttpRequest) -> None:
    """Go on only for a person who showed a password or second factor a moment ago.

    Raises what django-allauth's middleware turns into its page; a form that was sent is taken up again afterwards, as
    it was typed. Who came through single sign-on is sent back there, to be asked by it, and sends the form again.
    """
    user = request.user
    if not isinstance(user, User) or is_recent(request):
        return
    if user.through is not None:
        way = reverse("orgs:sign-on-start", args=[user.through.org_id, user.through.sign_on_id])
        url = f"{way}?{urlencode({'again': '1', 'next': request.path})}"
        raise ImmediateHttpResponse(
            HttpResponseClientRedirect(url) if request.headers.get("HX-Request") else redirect(url)
        )
    if get_reauthentication_flows(user):
        raise ReauthenticationRequired

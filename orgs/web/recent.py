"""Step-up on pages: what cannot be taken back asks again who is there."""

from __future__ import annotations

from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.core.exceptions import ReauthenticationRequired
from django.http import HttpRequest

from orgs.models import User
from orgs.stepup import is_recent


def ask_again(request: HttpRequest) -> None:
    """Go on only for a person who showed a password or second factor a moment ago.

    Raises what django-allauth's middleware turns into its page; a form that was sent is taken up again afterwards, as
    it was typed. People with neither (they sign in by a link of their organization) are let through.
    """
    if isinstance(request.user, User) and get_reauthentication_flows(request.user) and not is_recent(request):
        raise ReauthenticationRequired

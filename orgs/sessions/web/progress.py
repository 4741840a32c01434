"""Page: the progress of a revocation, session by session, with the time since the click.

It stands in the address alone (signed), so it can be reloaded, opened twice and sent to a colleague.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypedDict

from django.contrib import messages
from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone

from audit.kinds import CloseCause
from cloudsignal.errors import NotFound
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission
from orgs.sessions.progress import closings

SALT = "orgs.web.closing"
FOLLOWED = 20.0
"""How long after the click the page polls, in seconds."""


class Asked(TypedDict):
    """The revocation that is followed."""

    org: str
    at: float
    what: str
    cause: str
    username: str
    sessions: int | None


def follow(
    request: HttpRequest,
    org_id: str,
    *,
    what: str,
    clicked_at: datetime,
    sessions: int | None,
    cause: CloseCause,
    username: str = "",
) -> HttpResponseBase:
    """Redirect to the page, or to the credentials if no session was live; ``what`` is the message of what was done.

    ``sessions`` is how many were live (None: not known) when it was clicked on.
    """
    if sessions == 0:
        messages.success(request, f"{what} No session of it was live.")
        if cause is CloseCause.ORG_SUSPENDED:
            return redirect("platform:operator-organizations")
        return redirect("orgs:credentials", org_id)
    asked = Asked(
        org=org_id, at=clicked_at.timestamp(), what=what, cause=cause.value, username=username, sessions=sessions
    )
    return redirect("orgs:closing", org_id, signing.dumps(asked, salt=SALT, compress=True))


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access, token: str) -> HttpResponseBase:
    """Show the sessions closed so far and the slowest; htmx polls this part until all are closed."""
    asked = _read(token, access)
    clicked_at = datetime.fromtimestamp(asked["at"], UTC)
    found = closings(access, cause=CloseCause(asked["cause"]), clicked_at=clicked_at, username=asked["username"])
    over = (timezone.now() - clicked_at).total_seconds() > FOLLOWED
    wanted = asked["sessions"]
    context = {
        "what": asked["what"],
        "found": found,
        "wanted": max(wanted or 0, found.count),
        "complete": wanted is not None and found.count >= wanted,
        "over": over,
        "clicked_at": clicked_at,
        "may_audit": access.may(Permission.AUDIT_READ),
    }
    template = "orgs/closing.html#closings" if request.headers.get("HX-Request") else "orgs/closing.html"
    return render(request, template, context)


def _read(token: str, access: Access) -> Asked:
    try:
        asked: Asked = signing.loads(token, salt=SALT)
    except signing.BadSignature:
        raise NotFound("This page") from None
    if asked["org"] != access.org_id:
        raise NotFound("This page")
    return asked

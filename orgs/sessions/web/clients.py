"""Pages: live sessions."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from audit.kinds import CloseCause
from cloudsignal.errors import NotFound
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.filters import pills
from cloudsignal.wire.report import LiveSession
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission
from orgs.sessions.closing import close_session
from orgs.sessions.forms import ClientFilter
from orgs.sessions.reads import live_sessions, sessions_or_none
from orgs.sessions.web.progress import follow

SHOWN = 200


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List live sessions, newest first; htmx polls the table every few seconds."""
    form = ClientFilter(request.GET)
    find = form.value("find").lower() if form.is_valid() else ""
    sessions = sessions_or_none(access)
    found = [session for session in sessions or () if find in _searched(session)]
    path = reverse("orgs:clients", args=[access.org_id])
    context = {
        "form": form,
        "known": sessions is not None,
        "total": len(sessions or ()),
        "found": len(found),
        "rows": [(session, *_times(session)) for session in found[:SHOWN]],
        "shown": SHOWN,
        "pills": pills(form, path) if form.is_valid() else [],
        "clear_url": path,
        "may_audit": access.may(Permission.AUDIT_READ),
        "may_manage": access.may(Permission.CREDENTIALS_MANAGE),
        "may_close": access.may(Permission.SESSIONS_CLOSE),
    }
    template = "orgs/clients.html#sessions" if request.headers.get("HX-Request") else "orgs/clients.html"
    return render(request, template, context)


@org_page(Permission.SESSIONS_CLOSE, methods=("GET", "POST"))
def close(request: HttpRequest, access: Access, session_id: str) -> HttpResponseBase:
    """Close a live session, after a page that says that the client can connect again."""
    if request.method == "POST":
        clicked_at = timezone.now()
        closed = close_session(access, session_id)
        local = closed.username.partition("@")[0]
        what = f"Closing the session of {local}, client ID {closed.client_id}."
        cause = CloseCause.KICKED
        return follow(request, access.org_id, what=what, clicked_at=clicked_at, sessions=1, cause=cause, username=local)
    session = next((row for row in live_sessions(access) if row.session == session_id), None)
    if session is None:
        raise NotFound("The session")
    question = Question(
        title=f"Close the session of {session.username}?",
        text="The client is disconnected now and can sign in again at once. To prevent that, revoke its credential.",
        impact=[Impact("1", f"live session of client ID {session.client_id} from {session.ip} closed")],
        action="Close the session",
        url=reverse("orgs:session-close", args=[access.org_id, session_id]),
        cancel=reverse("orgs:clients", args=[access.org_id]),
    )
    return confirm(request, question)


def _searched(session: LiveSession) -> str:
    return f"{session.username}\n{session.client_id}\n{session.ip}".lower()


def _times(session: LiveSession) -> tuple[datetime, datetime | None]:
    connected = datetime.fromtimestamp(session.connected_at, UTC)
    return connected, datetime.fromtimestamp(session.expires_at, UTC) if session.expires_at else None

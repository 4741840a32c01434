"""Page: the clients that are connected right now."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse

from cloudsignal.web.filters import pills
from cloudsignal.wire.report import LiveSession
from orgs.access import Access
from orgs.forms import ClientFilter
from orgs.permissions import Permission
from orgs.web.credentials import sessions_or_none
from orgs.web.gate import org_page

SHOWN = 200


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Live sessions, newest first; htmx asks for the table alone every few seconds."""
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
    }
    template = "orgs/clients.html#sessions" if request.headers.get("HX-Request") else "orgs/clients.html"
    return render(request, template, context)


def _searched(session: LiveSession) -> str:
    return f"{session.username}\n{session.client_id}\n{session.ip}".lower()


def _times(session: LiveSession) -> tuple[datetime, datetime | None]:
    connected = datetime.fromtimestamp(session.connected_at, UTC)
    return connected, datetime.fromtimestamp(session.expires_at, UTC) if session.expires_at else None

"""Pages: the audit list, live while it stands on its newest page, and one event."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from audit.access import AuditPage, first_of, get_event, parse_cursor, search
from audit.forms import REASONS, AuditFilter
from audit.kinds import KINDS
from audit.proofs import row_proof, state_of
from audit.web.lines import changes, details, line
from cloudsignal.errors import DomainError, Invalid, NotFound
from cloudsignal.web.filters import address, pills, query_of
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission

PAGE = 50


@org_page(Permission.AUDIT_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Events, newest first. htmx asks every second and a half with what it has ``seen``; nothing new is 204."""
    form = AuditFilter(request.GET)
    page: AuditPage | None = None
    if form.is_valid():
        try:
            page = search(access, form.query(now=timezone.now(), limit=PAGE))
        except DomainError as error:
            form.refuse(error)
    seen = _fingerprint(page)
    polled = bool(request.headers.get("HX-Request"))
    if polled and seen == request.GET.get("seen"):
        return HttpResponse(status=204)
    context = {"form": form, "page": page, **_list(request, access, form, page, seen=seen, polled=polled)}
    template = "audit/list.html#events" if polled else "audit/list.html"
    return render(request, template, context, status=422 if form.errors else 200)


@org_page(Permission.AUDIT_READ)
def event(request: HttpRequest, access: Access, key: str) -> HttpResponseBase:
    """Show one event with all its details and links."""
    found = get_event(access, *_key(key))
    state = state_of(access, found)
    context = {
        "line": line(found),
        "event": found,
        "changes": changes(found),
        "details": details(found),
        "first": line(first) if (first := first_of(access, found)) else None,
        "may_simulate": access.may(Permission.POLICY_SIMULATE),
        "log": state,
        "proof_url": reverse("audit:proof", args=[access.org_id, key]) if state and state.index is not None else "",
    }
    return render(request, "audit/event.html", context)


@org_page(Permission.AUDIT_READ)
def proof(request: HttpRequest, access: Access, key: str) -> HttpResponseBase:
    """Download the proof that the event is in the transparency log."""
    ts, event_id = _key(key)
    answer = HttpResponse(row_proof(access, ts, event_id), content_type="text/plain; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="{event_id}.tlog-proof"'
    return answer


def _key(key: str) -> tuple[datetime, uuid.UUID]:
    try:
        return parse_cursor(key)
    except Invalid:
        raise NotFound("The event") from None


def _list(
    request: HttpRequest, access: Access, form: AuditFilter, page: AuditPage | None, *, seen: str, polled: bool
) -> dict[str, Any]:
    path = reverse("audit:list", args=[access.org_id])
    filters = query_of(form)
    newest = page is not None and not form.data.get("cursor")
    before = _moment(request.GET.get("upto", "")) if polled else None
    events = page.events if page else ()
    upto = page.newest_cursor if page else ""
    return {
        "lines": [line(event, fresh=before is not None and event.ts > before) for event in events],
        "pills": pills(form, path, labels={"within": "Time", "since": "From", "until": "Until"})
        if form.is_valid()
        else [],
        "clear_url": path,
        "older_url": address(path, {**filters, "cursor": page.next_cursor}) if page and page.next_cursor else "",
        "newest_url": "" if newest or page is None else address(path, filters),
        "poll_url": address(path, {**filters, "seen": seen, "upto": upto})
        if newest and not filters.get("until")
        else "",
        "reasons": REASONS,
        "kinds": KINDS,
        "more_open": any(filters.get(name) for name in ("rule", "action", "ip", "session", "since", "until"))
        or bool(form.errors),
    }


def _fingerprint(page: AuditPage | None) -> str:
    """A short hash of what a page shows: it changes with every new event and every increased count."""
    shown = "" if page is None else "\n".join(f"{event.id} {event.total}" for event in page.events)
    return hashlib.blake2s(shown.encode(), digest_size=9).hexdigest()


def _moment(cursor: str) -> datetime | None:
    try:
        return parse_cursor(cursor)[0]
    except Invalid:
        return None

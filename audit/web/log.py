"""Page for operators: the platform's own log, which holds what belongs to no organization."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from audit.access import AuditPage, search_platform
from audit.forms import LogFilter
from audit.web.lines import details, line
from cloudsignal.errors import DomainError
from cloudsignal.web.filters import address, pills, query_of
from orgs.access.web.gate import operator_page
from orgs.models import User

PAGE = 50


@operator_page()
def log(request: HttpRequest, user: User) -> HttpResponseBase:
    """Handshakes that failed, clients of nobody, gaps and entries that could not be read, changes of clusters."""
    form, path = LogFilter(request.GET), reverse("audit:log")
    page: AuditPage | None = None
    if form.is_valid():
        try:
            page = search_platform(user, form.query(now=timezone.now(), limit=PAGE))
        except DomainError as error:
            form.refuse(error)
    filters = query_of(form)
    context = {
        "form": form,
        "page": page,
        "lines": [(line(event), details(event)) for event in page.events] if page else [],
        "pills": pills(form, path, labels={"within": "Time"}) if page else [],
        "clear_url": path,
        "older_url": address(path, {**filters, "cursor": page.next_cursor}) if page and page.next_cursor else "",
        "newest_url": address(path, filters) if form.data.get("cursor") else "",
    }
    return render(request, "audit/log.html", context, status=422 if form.errors else 200)

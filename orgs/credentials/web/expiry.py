"""Pages: what ends soon and whether it cuts somebody off; and one username with its claims."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.errors import DomainError
from cloudsignal.web.filters import address
from cloudsignal.web.formatting import plural
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.expiry import EndingPage, count_ending, list_ending
from orgs.credentials.forms.expiry import WINDOWS, ClaimsForm, ExpiryFilter, changed_claims, claims_text
from orgs.credentials.identities import get_identity, merge_claims
from orgs.credentials.reads import list_credentials
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_or_none


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Secrets that end within the next hour, day or week, the next to end first."""
    form = ExpiryFilter(request.GET)
    within, page = "day", EndingPage((), None)
    if form.is_valid():
        within = form.value("within") or within
        try:
            page = list_ending(access, within=within, cursor=form.value("cursor"))
        except DomainError as error:
            form.refuse(error)
    path, counts = reverse("orgs:expiry", args=[access.org_id]), count_ending(access)
    later = address(path, {"within": within, "cursor": page.next_cursor or ""}) if page.next_cursor else ""
    context = {
        "form": form,
        "rows": page.rows,
        "within": dict(WINDOWS)[within],
        "windows": [(words, counts[name], address(path, {"within": name}), name == within) for name, words in WINDOWS],
        "later_url": later,
        "first_url": address(path, {"within": within}) if form.data.get("cursor") else "",
        "may_manage": access.may(Permission.CREDENTIALS_MANAGE),
    }
    return render(request, "orgs/expiry.html", context, status=422 if form.errors else 200)


@org_page(Permission.ORG_READ, write=Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"))
def username_page(request: HttpRequest, access: Access, username: str) -> HttpResponseBase:
    """One username: where it comes from, its secrets and sessions, and its claims to change."""
    identity = get_identity(access, username)
    form = ClaimsForm(
        request.POST if request.method == "POST" else None, initial={"claims": claims_text(identity.claims)}
    )
    if request.method == "POST" and form.is_valid():
        change, gone = changed_claims(identity.claims, form.cleaned_data["claims"])
        try:
            merge_claims(access, identity.username, change, without=gone)
        except DomainError as error:
            form.refuse(error)
        else:
            touched = plural(len(change) + len(gone), "claim")
            messages.success(request, f"{touched} changed; they apply to live sessions at once.")
            return redirect("orgs:username", access.org_id, identity.username)
    sessions = sessions_or_none(access)
    found = list_credentials(access, username=identity.username, limit=200).rows
    context = {
        "identity": identity,
        "form": form,
        "credentials": [row for row in found if row.identity_id == identity.pk],
        "sessions": None if sessions is None else [
            session for session in sessions if session.username.partition("@")[0] == identity.username
        ],
        "claims": [(line.split(" = ", 1)) for line in claims_text(identity.claims).splitlines()],
        "may_manage": access.may(Permission.CREDENTIALS_MANAGE),
    }  # fmt: skip
    return render(request, "orgs/expiry_username.html", context, status=422 if form.errors else 200)

"""Pages: credentials. List, issue (the secret is shown once), revoke with what it closes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from audit.kinds import CloseCause
from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.filters import address, pills, query_of
from cloudsignal.wire.report import LiveSession
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.forms.credentials import CredentialFilter, CredentialForm
from orgs.credentials.identities import get_identity
from orgs.credentials.issuing import issue_credential, revoke_credential, revoke_identity
from orgs.credentials.reads import CredentialPage, credential_counts, get_credential, list_credentials
from orgs.credentials.web.connection import connection
from orgs.models import Credential
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_or_none
from orgs.sessions.web.progress import follow


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    credential: Credential
    sessions: int


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Credentials of the organization, newest first."""
    form = CredentialFilter(request.GET)
    page = CredentialPage((), None)
    if form.is_valid():
        try:
            page = list_credentials(
                access, state=form.value("state"), username=form.value("username"), cursor=form.value("cursor")
            )
        except DomainError as error:
            form.refuse(error)
    path = reverse("orgs:credentials", args=[access.org_id])
    sessions = sessions_or_none(access)
    live = Counter(session.token_id for session in sessions or ())
    context: dict[str, Any] = {
        "form": form,
        "rows": [Row(credential, live[credential.token_id]) for credential in page.rows],
        "counts": credential_counts(access),
        "sessions_known": sessions is not None,
        "pills": pills(form, path) if form.is_valid() else [],
        "clear_url": path,
        "older_url": address(path, {**query_of(form), "cursor": page.next_cursor or ""}) if page.next_cursor else "",
        "newest_url": path if form.data.get("cursor") else "",
        "may_manage": access.may(Permission.CREDENTIALS_MANAGE),
    }
    return render(request, "orgs/credentials.html", context, status=422 if form.errors else 200)


@org_page(Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"))
def new(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Issue a credential. The answer to the POST shows the secret; it is stored nowhere and cannot be shown again."""
    form = CredentialForm(
        request.POST if request.method == "POST" else None, initial={"username": request.GET.get("username", "")}
    )
    if request.method == "POST" and form.is_valid():
        try:
            issued = issue_credential(
                access,
                username=form.value("username") or None,
                ttl=form.cleaned_data["ttl"],
                claims=form.cleaned_data["claims"],
                static=form.cleaned_data["static"],
                note=form.value("note"),
            )
        except DomainError as error:
            form.refuse(error)
        else:
            way = connection()
            context = {
                "issued": issued,
                "connection": way,
                "publish": way.publish(issued.username, issued.password),
                "subscribe": way.subscribe(issued.username, issued.password),
            }
            return render(request, "orgs/credential_issued.html", context, status=201)
    return render(request, "orgs/credential_new.html", {"form": form}, status=422 if form.errors else 200)


@org_page(Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"))
def revoke(request: HttpRequest, access: Access, token_id: str) -> HttpResponseBase:
    """Revoke one secret, after showing how many sessions that closes."""
    clicked_at = timezone.now()
    sessions = sessions_or_none(access)
    live = [session for session in sessions or () if session.token_id == token_id]
    if request.method == "POST":
        done = revoke_credential(access, token_id)
        return follow(
            request,
            access.org_id,
            what=f"Revoked …{done.hint} of {done.identity.username}.",
            clicked_at=clicked_at,
            sessions=_number(sessions, live),
            cause=CloseCause.REVOKED,
            username=done.identity.username,
        )
    credential = get_credential(access, token_id)
    question = Question(
        title=f"Revoke the credential …{credential.hint} of {credential.identity.username}?",
        text="The client is disconnected within a second and cannot sign in with this credential again. "
        "Other credentials of the username stay active.",
        impact=[_sessions_line(sessions, live)],
        action="Revoke this credential",
        url=reverse("orgs:credential-revoke", args=[access.org_id, token_id]),
        cancel=reverse("orgs:credentials", args=[access.org_id]),
    )
    return confirm(request, question)


@org_page(Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"))
def revoke_username(request: HttpRequest, access: Access, username: str) -> HttpResponseBase:
    """Revoke a username: all of its secrets and sessions."""
    clicked_at, username = timezone.now(), get_identity(access, username).username
    sessions = sessions_or_none(access)
    live = [session for session in sessions or () if session.username.partition("@")[0] == username]
    if request.method == "POST":
        done = revoke_identity(access, username)
        return follow(
            request,
            access.org_id,
            what=f"Revoked {done.username}.",
            clicked_at=clicked_at,
            sessions=_number(sessions, live),
            cause=CloseCause.REVOKED,
            username=done.username,
        )
    found = list_credentials(access, state="active", username=username, limit=200).rows
    secrets = [row for row in found if row.identity.username == username]
    question = Question(
        title=f"Revoke the username {username}?",
        text="All credentials of this username are revoked now. To use it again, issue a new credential.",
        impact=[
            Impact(f"{len(secrets):,}", "credential revoked" if len(secrets) == 1 else "credentials revoked"),
            _sessions_line(sessions, live),
        ],
        action=f"Revoke {username}",
        url=reverse("orgs:username-revoke", args=[access.org_id, username]),
        cancel=reverse("orgs:credentials", args=[access.org_id]),
    )
    return confirm(request, question)


def _number(sessions: Sequence[LiveSession] | None, live: Sequence[LiveSession]) -> int | None:
    return None if sessions is None else len(live)


def _sessions_line(sessions: Sequence[LiveSession] | None, live: Sequence[LiveSession]) -> Impact:
    if sessions is None:
        return Impact("?", "live sessions closed (the number is unavailable)")
    where = ", ".join(sorted({session.ip for session in live})[:3])
    closed = "live session closed" if len(live) == 1 else "live sessions closed"
    return Impact(f"{len(live):,}", f"{closed} (from {where})" if where else closed)

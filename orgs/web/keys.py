"""Pages: API keys. Masked in the list, shown once when made, rotated with overlap, revoked with what they issued."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from audit.kinds import CloseCause
from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Question, Touched, confirm
from cloudsignal.web.words import ago, plural
from orgs.access import Access
from orgs.forms_keys import KINDS, SCOPES, KeyForm, RevokeKeyForm, RotateForm
from orgs.models import ApiKey
from orgs.permissions import Permission
from orgs.services.api_keys import (
    NewKey,
    check_rotatable,
    create_api_key,
    get_api_key,
    list_api_keys,
    may_revoke,
    revoke_api_key,
    rotate_api_key,
    state,
)
from orgs.services.identities import Reach, reach_of, revoke_issued_by
from orgs.web.closing import follow
from orgs.web.gate import org_page
from orgs.web.recent import ask_again


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the list."""

    key: ApiKey
    state: str
    scopes: list[str]
    may_revoke: bool


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Working keys first, then those that are over; newest first in each."""
    now = timezone.now()
    rows = [Row(key, state(key, now), _words(key), may_revoke(access, key)) for key in list_api_keys(access)]
    context = {
        "rows": sorted(rows, key=lambda row: row.state != "active"),
        "working": sum(row.state == "active" for row in rows),
        "may_manage": access.may(Permission.API_KEYS_MANAGE),
        "may_act": any(row.may_revoke and row.state == "active" for row in rows),
    }
    return render(request, "orgs/keys.html", context)


@org_page(Permission.API_KEYS_MANAGE, methods=("GET", "POST"))
def new(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Create a key. The answer to the POST shows it; it is stored nowhere."""
    ask_again(request)
    form = KeyForm(access, request.POST if request.method == "POST" else None, initial={"kind": ApiKey.Kind.RESTRICTED})
    if request.method == "POST" and form.is_valid():
        try:
            made = create_api_key(
                access,
                kind=form.value("kind"),
                name=form.value("name"),
                scopes=form.cleaned_data["scopes"],
                ip_allow=form.cleaned_data["ip_allow"],
                expires_at=form.expires_at(),
            )
        except DomainError as error:
            if error.field == "expires_at":
                error.field = "expires_on"
            form.refuse(error)
        else:
            return _shown(request, made)
    context = {"form": form, "kinds": {kind: words for kind, _, words in KINDS}}
    return render(request, "orgs/keys_new.html", context, status=422 if form.errors else 200)


@org_page(Permission.API_KEYS_MANAGE, methods=("GET", "POST"))
def rotate(request: HttpRequest, access: Access, key_id: int) -> HttpResponseBase:
    """Make a successor with the same rights; the old key works on for a while."""
    old = get_api_key(access, key_id)
    ask_again(request)
    check_rotatable(old, timezone.now())
    form = RotateForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made = rotate_api_key(access, key_id, overlap=form.cleaned_data["overlap"])
        return _shown(request, made, old=get_api_key(access, key_id))
    question = Question(
        title=f"Rotate {old.name}?",
        text=f"A new key with the same rights is made and shown once. {old} goes on working for the time you choose.",
        blast=[Touched("1", f"key replaced: {old}"), _used(old)],
        action="Rotate the key",
        url=reverse("orgs:key-rotate", args=[access.org_id, key_id]),
        cancel=reverse("orgs:keys", args=[access.org_id]),
        danger=False,
    )
    return confirm(request, question, form)


@org_page(Permission.ORG_READ, methods=("GET", "POST"), one_transaction=False)
def revoke(request: HttpRequest, access: Access, key_id: int) -> HttpResponseBase:
    """End a key now and, when asked, everything it has issued. Everybody may end their own command line's."""
    key, clicked_at = get_api_key(access, key_id), timezone.now()
    if not may_revoke(access, key):
        access.require(Permission.API_KEYS_MANAGE)
    reach = reach_of(access, issued_by=key.actor) if access.may(Permission.CREDENTIALS_MANAGE) else None
    form = RevokeKeyForm(access, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        revoke_api_key(access, key_id)
        told, closing = f"{key} is revoked.", False
        if reach is not None and form.cleaned_data["credentials"]:
            ended = revoke_issued_by(access, key.actor)
            told += f" {plural(ended.credentials, 'credential')} it had issued ended with it."
            closing = reach.sessions is None or reach.sessions > 0
        if reach is not None and closing:
            cause = CloseCause.REVOKED
            return follow(
                request, access.org_id, what=told, clicked_at=clicked_at, sessions=reach.sessions, cause=cause
            )
        messages.success(request, told)
        return redirect("orgs:keys", access.org_id)
    question = Question(
        title=f"Revoke {key.name}?",
        text="Every request with this key is refused from now on. This cannot be undone.",
        blast=[Touched("1", f"key that stops working: {key}"), _used(key), *(_issued(reach) if reach else ())],
        action="Revoke the key",
        url=reverse("orgs:key-revoke", args=[access.org_id, key_id]),
        cancel=reverse("orgs:keys", args=[access.org_id]),
    )
    return confirm(request, question, form)


def _shown(request: HttpRequest, made: NewKey, old: ApiKey | None = None) -> HttpResponseBase:
    context = {"made": made, "old": old, "scopes": _words(made.key)}
    return render(request, "orgs/keys_created.html", context, status=201)


def _words(key: ApiKey) -> list[str]:
    return [words for scope, words in SCOPES.items() if scope.value in key.scopes]


def _issued(reach: Reach) -> list[Touched]:
    secrets = "live credential it has issued" if reach.credentials == 1 else "live credentials it has issued"
    sessions = "live session closed" if reach.sessions == 1 else "live sessions closed"
    count = "?" if reach.sessions is None else f"{reach.sessions:,}"
    return [
        Touched(f"{reach.credentials:,}", f"{secrets}: they stay, unless you say so below"),
        Touched(count, f"{sessions} if they go too"),
    ]


def _used(key: ApiKey) -> Touched:
    if key.last_used_at is None:
        return Touched("0", "requests so far: it was never used")
    return Touched("in use", f"last request {ago(key.last_used_at, timezone.now())}")

"""Pages: API keys (list, create, rotate, revoke)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from audit.kinds import CloseCause
from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.formatting import ago, plural
from orgs.access.api_keys import state
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.access.web.reauthentication import ask_again
from orgs.api_keys.forms import KINDS, KeyForm, RotateForm
from orgs.api_keys.keys import NewKey, check_rotatable, create_api_key, may_revoke, rotate_api_key
from orgs.api_keys.reads import get_api_key, list_api_keys
from orgs.api_keys.revocation import Made, Revoked, ends_all, foresee, revoke_api_key
from orgs.credentials.identities import Reach
from orgs.models import ApiKey
from orgs.permissions import TITLES, Permission
from orgs.sessions.web.progress import follow

NAMED = 5
"""Maximum number of names in a line of the confirmation page."""


@dataclass(frozen=True, slots=True)
class Row:
    """An API key in the list."""

    key: ApiKey
    state: str
    scopes: list[str]
    may_revoke: bool


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List active keys first, then expired and revoked ones; newest first in each group."""
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
    """Create a key. Only the response to the POST shows its secret, which is not stored."""
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
    """Create a key with the same scopes to replace a key, which stays active for the overlap."""
    old = get_api_key(access, key_id)
    ask_again(request)
    check_rotatable(old, timezone.now())
    form = RotateForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made = rotate_api_key(access, key_id, overlap=form.cleaned_data["overlap"])
        return _shown(request, made, old=get_api_key(access, key_id))
    question = Question(
        title=f"Rotate {old.name}?",
        text=f"A new key with the same scopes is created and shown once. {old} stays active for the time you choose.",
        impact=[Impact("1", f"key replaced: {old}"), _used(old)],
        action="Rotate the key",
        url=reverse("orgs:key-rotate", args=[access.org_id, key_id]),
        cancel=reverse("orgs:keys", args=[access.org_id]),
        danger=False,
    )
    return confirm(request, question, form)


@org_page(Permission.ORG_READ, methods=("GET", "POST"), one_transaction=False)
def revoke(request: HttpRequest, access: Access, key_id: int) -> HttpResponseBase:
    """Revoke a key and everything it has created. Members can revoke the keys of their own CLI sessions."""
    clicked_at = timezone.now()
    key, made, reach = foresee(access, key_id)
    if request.method == "POST":
        revoked = revoke_api_key(access, key_id)
        told = " ".join([f"{key} is revoked.", *_ended(revoked)])
        if revoked.ended.credentials and reach.sessions != 0:
            cause = CloseCause.REVOKED
            return follow(
                request, access.org_id, what=told, clicked_at=clicked_at, sessions=reach.sessions, cause=cause
            )
        messages.success(request, told)
        return redirect("orgs:keys", access.org_id)
    everything = ends_all(access, key)
    question = Question(
        title=f"Revoke {key.name}?",
        text="Every request with this key is refused from now on"
        + (", and everything it has created is revoked with it. This cannot be undone. " if everything else ". ")
        + ("To replace a key and keep what it has created, rotate it." if everything and key.person_id is None else ""),
        impact=[Impact("1", f"key revoked: {key}"), _used(key), *(_made(made, reach) if everything else ())],
        action="Revoke the key",
        url=reverse("orgs:key-revoke", args=[access.org_id, key_id]),
        cancel=reverse("orgs:keys", args=[access.org_id]),
    )
    return confirm(request, question)


def _shown(request: HttpRequest, made: NewKey, old: ApiKey | None = None) -> HttpResponseBase:
    context = {"made": made, "old": old, "scopes": _words(made.key)}
    return render(request, "orgs/keys_created.html", context, status=201)


def _words(key: ApiKey) -> list[str]:
    return [words for scope, words in TITLES.items() if scope.value in key.scopes]


def _made(made: Made, reach: Reach) -> list[Impact]:
    """The impact of revoking a key: what is revoked with it, by name where there are few."""
    providers, invitations = [one.name for one in made.providers], [one.email for one in made.invitations]
    lines = [
        _line([str(key) for key in made.keys], "key it has created", "keys it has created"),
        _line(providers, "identity provider disabled", "identity providers disabled"),
        _line(invitations, "invitation revoked", "invitations revoked"),
        _count(reach.credentials, "live credential revoked", "live credentials revoked"),
        _count(reach.sessions, "live session closed", "live sessions closed"),
    ]
    if made.joined:
        joined = plural(made.joined, "person", "people")
        lines.append(
            Impact(
                f"{made.joined:,}",
                f"{joined} joined by an invitation of this key and stay members: check them under Members",
            )
        )
    return [line for line in lines if line is not None]


def _count(count: int | None, one: str, many: str) -> Impact:
    return Impact("?" if count is None else f"{count:,}", one if count == 1 else many)


def _line(names: Sequence[str], one: str, many: str) -> Impact | None:
    if not names:
        return None
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return Impact(f"{len(names):,}", f"{one if len(names) == 1 else many}: {shown}")


def _ended(revoked: Revoked) -> list[str]:
    counts = (
        (len(revoked.made.keys), "key"),
        (len(revoked.made.providers), "identity provider"),
        (len(revoked.made.invitations), "invitation"),
        (revoked.ended.credentials, "credential"),
    )
    ended = [plural(count, word) for count, word in counts if count]
    return [f"With it ended: {', '.join(ended)}."] if ended else []


def _used(key: ApiKey) -> Impact:
    if key.last_used_at is None:
        return Impact("0", "requests so far")
    return Impact("in use", f"last request {ago(key.last_used_at, timezone.now())}")

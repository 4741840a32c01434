"""Pages: list, clear and release retained messages and stored sessions."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.filters import pills
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.broker.clearing import clear_retained, release_session
from orgs.broker.forms import BrokerFilter, ClientIdForm, TopicForm
from orgs.broker.reads import LISTED_MAX, list_retained, list_stored
from orgs.permissions import Permission

SHOWN = 200


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List retained messages and stored sessions, without payloads."""
    form = BrokerFilter(request.GET)
    find = form.value("find") if form.is_valid() else ""
    retained, stored = list_retained(access, find=find), list_stored(access, find=find)
    path = reverse("orgs:broker", args=[access.org_id])
    context = {
        "form": form,
        "retained": retained,
        "messages_shown": retained.rows[:SHOWN],
        "stored": stored,
        "sessions_shown": stored.rows[:SHOWN],
        "shown": SHOWN,
        "looked": LISTED_MAX,
        "org": access.org,
        "pills": pills(form, path) if form.is_valid() else [],
        "clear_url": path,
        "may_clear": access.may(Permission.RETAINED_CLEAR),
        "may_close": access.may(Permission.SESSIONS_CLOSE),
    }
    return render(request, "orgs/broker.html", context)


@org_page(Permission.RETAINED_CLEAR, methods=("GET", "POST"))
def clear(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Clear the retained message on one topic."""
    form = TopicForm(request.POST if request.method == "POST" else request.GET)
    topic = form.cleaned_data["topic"] if form.is_valid() else ""
    if request.method == "POST" and topic:
        clear_retained(access, topics=[topic])
        messages.success(request, f"Clearing the retained message on {topic}. This takes a moment.")
        return redirect("orgs:broker", access.org_id)
    question = Question(
        title="Clear this retained message?",
        text="New subscribers no longer get it. Clients that are subscribed receive an empty message on the topic.",
        impact=[Impact("1", f"retained message on {topic}" if topic else "retained message: name its topic")],
        action="Clear the message",
        url=reverse("orgs:retained-clear", args=[access.org_id]),
        cancel=reverse("orgs:broker", args=[access.org_id]),
    )
    return confirm(request, question, form)


@org_page(Permission.SESSIONS_CLOSE, methods=("GET", "POST"))
def release(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Discard one stored session."""
    form = ClientIdForm(request.POST if request.method == "POST" else request.GET)
    client_id = form.cleaned_data["client_id"] if form.is_valid() else ""
    if request.method == "POST" and client_id:
        release_session(access, client_id)
        messages.success(request, f"Releasing client ID {client_id}. This takes a moment.")
        return redirect("orgs:broker", access.org_id)
    question = Question(
        title="Release this stored session?",
        text="Its subscriptions and queued messages are discarded. Any username can then use the client ID.",
        impact=[Impact("1", f"stored session of client ID {client_id}" if client_id else "stored session: name it")],
        action="Release the session",
        url=reverse("orgs:stored-release", args=[access.org_id]),
        cancel=reverse("orgs:broker", args=[access.org_id]),
    )
    return confirm(request, question, form)

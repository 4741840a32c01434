"""Pages for the people who run the platform: every organization, every node, suspend and resume."""

from __future__ import annotations

from collections import Counter

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from acl.access import list_nodes
from acl.brokers import Condition, condition, health_of, seen_brokers
from audit.kinds import CloseCause
from cloudsignal.errors import DomainError, NotFound
from cloudsignal.mail import kept_mail
from cloudsignal.web.confirm import Impact, Question, confirm
from orgs.access.grants import access_org, all_organizations
from orgs.access.web.gate import address_of, operator_page
from orgs.models import Organization, User
from orgs.organizations.forms import SuspendForm
from orgs.organizations.lifecycle import resume_organization, suspend_organization
from orgs.sessions.reads import sessions_or_none
from orgs.sessions.web.progress import follow
from orgs.sso.connections import approve_domains, waiting_domains


@operator_page()
def organizations(request: HttpRequest, user: User) -> HttpResponseBase:
    """Every organization, by name."""
    found = all_organizations(user)
    return render(
        request,
        "platform/organizations.html",
        {"organizations": found, "by_status": Counter(org.status for org in found)},
    )


@operator_page()
def nodes(request: HttpRequest, user: User) -> HttpResponseBase:
    """Every edge node: alive or not, sessions, and how it finds each broker node."""
    found = [node for node in list_nodes(user) if node.retired_at is None]
    context = {
        "nodes": [(node, condition(node).value, seen_brokers(node)) for node in found],
        "health": health_of(found),
        "online": sum(condition(node) in {Condition.ONLINE, Condition.SOME_BROKERS} for node in found),
        "sessions": sum(node.sessions for node in found if node.online),
    }
    template = "platform/nodes.html#nodes" if request.headers.get("HX-Request") else "platform/nodes.html"
    return render(request, template, context)


@operator_page()
def mail(request: HttpRequest, user: User) -> HttpResponseBase:
    """The emails of a demo, which has no mail server. They contain sign-in links, so only a demo shows them."""
    if not settings.DEMO:
        raise NotFound
    return render(request, "platform/mail.html", {"mails": kept_mail()})


@operator_page(methods=("GET", "POST"))
def suspend(request: HttpRequest, user: User, org_id: str) -> HttpResponseBase:
    """Suspend an organization and disconnect its clients, after a confirmation."""
    org = _organization(user, org_id)
    form = SuspendForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        clicked_at, live = timezone.now(), _live(user, org_id)
        suspend_organization(user, org_id, reason=form.value("reason"), ip=address_of(request))
        cause, what = CloseCause.ORG_SUSPENDED, f"{org.name} is suspended."
        return follow(request, org_id, what=what, clicked_at=clicked_at, sessions=live, cause=cause)
    question = Question(
        title=f"Suspend {org.name}?",
        text="All of its clients are disconnected within a second and cannot connect. Its data and policy stay.",
        impact=[Impact("1", f"organization: {org.pk}"), Impact(_count(_live(user, org_id)), "live sessions closed")],
        action=f"Suspend {org.name}",
        url=reverse("platform:operator-suspend", args=[org_id]),
        cancel=reverse("platform:operator-organizations"),
    )
    return confirm(request, question, form)


@operator_page(methods=("POST",))
def resume(request: HttpRequest, user: User, org_id: str) -> HttpResponseBase:
    """Resume a suspended organization: its clients can connect again."""
    org = resume_organization(user, org_id, ip=address_of(request))
    messages.success(request, f"The clients of {org.name} may connect again.")
    return redirect("platform:operator-organizations")


def _live(user: User, org_id: str) -> int | None:
    """How many sessions of the organization are live; None while Redis does not answer."""
    sessions = sessions_or_none(access_org(user, org_id))
    return None if sessions is None else len(sessions)


def _count(live: int | None) -> str:
    return "?" if live is None else f"{live:,}"


@operator_page()
def domains(request: HttpRequest, user: User) -> HttpResponseBase:
    """The email domains that organizations named for their SSO connections, for approval."""
    return render(request, "platform/domains.html", {"sign_ons": waiting_domains(user)})


@operator_page(methods=("POST",))
def approve(request: HttpRequest, user: User, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Approve the ticked email domains of an SSO connection, and no others."""
    ticked = request.POST.getlist("domains")
    try:
        sign_on = approve_domains(user, org_id, sign_on_id, domains=ticked, ip=address_of(request))
    except DomainError as error:
        messages.error(request, error.message)
    else:
        said = ", ".join(sign_on.approved_domains) or "no domain"
        messages.success(request, f"{sign_on.name} of {sign_on.org.name} speaks for {said}.")
    return redirect("platform:operator-domains")


def _organization(user: User, org_id: str) -> Organization:
    for org in all_organizations(user):
        if org.pk == org_id:
            return org
    raise NotFound("The organization")

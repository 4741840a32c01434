"""Page: settings of an organization (name, connection settings, quotas)."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Impact, Question, confirm
from orgs.access.grants import Access
from orgs.access.second_factor import has_second_factor
from orgs.access.web.gate import org_page
from orgs.access.web.reauthentication import ask_again
from orgs.credentials.web.connection import connection
from orgs.organizations.forms import SettingsForm
from orgs.organizations.settings import change_settings
from orgs.people.reads import has_ended, list_members
from orgs.permissions import Permission


@org_page(Permission.ORG_READ, write=Permission.ORG_UPDATE, methods=("GET", "POST"))
def settings_page(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Show the settings; change the name, and publishing during a split, with permission."""
    present = {"name": access.org.name, "publish_while_split": access.org.publish_while_split}
    form = SettingsForm(request.POST if request.method == "POST" else None, initial=present)
    if request.method == "POST" and form.is_valid():
        try:
            wanted = form.value("publish_while_split") or None
            org = change_settings(access, name=form.value("name"), publish_while_split=wanted)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, f"The settings of {org.name} are saved.")
            return redirect("orgs:settings", access.org_id)
    way = connection()
    context = {
        "form": form,
        "org": access.org,
        "connection": way,
        "example": f"USERNAME@{access.org_id}",
        "subscribe": way.subscribe(f"USERNAME@{access.org_id}", "PASSWORD"),
        "may_update": access.may(Permission.ORG_UPDATE),
    }
    return render(request, "orgs/settings.html", context, status=422 if form.errors else 200)


@org_page(Permission.ORG_UPDATE, methods=("GET", "POST"))
def two_step(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Turn the requirement of a second factor for all members on or off."""
    asked = request.GET.get("required", "")  # so that a form that is sent twice does not undo itself
    required = asked == "1" if asked else not access.org.mfa_required
    if not required:
        ask_again(request)
    if request.method == "POST":
        change_settings(access, mfa_required=required)
        messages.success(request, f"Two-factor authentication is now {'required' if required else 'optional'}.")
        return redirect("orgs:people", access.org_id)
    without = sum(not has_second_factor(one.user) for one in list_members(access) if not has_ended(one))
    shut_out = "member who must set one up first" if without == 1 else ("members who must set one up first")
    question = Question(
        title="Require two-factor authentication?" if required else "Stop requiring two-factor authentication?",
        text="Members without a second factor (an authenticator app or a passkey) must set one up first."
        if required
        else "Members can then remove their second factor; a stolen password is enough for them.",
        impact=[Impact(f"{without}", shut_out if required else "members without a second factor")],
        action="Require it" if required else "Stop requiring it",
        url=f"{reverse('orgs:two-step', args=[access.org_id])}?required={int(required)}",
        cancel=reverse("orgs:people", args=[access.org_id]),
        danger=not required,
    )
    return confirm(request, question)

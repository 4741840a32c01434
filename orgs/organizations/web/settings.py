"""Page: settings of an organization. Its name, how clients connect, limits."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render

from cloudsignal.errors import DomainError
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.web.connection import connection
from orgs.organizations.forms import OrganizationForm
from orgs.organizations.lifecycle import rename_organization
from orgs.permissions import Permission


@org_page(Permission.ORG_READ, write=Permission.ORG_UPDATE, methods=("GET", "POST"))
def settings_page(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Everything to read; the name to change for those who may."""
    form = OrganizationForm(request.POST if request.method == "POST" else None, initial={"name": access.org.name})
    if request.method == "POST" and form.is_valid():
        try:
            org = rename_organization(access, name=form.value("name"))
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, f"The organization is now called {org.name}.")
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

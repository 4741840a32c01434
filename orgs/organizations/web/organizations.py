"""Pages: the organizations of a person, and a new one."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render

from cloudsignal.errors import DomainError
from orgs.access.grants import list_organizations
from orgs.access.web.gate import address_of, person_page
from orgs.models import User
from orgs.organizations.forms import OrganizationForm
from orgs.organizations.lifecycle import create_organization


@person_page()
def index(request: HttpRequest, user: User) -> HttpResponseBase:
    """List the organizations of the person."""
    return render(request, "orgs/list.html", {"entries": list_organizations(user)})


@person_page(methods=("GET", "POST"))
def new(request: HttpRequest, user: User) -> HttpResponseBase:
    """Create an organization and open its page."""
    form = OrganizationForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            org = create_organization(user, name=form.value("name"), ip=address_of(request))
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, f"{org.name} is ready. Every topic is denied until a rule allows it.")
            return redirect("platform:home", org.pk)
    return render(request, "orgs/new.html", {"form": form}, status=422 if form.errors else 200)

"""Pages: the SSO connections of an organization."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.errors import DomainError, NotFound
from cloudsignal.web.confirm import Impact, Question, confirm
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.access.web.reauthentication import ask_again
from orgs.models import SingleSignOn
from orgs.permissions import Permission
from orgs.sso import saml
from orgs.sso.connections import add_sign_on, change_sign_on, count_people, get_sign_on, list_sign_ons, remove_sign_on
from orgs.sso.forms import SignOnForm, form_for
from orgs.sso.protocol import addresses_of


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List the SSO connections by name, and the link to their sign-in page."""
    context = {
        "sign_ons": list_sign_ons(access),
        "may_manage": access.may(Permission.PROVIDERS_MANAGE),
        "saml_available": saml.available(),
        "door": f"{settings.PUBLIC_URL}{reverse('orgs:sign-on-door', args=[access.org_id])}",
    }
    return render(request, "orgs/sign_on.html", context)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def new(request: HttpRequest, access: Access, kind: str) -> HttpResponseBase:
    """Add an SSO connection."""
    if kind not in SingleSignOn.Kind.values:
        raise NotFound("This kind of SSO connection")
    if kind == SingleSignOn.Kind.SAML and not saml.available():
        raise NotFound("SAML, which is not installed,")
    form = form_for(kind)(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        ask_again(request)
        if form.is_valid():
            try:
                made = add_sign_on(access, kind, form.wanted())
            except DomainError as error:
                form.refuse(error)
            else:
                messages.success(
                    request, f"{made.name} is added. Enter the URL below at the provider, then test the connection."
                )
                return redirect("orgs:sign-on", access.org_id, made.pk)
    return _form(request, form, kind, None)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def change(request: HttpRequest, access: Access, sign_on_id: str) -> HttpResponseBase:
    """Change an SSO connection; show the values to enter at the identity provider."""
    sign_on = get_sign_on(access, sign_on_id)
    form = form_for(sign_on.kind)(request.POST if request.method == "POST" else None, sign_on=sign_on)
    if request.method == "POST":
        ask_again(request)
        if form.is_valid():
            try:
                change_sign_on(access, sign_on_id, form.wanted())
            except DomainError as error:
                form.refuse(error)
            else:
                messages.success(request, f"{form.value('name')} is saved.")
                return redirect("orgs:sign-on", access.org_id, sign_on_id)
    return _form(request, form, sign_on.kind, sign_on)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"))
def remove(request: HttpRequest, access: Access, sign_on_id: str) -> HttpResponseBase:
    """Remove an SSO connection."""
    sign_on = get_sign_on(access, sign_on_id)
    if request.method == "POST":
        ask_again(request)
        remove_sign_on(access, sign_on_id)
        messages.success(request, f"{sign_on.name} is removed. Nobody can sign in through it now.")
        return redirect("orgs:sign-ons", access.org_id)
    known = count_people(access, sign_on)
    question = Question(
        title=f"Remove {sign_on.name}?",
        text="Its SSO sessions are closed. People stay members; those without a password can set one with "
        '"Forgot your password?".',
        impact=[
            Impact("1", f"SSO connection removed: {sign_on.issuer}"),
            Impact(f"{known:,}", "person signs in through it" if known == 1 else "people sign in through it"),
        ],
        action="Remove the SSO connection",
        url=reverse("orgs:sign-on-remove", args=[access.org_id, sign_on_id]),
        cancel=reverse("orgs:sign-ons", args=[access.org_id]),
    )
    return confirm(request, question)


def _form(request: HttpRequest, form: SignOnForm, kind: str, sign_on: SingleSignOn | None) -> HttpResponseBase:
    context = {
        "form": form,
        "kind": SingleSignOn.Kind(kind),
        "sign_on": sign_on,
        "addresses": addresses_of(sign_on) if sign_on else None,
        "saml_missing": kind == SingleSignOn.Kind.SAML and not saml.available(),
    }
    return render(request, "orgs/sign_on_form.html", context, status=422 if form.errors else 200)

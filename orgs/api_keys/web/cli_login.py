"""Page: a person authorizes the CLI for an organization, or denies it."""

from __future__ import annotations

from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render

from cloudsignal.errors import DomainError, Invalid
from cloudsignal.web.formatting import duration
from orgs.access.grants import OrganizationEntry, access_org, list_organizations
from orgs.access.web.gate import address_of, person_page
from orgs.access.web.reauthentication import ask_again
from orgs.api_keys.cli_login import CODE_SECONDS, LoginRequest, approve_login, read_request
from orgs.api_keys.forms import CommandLineForm
from orgs.api_keys.keys import personal_lifetime
from orgs.models import Organization, User
from orgs.permissions import CLI_SESSION, PERMISSIONS, TITLES


@person_page(methods=("GET", "POST"))
def cli_login(request: HttpRequest, user: User) -> HttpResponseBase:
    """Ask for consent, then return to the CLI: by a redirect to this computer, or by a code to paste."""
    try:
        asked = read_request(request.GET.dict())
    except Invalid as error:
        return render(request, "orgs/cli_login_wrong.html", {"error": error}, status=error.status)
    if request.method == "POST" and request.POST.get("answer") == "no":
        return _refused(request, asked)
    ask_again(request)
    entries = [one for one in list_organizations(user) if one.org.status == Organization.Status.ACTIVE]
    first = {"organization": entries[0].org.pk} if len(entries) == 1 else None
    form = CommandLineForm(entries, request.POST if request.method == "POST" else None, initial=first)
    if request.method == "POST" and form.is_valid():
        try:
            access = access_org(user, form.value("organization"), ip=address_of(request))
            code = approve_login(access, asked)
        except DomainError as error:
            form.refuse(error)
        else:
            return _approved(request, asked, code, access.org)
    context = {
        "asked": asked,
        "person": user,
        "form": form,
        "may": {entry.org.pk: _words(entry) for entry in entries},
        "roles": {entry.org.pk: entry.role for entry in entries},
        "lifetime": duration(personal_lifetime(user).total_seconds()),
        "address": address_of(request),
    }
    # A form's answer may lead elsewhere only if the policy of its page says so: here to the address that was checked.
    shown = csp_update({"form-action": [asked.origin]})(
        lambda request: render(request, "orgs/cli_login.html", context, status=422 if form.errors else 200)
    )
    return shown(request)


def _approved(request: HttpRequest, asked: LoginRequest, code: str, org: Organization) -> HttpResponseBase:
    if not asked.shows_code:
        return redirect(asked.answer(code=code))
    context = {"code": code, "org": org, "asked": asked, "back": asked.answer(code=code), "seconds": CODE_SECONDS}
    return render(request, "orgs/cli_login_done.html", context)


def _refused(request: HttpRequest, asked: LoginRequest) -> HttpResponseBase:
    if not asked.shows_code:
        return redirect(asked.answer(error="access_denied"))
    return render(request, "orgs/cli_login_done.html", {"code": "", "asked": asked})


def _words(entry: OrganizationEntry) -> list[str]:
    held = PERMISSIONS[entry.role] & CLI_SESSION
    return [words for permission, words in TITLES.items() if permission in held]

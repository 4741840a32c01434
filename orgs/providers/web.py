"""Pages: identity providers, testing a token, allowed CORS origins."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.errors import DomainError, NotFound
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.formatting import plural
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.access.web.reauthentication import ask_again
from orgs.credentials.expiry import count_identities_of
from orgs.models import IdentityProvider
from orgs.organizations.settings import change_settings
from orgs.permissions import Permission
from orgs.providers.forms import RECIPES, OriginsForm, ProviderForm, Recipe, TryForm
from orgs.providers.providers import (
    add_provider,
    change_provider,
    get_provider,
    list_providers,
    remove_provider,
    try_token,
)

CHECK_WORDS = {
    "format": "Form",
    "algorithm": "Algorithm",
    "key": "Key",
    "signature": "Signature",
    "expiry": "Expiry",
    "start": "Start",
    "issuer": "Issuer",
    "audience": "Audience",
    "subject": "Subject",
    "email": "E-mail",
}


@org_page(Permission.ORG_READ, write=Permission.ORG_UPDATE, methods=("GET", "POST"))
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List the providers by name, and the allowed origins; POST saves the origins."""
    origins = "\n".join(access.org.allowed_origins)
    form = OriginsForm(request.POST if request.method == "POST" else None, initial={"allowed_origins": origins})
    if request.method == "POST" and form.is_valid():
        try:
            org = change_settings(access, allowed_origins=form.cleaned_data["allowed_origins"])
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(
                request, f"Saved: {plural(len(org.allowed_origins), 'origin')} can call the token service."
            )
            return redirect("orgs:providers", access.org_id)
    context = {
        "providers": list_providers(access),
        "form": form,
        "origins": access.org.allowed_origins,
        "may_manage": access.may(Permission.PROVIDERS_MANAGE),
        "may_update": access.may(Permission.ORG_UPDATE),
    }
    return render(request, "orgs/providers.html", context, status=422 if form.errors else 200)


@org_page(Permission.PROVIDERS_MANAGE)
def choose(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Choose the kind of provider to add."""
    return render(request, "orgs/providers_choose.html", {"recipes": RECIPES.values()})


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"))
def new(request: HttpRequest, access: Access, kind: str) -> HttpResponseBase:
    """Add a provider of one kind."""
    recipe = _recipe(kind)
    ask_again(request)
    initial = {"name": kind, "audience": recipe.usual_audience, "enabled": True}
    form = ProviderForm(recipe, request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            made = add_provider(access, form.wanted())
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, f"{made.name} is added. Test a token before your app uses it.")
            return redirect("orgs:provider-try", access.org_id, made.pk)
    return _form(request, form, None)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"))
def change(request: HttpRequest, access: Access, provider_id: str) -> HttpResponseBase:
    """Change a provider; its name is fixed."""
    provider = get_provider(access, provider_id)
    ask_again(request)
    initial = {
        "name": provider.name, "issuer": provider.issuer, "audience": provider.audience,
        "jwks_url": provider.jwks_url, "algorithms": provider.algorithms, "enabled": provider.enabled,
    }  # fmt: skip
    form = ProviderForm(
        _recipe(provider.kind), request.POST if request.method == "POST" else None, initial=initial, provider=provider
    )
    if request.method == "POST" and form.is_valid():
        try:
            change_provider(access, provider_id, form.wanted())
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, f"{provider.name} is saved.")
            return redirect("orgs:providers", access.org_id)
    return _form(request, form, provider)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"))
def remove(request: HttpRequest, access: Access, provider_id: str) -> HttpResponseBase:
    """Remove a provider."""
    provider = get_provider(access, provider_id)
    if request.method == "POST":
        remove_provider(access, provider_id)
        messages.success(request, f"{provider.name} is removed. Its tokens are refused from now on.")
        return redirect("orgs:providers", access.org_id)
    known = count_identities_of(access, provider.name)
    question = Question(
        title=f"Remove {provider.name}?",
        text="Its tokens are refused from now on. Its users keep their credentials until those expire, and get "
        "no new ones. A provider that is added later under the same name keeps the same users.",
        impact=[
            Impact("1", f"issuer no longer trusted: {provider.issuer}"),
            Impact(f"{known:,}", "user who cannot get a new credential" if known == 1 else
                    "users who cannot get new credentials"),
        ],
        action="Remove the provider",
        url=reverse("orgs:provider-remove", args=[access.org_id, provider_id]),
        cancel=reverse("orgs:providers", args=[access.org_id]),
    )  # fmt: skip
    return confirm(request, question)


@org_page(Permission.PROVIDERS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def try_page(request: HttpRequest, access: Access, provider_id: str) -> HttpResponseBase:
    """Test a token with every check of the exchange, without issuing anything; it may fetch keys."""
    provider = get_provider(access, provider_id)
    form = TryForm(request.POST if request.method == "POST" else None)
    context: dict[str, object] = {"provider": provider, "form": form}
    if request.method == "POST" and form.is_valid():
        verdict = try_token(access, provider_id, form.value("token"))
        checks = [(CHECK_WORDS.get(check.name, check.name), check) for check in verdict.checks]
        context |= {"verdict": verdict, "checks": checks}
    return render(request, "orgs/providers_try.html", context, status=422 if form.errors else 200)


def _form(request: HttpRequest, form: ProviderForm, provider: IdentityProvider | None) -> HttpResponseBase:
    advanced = ("jwks_url", "secret", "algorithms")
    unfold = bool(set(advanced) & set(form.errors)) or (provider is not None and provider.secret is not None)
    context = {"form": form, "recipe": form.recipe, "provider": provider, "unfold": unfold}
    return render(request, "orgs/providers_form.html", context, status=422 if form.errors else 200)


def _recipe(kind: str) -> Recipe:
    if kind not in RECIPES:
        raise NotFound("This kind of identity provider")
    return RECIPES[kind]

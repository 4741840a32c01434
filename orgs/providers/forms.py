"""Forms about identity providers and origins: they parse; the services decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms

from cloudsignal.web.forms import Form, mono
from orgs.models import IdentityProvider
from orgs.providers.providers import PUBLIC_KEY, SHARED_SECRET, Wanted


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a person must know to connect one kind of provider: examples, and where the values are found."""

    kind: str
    title: str
    about: str
    issuer: str
    issuer_help: str
    audience: str
    audience_help: str
    keys_help: str
    usual_audience: str = ""


RECIPES: dict[str, Recipe] = {
    recipe.kind: recipe
    for recipe in (
        Recipe(
            IdentityProvider.Kind.SUPABASE, "Supabase", "Sign-in of a Supabase project.",
            "https://abcdefghij.supabase.co/auth/v1", "Project URL with /auth/v1.",
            "authenticated", "Supabase writes “authenticated” for people who are signed in.",
            "Empty: the issuer's /.well-known/jwks.json. Older projects sign with a shared JWT secret: give it below.",
            "authenticated",
        ),
        Recipe(
            IdentityProvider.Kind.FIREBASE, "Firebase", "Firebase Authentication and Google Identity Platform.",
            "https://securetoken.google.com/my-project", "https://securetoken.google.com/ and the project id.",
            "my-project", "The project id.", "Empty: Google's keys for Firebase.",
        ),
        Recipe(
            IdentityProvider.Kind.AUTH0, "Auth0", "An Auth0 tenant.",
            "https://my-tenant.eu.auth0.com/", "The tenant's domain, with the slash at its end.",
            "https://mqtt.example.com", "The identifier of the API in Auth0, or the client id for ID tokens.",
            "Empty: the issuer's /.well-known/jwks.json.",
        ),
        Recipe(
            IdentityProvider.Kind.CLERK, "Clerk", "A Clerk application.",
            "https://clerk.example.com", "The Frontend API URL.",
            "https://app.example.com", "Where your page is served (azp), or the aud of your JWT template.",
            "Empty: the issuer's /.well-known/jwks.json. The session token needs an email claim: add it in Clerk.",
        ),
        Recipe(
            IdentityProvider.Kind.OIDC, "OpenID Connect", "Any other issuer of signed JSON Web Tokens.",
            "https://id.example.com", "Exactly what stands in the tokens' iss claim.",
            "mqtt", "What stands in the tokens' aud claim when they are meant for here.",
            "Empty: found through the issuer's /.well-known/openid-configuration.",
        ),
    )
}  # fmt: skip


class ProviderForm(Form):
    """One identity provider; labels and examples are those of its kind."""

    name = forms.CharField(
        label="Name",
        max_length=63,
        widget=forms.TextInput(attrs=mono()),
        help_text="Lower-case letters, digits, _ and -. Part of every user it signs in, so it never changes.",
        error_messages={"required": "Give the provider a name."},
    )
    issuer = forms.CharField(
        label="Issuer", max_length=255, widget=forms.TextInput(attrs=mono(inputmode="url")),
        error_messages={"required": "Give the issuer's https address."},
    )  # fmt: skip
    audience = forms.CharField(label="Audience", max_length=255, required=False, widget=forms.TextInput(attrs=mono()))
    jwks_url = forms.CharField(
        label="JWKS URL", required=False, max_length=500, widget=forms.TextInput(attrs=mono(inputmode="url"))
    )
    secret = forms.CharField(
        label="Shared secret",
        required=False,
        strip=False,
        widget=forms.PasswordInput(render_value=True, attrs=mono(autocomplete="new-password")),
        help_text="Instead of a JWKS URL, for providers that sign with HS256. At least 32 bytes. Kept encrypted, never "
        "shown again.",
    )
    algorithms = forms.MultipleChoiceField(
        label="Algorithms",
        required=False,
        choices=[(name, name) for name in (*PUBLIC_KEY, *SHARED_SECRET)],
        widget=forms.CheckboxSelectMultiple,
    )
    enabled = forms.BooleanField(
        label="Enabled", required=False, help_text="While it is off, none of its tokens is exchanged."
    )

    def __init__(self, recipe: Recipe, *args: Any, provider: IdentityProvider | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        for name, example, words in (
            ("issuer", recipe.issuer, recipe.issuer_help),
            ("audience", recipe.audience, recipe.audience_help),
            ("jwks_url", "", recipe.keys_help),
        ):
            self.fields[name].widget.attrs["placeholder"] = example
            self.fields[name].help_text = words
        if provider is not None:
            self.fields["name"].widget.attrs["readonly"] = True
            if provider.secret is not None:
                self.fields["secret"].help_text = "One is set. Empty keeps it; a JWKS URL replaces it."

    def wanted(self) -> Wanted:
        """How the provider is to be."""
        data = self.cleaned_data
        return Wanted(
            name=data["name"], kind=self.recipe.kind, issuer=data["issuer"], audience=data["audience"],
            jwks_url=data["jwks_url"], secret=data["secret"], algorithms=data["algorithms"], enabled=data["enabled"],
        )  # fmt: skip


class TryForm(Form):
    """A token to examine."""

    token = forms.CharField(
        label="Token",
        widget=forms.Textarea(attrs=mono(rows="6", placeholder="eyJhbGciOi…")),
        help_text="A JSON Web Token as your app has it. It is examined and forgotten; nothing is issued.",
        error_messages={"required": "Paste a token."},
    )


class OriginsForm(Form):
    """Origins whose pages may call the token service."""

    allowed_origins = forms.CharField(
        label="Allowed origins",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="3", placeholder="https://app.example.com")),
        help_text="One a line: scheme, host and port as browsers send them. Everything else is refused by CORS.",
    )

    def clean_allowed_origins(self) -> list[str]:
        """The origins, one each."""
        return str(self.cleaned_data["allowed_origins"]).split()

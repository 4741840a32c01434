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
    """Help for connecting one kind of provider: examples, and where the values are found."""

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
            "authenticated", 'Supabase uses "authenticated" for signed-in users.',
            "Empty: the issuer's /.well-known/jwks.json. Older projects sign with a shared JWT secret: enter it below.",
            "authenticated",
        ),
        Recipe(
            IdentityProvider.Kind.FIREBASE, "Firebase", "Firebase Authentication and Google Identity Platform.",
            "https://securetoken.google.com/my-project", "https://securetoken.google.com/ and the project ID.",
            "my-project", "The project ID.", "Empty: Google's keys for Firebase.",
        ),
        Recipe(
            IdentityProvider.Kind.AUTH0, "Auth0", "An Auth0 tenant.",
            "https://my-tenant.eu.auth0.com/", "The tenant's domain, with the trailing slash.",
            "https://mqtt.example.com", "The identifier of the API in Auth0, or the client ID for ID tokens.",
            "Empty: the issuer's /.well-known/jwks.json.",
        ),
        Recipe(
            IdentityProvider.Kind.CLERK, "Clerk", "A Clerk application.",
            "https://clerk.example.com", "The Frontend API URL.",
            "https://app.example.com", "The origin of your web page (azp), or the aud of your JWT template.",
            "Empty: the issuer's /.well-known/jwks.json. The session token needs an email claim: add it in Clerk.",
        ),
        Recipe(
            IdentityProvider.Kind.OIDC, "OpenID Connect", "Any other issuer of signed JSON Web Tokens.",
            "https://id.example.com", "Exactly the iss claim of the tokens.",
            "mqtt", "The aud claim of the tokens that are issued for this organization.",
            "Empty: read from the issuer's /.well-known/openid-configuration.",
        ),
    )
}  # fmt: skip


class ProviderForm(Form):
    """One identity provider; labels and examples are those of its kind."""

    name = forms.CharField(
        label="Name",
        max_length=63,
        widget=forms.TextInput(attrs=mono()),
        help_text="Lowercase letters, digits, _ and -. Part of the name of its users; cannot be changed.",
        error_messages={"required": "Enter a name for the provider."},
    )
    issuer = forms.CharField(
        label="Issuer", max_length=255, widget=forms.TextInput(attrs=mono(inputmode="url")),
        error_messages={"required": "Enter the issuer's https URL."},
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
    enabled = forms.BooleanField(label="Enabled", required=False, help_text="While disabled, its tokens are refused.")

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
                self.fields["secret"].help_text = "A secret is set. Leave empty to keep it; a JWKS URL replaces it."

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
        help_text="A JSON Web Token as your app gets it. It is checked and not stored; nothing is issued.",
        error_messages={"required": "Paste a token."},
    )


class OriginsForm(Form):
    """Origins whose pages can call the token service."""

    allowed_origins = forms.CharField(
        label="Allowed origins",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="3", placeholder="https://app.example.com")),
        help_text="One per line: scheme, host and port, as browsers send them. CORS refuses all other origins.",
    )

    def clean_allowed_origins(self) -> list[str]:
        """The origins, one each."""
        return str(self.cleaned_data["allowed_origins"]).split()

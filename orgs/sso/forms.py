"""Forms of SSO connections: they parse, services validate."""

from __future__ import annotations

from typing import Any

from django import forms

from cloudsignal.web.forms import Form, mono
from orgs.models import SingleSignOn
from orgs.people.forms import ROLE_WORDS
from orgs.permissions import Role
from orgs.providers.providers import PUBLIC_KEY
from orgs.sso.connections import WantedSignOn
from orgs.sso.saml import fetch_metadata


class SignOnForm(Form):
    """The fields that OIDC and SAML connections share."""

    name = forms.CharField(
        label="Name",
        max_length=63,
        help_text='The text of the button on the sign-in page, such as "Acme staff".',
        error_messages={"required": "Enter a name for the SSO connection."},
    )
    domains = forms.CharField(
        label="Email domains",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="2", placeholder="example.com")),
        help_text="One per line. An operator approves each domain; until then only invited people can sign in.",
    )
    role = forms.ChoiceField(
        label="New members from approved domains",
        required=False,
        choices=[
            ("", "only by invitation"),
            *((role.value, f"become {role.value}: {ROLE_WORDS[role]}") for role in reversed(Role) if role != "owner"),
        ],
    )
    enabled = forms.BooleanField(
        label="Enabled", required=False, help_text="Test the connection first: you can test it while it is disabled."
    )
    required = forms.BooleanField(
        label="Required for members",
        required=False,
        help_text="Members can use this organization only through SSO. Owners can still sign in with a password and a "
        "second factor, in case the identity provider is unavailable.",
    )

    def __init__(self, *args: Any, sign_on: SingleSignOn | None = None, **kwargs: Any) -> None:
        if sign_on is not None:
            kwargs["initial"] = self.present(sign_on)
        super().__init__(*args, **kwargs)
        self.sign_on = sign_on

    def present(self, sign_on: SingleSignOn) -> dict[str, object]:
        """The initial values of a stored connection."""
        return {
            "name": sign_on.name, "domains": "\n".join(sign_on.domains), "role": sign_on.role,
            "enabled": sign_on.enabled, "required": sign_on.required,
        }  # fmt: skip

    def wanted(self) -> WantedSignOn:
        """The wanted settings; it may fetch metadata, so call it outside transactions. Raises ``Invalid``."""
        return WantedSignOn(**self.common())

    def common(self) -> dict[str, Any]:
        """The shared fields of :meth:`wanted`."""
        data = self.cleaned_data
        names = ("name", "role", "enabled", "required")
        return {name: data[name] for name in names} | {"domains": data["domains"].replace(",", " ").split()}


class OidcForm(SignOnForm):
    """The form of an OIDC connection."""

    field_order = ("name", "issuer", "client_id", "secret")
    issuer = forms.CharField(
        label="Issuer",
        max_length=255,
        widget=forms.TextInput(attrs=mono(inputmode="url", placeholder="https://id.example.com")),
        help_text="Must equal the issuer in its /.well-known/openid-configuration.",
        error_messages={"required": "Enter the issuer's https URL."},
    )
    client_id = forms.CharField(
        label="Client ID",
        max_length=255,
        widget=forms.TextInput(attrs=mono()),
        error_messages={"required": "Enter the client ID from the provider."},
    )
    secret = forms.CharField(
        label="Client secret",
        required=False,
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(render_value=True, attrs=mono(autocomplete="new-password")),
        help_text="Stored encrypted, never shown again. Leave empty for a public client, which uses PKCE alone.",
    )
    drop_secret = forms.BooleanField(label="Delete the secret: this is now a public client", required=False)
    algorithms = forms.MultipleChoiceField(
        label="Algorithms",
        required=False,
        choices=[(name, name) for name in PUBLIC_KEY],
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, *args: Any, sign_on: SingleSignOn | None = None, **kwargs: Any) -> None:
        super().__init__(*args, sign_on=sign_on, **kwargs)
        if sign_on is None or sign_on.secret is None:
            del self.fields["drop_secret"]
        else:
            self.fields["secret"].help_text = "A secret is set. Leave empty to keep it."

    def present(self, sign_on: SingleSignOn) -> dict[str, object]:
        """The initial values of a stored connection, without its secret."""
        own = {"issuer": sign_on.issuer, "client_id": sign_on.client_id, "algorithms": sign_on.algorithms}
        return super().present(sign_on) | own

    def wanted(self) -> WantedSignOn:
        """The wanted settings."""
        data = self.cleaned_data
        return WantedSignOn(
            **self.common(), issuer=data["issuer"], client_id=data["client_id"], secret=data["secret"],
            drop_secret=data.get("drop_secret", False), algorithms=data["algorithms"],
        )  # fmt: skip


class SamlForm(SignOnForm):
    """The form of a SAML connection."""

    field_order = ("name", "metadata_url", "metadata")
    metadata_url = forms.CharField(
        label="Metadata URL",
        required=False,
        max_length=500,
        widget=forms.TextInput(attrs=mono(inputmode="url", placeholder="https://id.example.com/metadata")),
        help_text="Read once, when you save. Save again when the provider changes its certificate.",
    )
    metadata = forms.CharField(
        label="Metadata",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="6", placeholder="<EntityDescriptor …>")),
        help_text="Or paste the metadata XML of the identity provider.",
    )

    def present(self, sign_on: SingleSignOn) -> dict[str, object]:
        """The initial values of a stored connection."""
        return super().present(sign_on) | {"metadata": sign_on.metadata}

    def wanted(self) -> WantedSignOn:
        """The wanted settings; fetches the metadata if a URL is given. Raises ``Invalid``."""
        url = self.value("metadata_url")
        return WantedSignOn(**self.common(), metadata=fetch_metadata(url) if url else self.value("metadata"))


def form_for(kind: str) -> type[OidcForm] | type[SamlForm]:
    """The form class of a protocol."""
    return SamlForm if kind == SingleSignOn.Kind.SAML else OidcForm

"""Forms of API keys: they parse, services validate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import forms

from cloudsignal.web.forms import Form, day_field, end_of_day, mono
from orgs.access.api_keys import SECRET
from orgs.access.grants import Access, OrganizationEntry
from orgs.models import ApiKey
from orgs.permissions import TITLES

HOUR = 3600
KINDS: tuple[tuple[str, str, str], ...] = (
    (ApiKey.Kind.RESTRICTED, "Restricted, rk_", "Only the scopes you select below. Recommended."),
    (ApiKey.Kind.SECRET, "Secret, sk_", "Everything an admin can do. For servers only, never in an app or a browser."),
    (
        ApiKey.Kind.PUBLISHABLE,
        "Publishable, pk_",
        "Safe in a web page. Only exchanges sign-in tokens for MQTT credentials and reads public information.",
    ),
)
OVERLAPS: tuple[tuple[int, str], ...] = (
    (0, "revoke it now"),
    (HOUR, "1 hour"),
    (24 * HOUR, "1 day"),
    (7 * 24 * HOUR, "7 days"),
    (30 * 24 * HOUR, "30 days (maximum)"),
)


class KeyForm(Form):
    """A new API key."""

    name = forms.CharField(
        label="Name",
        max_length=80,
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "billing service, production"}),
        help_text="What uses the key, and where.",
        error_messages={"required": "Enter a name for the key."},
    )
    kind = forms.ChoiceField(
        label="Kind", choices=[(kind, title) for kind, title, _ in KINDS], widget=forms.RadioSelect,
        error_messages={"required": "Choose a kind."},
    )  # fmt: skip
    scopes = forms.MultipleChoiceField(label="Scopes", required=False, widget=forms.CheckboxSelectMultiple)
    expires_on = day_field("Last day", "The key expires after this day (UTC). Empty: it never expires.")
    ip_allow = forms.CharField(
        label="Allowed addresses",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="2", placeholder="203.0.113.7\n198.51.100.0/24")),
        help_text="One address or network per line. The key is refused from other addresses. Empty: any address.",
    )

    def __init__(self, access: Access, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scopes = self.fields["scopes"]
        if isinstance(scopes, forms.MultipleChoiceField):
            scopes.choices = [
                (scope.value, words) for scope, words in TITLES.items() if scope in SECRET and access.may(scope)
            ]

    def clean_ip_allow(self) -> list[str]:
        """The allowed networks, as a list."""
        return [part for part in str(self.cleaned_data["ip_allow"]).replace(",", "\n").split() if part]

    def expires_at(self) -> datetime | None:
        """When the key expires; None for never."""
        return end_of_day(self.cleaned_data["expires_on"])


class RotateForm(Form):
    """How long the old key stays active beside the new one."""

    overlap = forms.TypedChoiceField(
        label="Keep the old key active for", choices=OVERLAPS, coerce=int, initial=24 * HOUR,
        help_text="Long enough to replace it everywhere.",
    )  # fmt: skip


class CommandLineForm(Form):
    """The organization that the CLI is authorized for."""

    organization = forms.ChoiceField(
        label="Organization", widget=forms.RadioSelect, error_messages={"required": "Choose an organization."}
    )

    def __init__(self, entries: Sequence[OrganizationEntry], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        organization = self.fields["organization"]
        if isinstance(organization, forms.ChoiceField):
            organization.choices = [(entry.org.pk, entry.org.name) for entry in entries]

"""Forms about credentials: they parse; the services decide."""

from __future__ import annotations

from typing import Any

from django import forms

from cloudsignal.web.forms import FilterForm, Form, mono, read_claims
from orgs.credentials.issuing import LOCAL_NAME

HOUR = 3600
LIFETIMES: tuple[tuple[int, str], ...] = (
    (15 * 60, "15 minutes"),
    (HOUR, "1 hour"),
    (4 * HOUR, "4 hours"),
    (12 * HOUR, "12 hours"),
    (24 * HOUR, "24 hours (maximum)"),
)
STATES: tuple[tuple[str, str], ...] = (
    ("", "Any"),
    ("active", "Active"),
    ("static", "Static"),
    ("retired", "Retired"),
    ("expired", "Expired"),
    ("revoked", "Revoked"),
)


class CredentialForm(Form):
    """A new credential. Claims are lines ``name = value``; a value with commas becomes a list."""

    username = forms.CharField(
        label="Username",
        required=False,
        widget=forms.TextInput(attrs=mono(placeholder="generated")),
        help_text="Lowercase letters, digits, _ and -. An existing username gets a further credential.",
    )
    ttl = forms.TypedChoiceField(label="Valid for", choices=LIFETIMES, coerce=int, initial=HOUR, required=False)
    static = forms.BooleanField(
        label="Static credential: never expires",
        required=False,
        help_text="For devices that cannot fetch a new credential. It is valid until it is revoked, and is flagged "
        "on every list. Needs a username.",
    )
    claims = forms.CharField(
        label="Claims",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=mono(rows="3", placeholder="agent_id = agent-7\nroom = lobby, kitchen")),
        help_text='One "name = value" per line. Rules use them as {claims.name}; commas make a list.',
    )
    note = forms.CharField(label="Note", required=False, max_length=200, help_text="A description of the client.")

    def clean_username(self) -> str:
        """The local part as the service wants it, checked here too so that all that is wrong shows at once."""
        username = str(self.cleaned_data["username"])
        if username and not LOCAL_NAME.match(username):
            raise forms.ValidationError(
                "A name has up to 63 of a-z, 0-9, - and _, and begins with a letter or digit.", code="bad_username"
            )
        return username

    def clean_ttl(self) -> int:
        """Seconds; an hour when nothing was chosen."""
        return int(self.cleaned_data["ttl"] or HOUR)

    def clean_claims(self) -> dict[str, Any]:
        """The claims as a mapping."""
        return read_claims(str(self.cleaned_data["claims"]))


class CredentialFilter(FilterForm):
    """Filters of the credentials list."""

    state = forms.ChoiceField(label="Status", choices=STATES, required=False)
    username = forms.CharField(
        label="Username starts with",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )
    cursor = forms.CharField(required=False, widget=forms.HiddenInput)

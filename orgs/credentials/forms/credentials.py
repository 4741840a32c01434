"""Forms about organizations and credentials: they parse; the services decide."""

from __future__ import annotations

from typing import Any

from django import forms

from cloudsignal.web.forms import FilterForm, Form, mono
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


class OrganizationForm(Form):
    """Name of an organization."""

    name = forms.CharField(
        label="Name",
        max_length=80,
        help_text="A name for people. The ID that clients use is generated and never changes.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
        error_messages={"required": "Enter a name for the organization.", "max_length": "Enter at most 80 characters."},
    )


def read_claims(text: str) -> dict[str, Any]:
    """Lines ``name = value`` as a mapping; a value with commas becomes a list. Names the line that is wrong."""
    claims: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not name:
            raise forms.ValidationError(f'Line {number} is not "name = value": {line.strip()[:60]}')
        if name in claims:
            raise forms.ValidationError(f"Line {number} gives {name} a second time; write its values with commas.")
        values = [part.strip() for part in value.split(",") if part.strip()]
        claims[name] = values[0] if len(values) == 1 else values or ""
    return claims


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


class ClientFilter(FilterForm):
    """Filter of the live sessions: a text within username, client id or address."""

    find = forms.CharField(
        label="Username, client ID or address",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )


class BrokerFilter(FilterForm):
    """Filter of what lies in the broker: a text within topic, client id or username."""

    find = forms.CharField(
        label="Topic, client ID or username",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )


class TopicForm(Form):
    """The topic of a retained message."""

    topic = forms.CharField(label="Topic", max_length=1_024, strip=False, widget=forms.TextInput(attrs=mono()))


class ClientIdForm(Form):
    """The client id of a stored session."""

    client_id = forms.CharField(label="Client ID", max_length=65_535, strip=False, widget=forms.TextInput(attrs=mono()))


class SuspendForm(Form):
    """Why an organization is suspended."""

    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=200,
        help_text="Shown to the members of the organization.",
    )

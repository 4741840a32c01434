"""Forms of the expiry view and of a username's claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from cloudsignal.web.forms import FilterForm, Form, mono, read_claims
from cloudsignal.wire.credential import ClaimValue

WINDOWS: tuple[tuple[str, str], ...] = (("hour", "the next hour"), ("day", "the next day"), ("week", "the next week"))


class ExpiryFilter(FilterForm):
    """How far ahead to look."""

    within = forms.ChoiceField(label="Expires within", choices=WINDOWS, required=False)
    cursor = forms.CharField(required=False, widget=forms.HiddenInput)


class ClaimsForm(Form):
    """The claims of a username, one a line."""

    claims = forms.CharField(
        label="Claims",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=mono(rows="8", placeholder="agent_id = agent-7\nroom = lobby, kitchen")),
        help_text='One "name = value" per line. Rules use them as {claims.name}; commas make a list. '
        "Remove a line to remove its claim.",
    )

    def clean_claims(self) -> dict[str, Any]:
        """The claims as a mapping."""
        return read_claims(str(self.cleaned_data["claims"]))


def claims_text(claims: Mapping[str, ClaimValue]) -> str:
    """Claims as the form shows them."""
    return "\n".join(f"{name} = {_shown(value)}" for name, value in sorted(claims.items()))


def _shown(value: ClaimValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ", ".join(value)


def changed_claims(before: Mapping[str, ClaimValue], sent: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The claims to set and to remove. A line left as it was keeps its value: a number stays a number."""
    as_shown = {name: read_claims(f"{name} = {_shown(value)}")[name] for name, value in before.items()}
    change = {name: value for name, value in sent.items() if name not in before or as_shown[name] != value}
    return change, sorted(set(before) - set(sent))

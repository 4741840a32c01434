"""Forms about members and invitations: they parse; the services decide."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from django import forms
from django.utils import timezone

from cloudsignal.web.forms import Form
from orgs.access.grants import Access
from orgs.permissions import Role

ROLE_WORDS: dict[Role, str] = {
    Role.OWNER: "everything, and may delete or give away the organization",
    Role.ADMIN: "members, API keys, identity providers, settings, and all below",
    Role.DEVELOPER: "credentials, rules, simulate, deploy, close sessions",
    Role.AUDITOR: "reads everything and searches the audit",
    Role.VIEWER: "reads everything but the audit",
}


def end_of_day(day: date | None) -> datetime | None:
    """The last second of a day, UTC; None for no day."""
    return datetime.combine(day, time(23, 59, 59), UTC) if day else None


def day_field(label: str, help_text: str, **attrs: str) -> forms.DateField:
    """A day that may be left out; the browser offers a calendar from tomorrow on."""
    return forms.DateField(
        label=label,
        required=False,
        help_text=help_text,
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date", **attrs}),
        error_messages={"invalid": "Write a day as 2027-01-31."},
    )


def roles_to_give(access: Access) -> list[tuple[str, str]]:
    """The roles ``access`` may give, weakest last, each with what it may do."""
    given = [role for role in Role if role is not Role.OWNER or access.role is Role.OWNER]
    return [(role.value, f"{role.value.title()}: {ROLE_WORDS[role]}") for role in given]


class _RoleForm(Form):
    role = forms.ChoiceField(label="Role")
    ends_on = day_field(
        "Last day", "The membership ends by itself after this day (UTC). Made for auditors; empty means no end."
    )

    def __init__(self, access: Access, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        role = self.fields["role"]
        if isinstance(role, forms.ChoiceField):
            role.choices = roles_to_give(access)
        self.fields["ends_on"].widget.attrs["min"] = timezone.now().date().isoformat()

    def ends_at(self) -> datetime | None:
        """When the membership ends; None for never."""
        return end_of_day(self.cleaned_data["ends_on"])


class InviteForm(_RoleForm):
    """Whom to invite, as what."""

    field_order = ("email", "role", "ends_on")
    email = forms.CharField(
        label="Email address",
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
        help_text="The link that is sent works for this address only.",
        error_messages={"required": "Say whom to invite."},
    )


class CodeForm(Form):
    """The code that goes with an invitation."""

    code = forms.CharField(
        label="Code",
        required=False,
        max_length=20,
        help_text="From the person who invited you: nobody has confirmed yet that this address is yours.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "mono"}),
    )


class MemberForm(_RoleForm):
    """A member's role and last day."""

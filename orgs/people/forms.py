"""Forms of members and invitations: they parse, services validate."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone

from cloudsignal.web.forms import Form, day_field, end_of_day
from orgs.access.grants import Access
from orgs.permissions import Role

ROLE_WORDS: dict[Role, str] = {
    Role.OWNER: "everything, including deleting the organization and transferring its ownership",
    Role.ADMIN: "members, API keys, identity providers, settings, and everything a developer can do",
    Role.DEVELOPER: "credentials, policy, simulation, deployment, closing sessions",
    Role.AUDITOR: "read everything, search the audit log",
    Role.VIEWER: "read everything except the audit log",
}


def roles_to_give(access: Access) -> list[tuple[str, str]]:
    """The roles that ``access`` may assign, weakest last, each with its description."""
    given = [role for role in Role if role is not Role.OWNER or access.role is Role.OWNER]
    return [(role.value, f"{role.value.title()}: {ROLE_WORDS[role]}") for role in given]


class _RoleForm(Form):
    role = forms.ChoiceField(label="Role")
    ends_on = day_field("Last day", "The membership expires after this day (UTC). Empty: it never expires.")

    def __init__(self, access: Access, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        role = self.fields["role"]
        if isinstance(role, forms.ChoiceField):
            role.choices = roles_to_give(access)
        self.fields["ends_on"].widget.attrs["min"] = timezone.now().date().isoformat()

    def ends_at(self) -> datetime | None:
        """When the membership expires; None for never."""
        return end_of_day(self.cleaned_data["ends_on"])


class InviteForm(_RoleForm):
    """The address and role of an invitation."""

    field_order = ("email", "role", "ends_on")
    email = forms.CharField(
        label="Email address",
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
        help_text="The link in the email works for this address only.",
        error_messages={"required": "Enter the email address of the person."},
    )


class CodeForm(Form):
    """The code of an invitation."""

    code = forms.CharField(
        label="Code",
        required=False,
        max_length=20,
        help_text="Ask the person who invited you: this email address is not confirmed yet.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "mono"}),
    )


class MemberForm(_RoleForm):
    """A member's role and expiry."""

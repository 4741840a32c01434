"""Forms of an organization: they parse, services validate."""

from __future__ import annotations

from django import forms

from cloudsignal.web.forms import Form
from orgs.models import Organization


class DeleteForm(Form):
    """The typed name that confirms which organization is deleted."""

    confirm = forms.CharField(
        label="The organization's name",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Type the name shown above.",
        error_messages={"required": "Type the name of the organization to confirm."},
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


class SettingsForm(OrganizationForm):
    """Name of an organization, and what edges do with its messages while the broker's nodes are split."""

    publish_while_split = forms.ChoiceField(
        label="Publishing while broker nodes are split",
        required=False,  # missing: unchanged
        choices=[
            (Organization.PublishWhileSplit.ACCEPT, "Accept: messages across the split are lost"),
            (Organization.PublishWhileSplit.REFUSE, "Refuse: nothing is acknowledged that may be lost"),
        ],
        help_text="A split: nodes of the broker do not see each other. Sign-in and subscriptions work either way.",
        error_messages={"invalid_choice": "Choose one of the two."},
    )


class SuspendForm(Form):
    """The reason of a suspension."""

    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=200,
        help_text="Shown to the members of the organization.",
    )

"""Form that asks for the organization's name, so that it is not the wrong one."""

from __future__ import annotations

from django import forms

from cloudsignal.web.forms import Form


class DeleteForm(Form):
    """The name, typed."""

    confirm = forms.CharField(
        label="The organization's name",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Type the name shown above.",
        error_messages={"required": "Type the name of the organization to confirm."},
    )

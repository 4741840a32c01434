"""Forms about live sessions."""

from __future__ import annotations

from django import forms

from cloudsignal.web.forms import FilterForm, mono


class ClientFilter(FilterForm):
    """Filter of the live sessions: a text within username, client id or address."""

    find = forms.CharField(
        label="Username, client ID or address",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )

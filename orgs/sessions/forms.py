"""Forms of live sessions."""

from __future__ import annotations

from django import forms

from cloudsignal.web.forms import FilterForm, mono


class ClientFilter(FilterForm):
    """Filter of live sessions: part of the username, client ID or IP address."""

    find = forms.CharField(
        label="Username, client ID or address",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )

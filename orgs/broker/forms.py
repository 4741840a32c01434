"""Forms of retained messages and stored sessions."""

from __future__ import annotations

from django import forms

from cloudsignal.web.forms import FilterForm, Form, mono


class BrokerFilter(FilterForm):
    """Filter of both lists: part of the topic, client ID or username."""

    find = forms.CharField(
        label="Topic, client ID or username",
        required=False,
        widget=forms.TextInput(attrs=mono(type="search", **{"data-search": ""})),
    )


class TopicForm(Form):
    """The topic of a retained message."""

    topic = forms.CharField(label="Topic", max_length=1_024, strip=False, widget=forms.TextInput(attrs=mono()))


class ClientIdForm(Form):
    """The client ID of a stored session."""

    client_id = forms.CharField(label="Client ID", max_length=65_535, strip=False, widget=forms.TextInput(attrs=mono()))

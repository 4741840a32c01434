"""Filters in the address: a GET form, restated as pills that each link to the same list without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.forms import BoundField, Form
from django.forms.widgets import ChoiceWidget
from django.utils.http import urlencode


@dataclass(frozen=True, slots=True)
class Pill:
    """One active filter. ``without`` is the address of the list without it."""

    label: str
    value: str
    without: str


def pills(form: Form, path: str, *, labels: Mapping[str, str] | None = None) -> list[Pill]:
    """The filters of a valid bound form that hold something; hidden fields (cursors) are no filters."""
    held = [bound for bound in form if not bound.is_hidden and form.cleaned_data.get(bound.name)]
    return [
        Pill(
            (labels or {}).get(bound.name, str(bound.label)),
            _shown(bound),
            address(path, {other.name: _raw(other) for other in held if other.name != bound.name}),
        )
        for bound in held
    ]


def address(path: str, values: Mapping[str, str]) -> str:
    """``path`` with the values that are not empty as its query."""
    kept = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(kept)}" if kept else path


def query_of(form: Form) -> dict[str, str]:
    """The filters of a bound form as they were sent, without cursors."""
    return {bound.name: _raw(bound) for bound in form if not bound.is_hidden and _raw(bound)}


def _raw(bound: BoundField) -> str:
    value = bound.value()
    return "" if value is None else str(value)


def _shown(bound: BoundField) -> str:
    raw = _raw(bound)
    if isinstance(bound.field.widget, ChoiceWidget):
        # The widget's choices: groups of options, each with the value as text.
        for _, options, _ in bound.field.widget.optgroups(bound.name, [raw]):
            for option in options:
                if option["value"] == raw:
                    return str(option["label"])
    return raw

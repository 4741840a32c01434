"""Base classes and fields of forms, with domain errors shown at their field."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any, ClassVar

from django import forms

from cloudsignal.errors import Detail, DomainError


class Form(forms.Form):
    """A form that keeps what was typed and can show a domain error at its field."""

    use_required_attribute = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.details: tuple[Detail, ...] = ()

    def refuse(self, error: DomainError) -> None:
        """Show what a service refused: at the field it names, else above the form."""
        if not self.is_bound:
            raise ValueError("only a form that was sent can be refused")
        self.full_clean()
        self.add_error(error.field if error.field in self.fields else None, error.message)
        self.details = error.details

    def value(self, name: str) -> str:
        """A cleaned text value, empty when it was left out."""
        return str(self.cleaned_data.get(name) or "")


class FilterForm(Form):
    """A GET form that filters a list. A filter that it does not know is an error: ignored, it would show too much."""

    beside: ClassVar[frozenset[str]] = frozenset()
    """Names in the address that are no filters: what htmx sends along."""

    def clean(self) -> dict[str, Any]:
        """Refuse names in the address that filter nothing here."""
        unknown = sorted(name for name in self.data if name not in self.fields and name not in self.beside)
        if unknown:
            names = ", ".join(f'"{name[:64]}"' for name in unknown[:5])
            known = ", ".join(name for name, field in self.fields.items() if not field.widget.is_hidden)
            raise forms.ValidationError(
                f"This list has no filter called {names}; it has {known}. Remove it from the address.",
                code="unknown_filter",
            )
        return self.cleaned_data


def mono(**attrs: str) -> dict[str, str]:
    """Attributes of an input that takes an id, a topic or a secret: fixed width, and no help from the browser."""
    return {"class": "mono", "autocomplete": "off", "autocapitalize": "off", "spellcheck": "false", **attrs}


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
        error_messages={"invalid": "Enter a day as 2027-01-31."},
    )

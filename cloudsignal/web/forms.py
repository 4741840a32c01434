"""What the forms of every app share: a place for what a service refuses, and quiet defaults."""

from __future__ import annotations

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

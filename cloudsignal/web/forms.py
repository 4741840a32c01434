"""What the forms of every app share: a place for what a service refuses, and quiet defaults."""

from __future__ import annotations

from typing import Any

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


def mono(**attrs: str) -> dict[str, str]:
    """Attributes of an input that takes an id, a topic or a secret: fixed width, and no help from the browser."""
    return {"class": "mono", "autocomplete": "off", "autocapitalize": "off", "spellcheck": "false", **attrs}

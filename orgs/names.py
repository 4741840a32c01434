"""Names that people give to organizations and API keys: bounded, and readable."""

from __future__ import annotations

import unicodedata

from cloudsignal.errors import Invalid

NAME_MAX = 80


def clean_name(name: str) -> str:
    """A name fit to be shown: trimmed, NFC, one line. Raises :class:`Invalid`."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name:
        raise Invalid("name_missing", "Enter a name for the organization.", field="name")
    if len(name) > NAME_MAX:
        raise Invalid("name_too_long", f"A name has at most {NAME_MAX} characters.", field="name")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs"} for character in name):
        raise Invalid(
            "name_unreadable", "The name contains characters that cannot be displayed; remove them.", field="name"
        )
    return name

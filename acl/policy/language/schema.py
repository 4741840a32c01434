"""The JSON Schema (draft 2020-12) of the policy document, for editors; ``parse`` checks more."""

from __future__ import annotations

from importlib import resources


def schema_text() -> str:
    """The published JSON Schema as text."""
    return (resources.files("acl.policy") / "schema.json").read_text("utf-8")

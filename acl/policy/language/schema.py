"""The JSON Schema (draft 2020-12) of the policy document, for editors; ``parse`` checks more and says it better."""

from __future__ import annotations

from importlib import resources


def schema_text() -> str:
    """The schema as it is published."""
    return (resources.files("acl.policy") / "schema.json").read_text("utf-8")

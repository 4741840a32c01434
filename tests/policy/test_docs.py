"""The documents in docs/policy.md are policies, and their tests pass."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from acl.policy import lint, parse, run_tests

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
DOCUMENTS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) >= 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.split("\n")[2].strip())
def test_a_document_of_the_docs_passes_its_tests(document: str) -> None:
    parsed = parse(document)
    assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
    outcomes = run_tests(parsed.policy, org="org_abcdefghijkl", now=NOW)
    assert outcomes
    assert [outcome.message for outcome in outcomes if not outcome.passed] == []


CODES = ("shadowed", "unreachable", "partly-reached", "permit-all", "wildcard-publish", "unknown-claim", "expired")


@pytest.mark.parametrize("code", CODES)
def test_the_warnings_of_the_docs_exist(code: str) -> None:
    source = (Path(lint.__code__.co_filename)).read_text("utf-8")
    assert f"`{code}`" in TEXT
    assert f'"{code}"' in source

"""The registry of audit events against the code: each kind is told apart by its words, and something writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit import kinds

PROJECT = Path(__file__).parents[2]
CONSTANTS = {name: value for name, value in vars(kinds).items() if name.isupper() and value in list(kinds.KINDS)}
SOURCES = {
    path: path.read_text()
    for app in ("acl", "audit", "cloudsignal", "orgs")
    for path in (PROJECT / app).rglob("*.py")
    if path != Path(kinds.__file__)
}


def test_every_kind_has_a_constant_of_its_own() -> None:
    assert sorted(CONSTANTS.values()) == sorted(kinds.KINDS)


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_something_writes_every_kind(name: str) -> None:
    assert [path for path, text in SOURCES.items() if re.search(rf"\b{name}\b", text)], f"nothing names {name}"


def test_no_two_kinds_have_the_same_title() -> None:
    titles = [kind.title for kind in kinds.KINDS.values()]
    assert len(titles) == len(set(titles))

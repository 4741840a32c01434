"""The documentation names only what is there: links, anchors, files; and decisions are complete and in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docs import PROJECT, missing_paths

DOCS = PROJECT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PAGES = sorted([*DOCS.rglob("*.md"), PROJECT / "README.md", PROJECT / "CHANGELOG.md"])
WITH_PATHS = sorted((DOCS / "decisions").glob("*.md"))
"""Pages on which every path in backticks is a file or folder of this repository."""

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked as."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Links of ``text``, which stands in ``page``, that lead to no file or to no heading of it."""
    broken = []
    for name, anchor in LINK.findall(text):
        target = (page.parent / name).resolve() if name else page
        exists = target.exists() and (not anchor or target.is_dir() or anchor in anchors(target.read_text()))
        if not exists:
            broken.append(f"{name}#{anchor}" if anchor else name)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize("page", WITH_PATHS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_path_that_is_named_exists(page: Path) -> None:
    assert missing_paths(page.read_text()) == []


def test_a_link_or_path_that_leads_nowhere_would_be_seen() -> None:
    page = DOCS / "decisions" / "README.md"
    text = "[a](../edge.md#quotas) [b](../edge.md#no-such-heading) [c](0000-none.md) `tests/none.py` `acl/` `a/b`"
    assert broken_links(page, text) == ["../edge.md#no-such-heading", "0000-none.md"]
    assert missing_paths(text) == ["tests/none.py"]


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    index = (DOCS / "decisions" / "README.md").read_text()
    titles = [path.read_text().partition("\n")[0].removeprefix("# ").partition(". ") for path in DECISIONS]
    rows = [
        f"| {number} | [{title}]({path.name}) |" for path, (number, _, title) in zip(DECISIONS, titles, strict=True)
    ]
    assert [line for line in index.splitlines() if re.match(r"\| \d", line)] == rows


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name[:4])
def test_a_decision_is_one_page_with_its_four_parts_and_a_place_in_the_code(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences", "Where"]
    assert len(text.splitlines()) <= 60
    assert re.search(r"`[\w./-]+/[\w./-]*`", text.partition("## Where")[2])

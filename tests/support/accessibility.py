"""What axe says of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from playwright.sync_api import Page


ALL = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def accessible(page: Page, rules: dict[str, list[str]]) -> None:
    """No violation of ``rules`` on the page as it stands."""
    found = Axe().run(page, options=rules).response["violations"]
    told = [f"{one['id']}: {node['target']} {node['html'][:200]}" for one in found for node in one["nodes"]]
    assert not told, "\n".join(told)

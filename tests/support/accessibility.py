"""What axe says of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.base import AXE_SCRIPT

if TYPE_CHECKING:
    from playwright.sync_api import Page


ALL = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

# Without `resultTypes`, describing what is in order takes as long as finding what is not. The script is half a MiB, so
# that a page which is looked at three times compiles it once.
RUN = "(rules) => axe.run({...rules, resultTypes: ['violations']}).then((found) => found.violations)"


def accessible(page: Page, rules: dict[str, list[str]]) -> None:
    """No violation of ``rules`` on the page as it stands."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(RUN, rules)
    told = [f"{one['id']}: {node['target']} {node['html'][:200]}" for one in found for node in one["nodes"]]
    assert not told, "\n".join(told)

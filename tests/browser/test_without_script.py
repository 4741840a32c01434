"""Every form and every read without JavaScript: the whole way from a new organization to a rollback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack]

TEXT = 'version: "3"\nrules:\n  - id: hello\n    topic: hello/#\n'


@pytest.fixture
def plain(browser: Browser, place: Place) -> Iterator[Page]:
    """A browser that runs no script."""
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    context.add_cookies(place.cookies)
    yield context.new_page()
    context.close()


def test_from_a_new_organization_to_a_rollback(plain: Page, place: Place) -> None:
    plain.goto(f"{place.url}/orgs/new/")
    plain.get_by_label("Name").fill("No Script Ltd")
    plain.get_by_role("button", name="Create organization").click()
    home = plain.url
    plain.get_by_role("link", name="Issue a credential").first.click()
    plain.get_by_label("Username").fill("sensor")
    plain.get_by_role("button", name="Issue credential").click()
    expect(plain.locator("#issued-secret")).to_have_text(re.compile("^tkn_"))

    plain.goto(f"{home}access/presets/")
    plain.get_by_role("button", name="Use Notifications").click()
    expect(plain.locator("textarea#id_text")).to_have_value(re.compile("version:"))

    plain.locator("#id_text").fill("rules: [")
    plain.get_by_role("button", name="Check").click()
    expect(plain.locator("#id_text")).to_have_value("rules: [")
    expect(plain.locator("#findings")).to_contain_text("Error")

    plain.locator("#id_text").fill(TEXT)
    plain.get_by_label("Username").fill("sensor")
    plain.get_by_label("Topic").fill("hello/world")
    plain.get_by_role("button", name="Simulate").click()
    expect(plain.locator(".verdict .word")).to_have_text("Allowed")
    expect(plain.locator("#id_text")).to_have_value(TEXT)
    plain.get_by_role("button", name="Save draft").click()
    expect(plain.get_by_text("Draft saved.")).to_be_visible()

    plain.get_by_role("button", name="Review and deploy").click()
    expect(plain.locator(".diff")).to_contain_text("hello/#")
    plain.get_by_role("button", name="Deploy to every node").click()
    expect(plain.get_by_text("Enforced on every node")).to_be_visible()

    plain.goto(f"{home}access/versions/")
    plain.get_by_role("link", name="Roll back to version 1").click()
    plain.get_by_role("button", name="Roll back to version 1").click()
    expect(plain.get_by_role("heading", name="Rollback of version 1")).to_be_visible()

    plain.goto(f"{home}audit/")
    plain.get_by_label("Event").select_option("policy.rolled_back")
    plain.get_by_role("button", name="Search").click()
    expect(plain.locator("#events tbody tr")).to_have_count(1)
    plain.get_by_role("link", name="Remove filter: Event Policy rolled back").click()
    assert plain.locator("#events tbody tr").count() > 1

    plain.goto(f"{home}credentials/")
    plain.get_by_role("link", name="Revoke").click()
    plain.get_by_role("button", name="Revoke this credential").click()
    expect(plain.locator("tbody")).to_contain_text("Revoked")


def test_menus_and_colours_work(plain: Page, place: Place) -> None:
    plain.goto(place.at(""))
    plain.locator("summary[aria-label$=': account']").click()
    plain.get_by_role("button", name="Dark").click()
    expect(plain.locator("html")).to_have_attribute("data-theme", "dark")

"""The keyboard alone: palette, search, help, g then a letter, dialogs, menus."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack]


@pytest.mark.parametrize(
    ("letter", "path"),
    [("h", ""), ("c", "clients/"), ("k", "credentials/"), ("a", "access/"), ("l", "audit/"), ("s", "settings/")],
)
def test_g_then_a_letter_goes_to_a_page(letter: str, path: str, signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("settings/" if path != "settings/" else ""))
    signed_in.keyboard.press("g")
    signed_in.keyboard.press(letter)
    signed_in.wait_for_url(place.at(path))


def test_the_palette_finds_and_opens_a_page(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(""))
    signed_in.keyboard.press("Control+k")
    signed_in.keyboard.type("issue cred")
    expect(signed_in.locator("#palette [aria-selected=true]")).to_have_text(re.compile("Issue a credential"))
    signed_in.keyboard.press("Enter")
    signed_in.wait_for_url(place.at("credentials/new/"))


def test_the_palette_says_when_nothing_fits_and_closes(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(""))
    signed_in.keyboard.press("Control+k")
    signed_in.keyboard.type("zzzz")
    expect(signed_in.get_by_text("No results.")).to_be_visible()
    signed_in.keyboard.press("Escape")
    expect(signed_in.locator("#palette")).to_be_hidden()


def test_the_palette_switches_organization(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(""))
    signed_in.keyboard.press("Control+k")
    signed_in.keyboard.type("greenhouse")
    signed_in.keyboard.press("Enter")
    signed_in.wait_for_url(place.at("", place.empty))


def test_slash_searches_and_question_mark_helps(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("audit/"))
    signed_in.keyboard.press("/")
    expect(signed_in.get_by_label("Username")).to_be_focused()
    signed_in.keyboard.type("g?")
    expect(signed_in.get_by_label("Username")).to_have_value("g?")
    signed_in.locator("h1").click()
    signed_in.keyboard.press("?")
    expect(signed_in.locator("#shortcuts")).to_be_visible()


def test_the_skip_link_comes_first(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(""))
    signed_in.keyboard.press("Tab")
    expect(signed_in.get_by_role("link", name="Skip to content")).to_be_focused()


def test_a_dialog_closes_with_escape_and_gives_the_focus_back(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("credentials/"))
    revoke = signed_in.get_by_role("link", name="Revoke").first
    revoke.focus()
    signed_in.keyboard.press("Enter")
    expect(signed_in.locator("#confirm")).to_contain_text("live session")
    expect(signed_in.get_by_role("link", name="Cancel")).to_be_focused()  # a second Enter does not revoke
    signed_in.keyboard.press("Escape")
    expect(signed_in.locator("#confirm")).to_be_hidden()
    expect(revoke).to_be_focused()
    assert signed_in.url == place.at("credentials/")


def test_a_menu_opens_and_closes_by_keyboard(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(""))
    switcher = signed_in.locator("summary[aria-label$=': switch organization']")
    switcher.focus()
    signed_in.keyboard.press("Enter")
    expect(signed_in.get_by_role("link", name="New organization")).to_be_visible()
    signed_in.keyboard.press("Escape")
    expect(signed_in.get_by_role("link", name="New organization")).to_be_hidden()
    expect(switcher).to_be_focused()


def test_keys_without_ctrl_can_be_turned_off(signed_in: Page, place: Place) -> None:
    signed_in.goto(f"{place.url}/help/")
    page = signed_in.locator("#main")
    expect(page.get_by_text("Audit, in an organization")).to_be_visible()
    page.get_by_role("button", name="Turn off keys without Ctrl").click()
    signed_in.goto(place.at(""))
    signed_in.keyboard.press("?")
    expect(signed_in.locator("#shortcuts")).to_be_hidden()
    signed_in.keyboard.press("Control+k")
    expect(signed_in.locator("#palette")).to_be_visible()


def test_what_is_wrong_in_a_long_form_has_the_focus(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("settings/keys/new/"))
    signed_in.get_by_role("textbox", name="Name").fill("backup")
    signed_in.get_by_label("Allowed addresses").fill("nowhere")
    signed_in.get_by_role("checkbox", name="Simulate").check()
    signed_in.get_by_role("button", name="Create key").click()
    expect(signed_in.get_by_label("Allowed addresses")).to_be_focused()

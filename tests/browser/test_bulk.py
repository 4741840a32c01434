"""Issuing from a CSV file in a real browser, with and without script: the files are what was issued, once."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, expect

from tests.support.accessibility import ALL, accessible

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(300)]


def give(page: Page, count: int) -> None:
    """Choose a file of ``count`` new names. Chromium takes seconds to type so many lines into a text area."""
    stamp = f"{time.monotonic_ns():x}"
    text = "username\n" + "".join(f"b{stamp}-{number}\n" for number in range(count))
    page.get_by_label("CSV file").set_input_files(
        {"name": "clients.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )


def downloaded(page: Page, name: str) -> list[dict[str, str]]:
    """What a link downloads, read as CSV."""
    with page.expect_download() as download:
        page.get_by_role("link", name=name).first.click()
    with Path(download.value.path()).open(newline="") as file:
        return list(csv.DictReader(file))


def test_many_parts_become_one_file_and_the_page_is_accessible(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("credentials/bulk/"))
    give(signed_in, 2_500)
    signed_in.get_by_role("button", name="Check and issue").click(no_wait_after=True)
    expect(signed_in.get_by_text("2,500 credentials issued")).to_be_visible(timeout=60_000)
    expect(signed_in.locator("progress:visible")).to_have_count(0)
    expect(signed_in.get_by_text("In progress")).to_be_hidden()
    accessible(signed_in, ALL)
    rows = downloaded(signed_in, "Download all in one file")
    assert [int(row["line"]) for row in rows] == list(range(2, 2_502))
    assert len({row["password"] for row in rows}) == 2_500
    # Nothing of it is kept by the browser: the back button finds only a form that would have to be sent again.
    signed_in.get_by_role("link", name="I have stored them").click()
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        signed_in.go_back()


def test_it_needs_no_script(browser: Browser, place: Place) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies(place.cookies)
    page = context.new_page()
    page.goto(place.at("credentials/bulk/"))
    give(page, 1_500)
    page.get_by_role("button", name="Check and issue").click(no_wait_after=True)
    expect(page.get_by_text("1,500 credentials issued")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("In progress")).to_be_hidden()
    parts = page.get_by_role("link", name=re.compile("^Download credentials-")).all_inner_texts()
    assert len(parts) == 2
    first = downloaded(page, f"credentials-{place.lived}-1.csv")
    second = downloaded(page, f"credentials-{place.lived}-2.csv")
    assert [int(row["line"]) for row in first + second] == list(range(2, 1_502))
    context.close()


def test_the_page_of_closed_sessions_is_accessible(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("clients/"))
    signed_in.get_by_role("link", name="Close").first.click()
    signed_in.get_by_role("button", name="Close the session").click()
    expect(signed_in.get_by_text("1 session closed")).to_be_visible()
    expect(signed_in.get_by_text("From the click to the last closed session")).to_be_visible()
    accessible(signed_in, ALL)

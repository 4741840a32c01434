"""What changes by itself: the audit list, a secret that is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import client

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack]


def test_a_denial_appears_by_itself_and_not_while_paused(signed_in: Page, place: Place) -> None:
    device = client(place, "live-test")
    try:
        signed_in.goto(place.at("audit/?kind=acl_denied&client_id=live-test"))
        expect(signed_in.get_by_text("No event fits these filters")).to_be_visible()
        device.publish("live/one", "x", qos=1)
        expect(signed_in.locator("#events")).to_contain_text("live/one", timeout=10_000)
        signed_in.get_by_role("button", name="Pause").click()
        device.publish("live/two", "x", qos=1)
        signed_in.wait_for_timeout(4_000)
        expect(signed_in.locator("#events")).not_to_contain_text("live/two")
        signed_in.get_by_role("button", name="Resume").click()
        expect(signed_in.locator("#events")).to_contain_text("live/two", timeout=10_000)
    finally:
        device.disconnect()
        device.loop_stop()


def test_a_secret_is_copied_and_does_not_come_back(context: BrowserContext, signed_in: Page, place: Place) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    signed_in.goto(place.at("credentials/new/", place.empty))
    signed_in.get_by_label("Username").fill("copied")
    signed_in.get_by_role("button", name="Issue the credential").click()
    secret = signed_in.inner_text("#issued-secret")
    signed_in.get_by_role("button", name="Copy secret").click()
    expect(signed_in.locator("#status")).to_have_text("Copied")
    assert signed_in.evaluate("navigator.clipboard.readText()") == secret
    signed_in.get_by_role("link", name="I have stored it").click()
    signed_in.wait_for_url(place.at("", place.empty))
    signed_in.goto(place.at("credentials/", place.empty))
    expect(signed_in.get_by_text("copied", exact=True)).to_be_visible()
    assert secret not in signed_in.content()


def test_the_certificate_can_be_downloaded_from_the_secret_page(signed_in: Page, place: Place) -> None:
    answer = signed_in.request.get(f"{place.url}/cloudsignal-ca.pem")
    assert answer.text() == place.stack.ca.read_text()

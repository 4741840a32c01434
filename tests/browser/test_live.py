"""What changes by itself: the audit list, a secret that is shown once."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import client
from tests.support.accessibility import ALL, accessible

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack]


def test_a_denial_appears_by_itself_and_not_while_paused(signed_in: Page, place: Place) -> None:
    device = client(place, "live-test")
    try:
        signed_in.goto(place.at("audit/?kind=acl_denied&client_id=live-test"))
        expect(signed_in.get_by_text("No events match these filters")).to_be_visible()
        device.publish("live/one", "x", qos=1)
        expect(signed_in.locator("#events")).to_contain_text("live/one")
        signed_in.get_by_role("button", name="Pause").click()
        device.publish("live/two", "x", qos=1)
        signed_in.wait_for_timeout(4_000)
        expect(signed_in.locator("#events")).not_to_contain_text("live/two")
        signed_in.get_by_role("button", name="Resume").click()
        expect(signed_in.locator("#events")).to_contain_text("live/two")
    finally:
        device.disconnect()
        device.loop_stop()


def test_a_secret_is_copied_and_does_not_come_back(context: BrowserContext, signed_in: Page, place: Place) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    signed_in.goto(place.at("credentials/new/", place.empty))
    signed_in.get_by_label("Username").fill("copied")
    signed_in.get_by_role("button", name="Issue credential").click()
    secret = signed_in.inner_text("#issued-secret")
    signed_in.get_by_role("button", name="Copy password").click()
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


def test_a_list_that_is_replaced_keeps_its_place_and_the_focus(signed_in: Page, place: Place) -> None:
    signed_in.set_viewport_size({"width": 660, "height": 844})  # narrower, rows are cards and nothing scrolls
    signed_in.goto(place.at("clients/"))
    box = signed_in.locator("#sessions .scroll")
    signed_in.get_by_role("link", name="Revoke agent-7").first.focus()
    box.evaluate("box => { box.scrollLeft = 20; }")
    for _ in range(2):
        with signed_in.expect_response(lambda answer: "hx-request" in answer.request.headers):
            pass
    expect(signed_in.get_by_role("link", name="Revoke agent-7").first).to_be_focused()
    assert box.evaluate("box => box.scrollLeft") == 20


def test_a_text_that_is_selected_is_not_taken_away(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("clients/"))
    signed_in.locator("#sessions .id").first.select_text()
    for _ in range(2):
        with signed_in.expect_response(lambda answer: "hx-request" in answer.request.headers):
            pass
    assert signed_in.evaluate("getSelection().toString()")


def test_what_is_refused_in_words_is_a_message_and_no_dialog(signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at("access/versions/"))
    in_force = place.at("access/versions/1/rollback/")
    signed_in.route(in_force, lambda route: route.continue_(url=in_force.replace("/1/", "/2/")))
    signed_in.get_by_role("link", name="Roll back to version 1").click()
    expect(signed_in.locator("#toasts").get_by_text("Version 2 is already active.")).to_be_visible()
    expect(signed_in.locator("#confirm")).to_be_hidden()


def test_a_wrong_clock_of_the_browser_changes_no_time(signed_in: Page, place: Place) -> None:
    signed_in.clock.install(time=datetime.now(UTC) + timedelta(hours=9))
    signed_in.goto(place.at("access/versions/"))
    signed_in.clock.run_for(6_000)
    assert " h ago" not in signed_in.locator("tbody").first.inner_text()


def test_no_topic_is_long_enough_to_hide_what_stands_beside_it(signed_in: Page, place: Place) -> None:
    device = client(place, "c" * 200)
    try:
        device.publish("x" * 2_000, "x", qos=1)
        signed_in.set_viewport_size({"width": 1440, "height": 900})
        signed_in.goto(place.at(f"audit/?kind=acl_denied&client_id={'c' * 200}"))
        row = signed_in.locator("#events tbody tr").first
        expect(row).to_be_visible()
        expect(row.get_by_text("no rule")).to_be_in_viewport()
        expect(row.get_by_text("127.0.0.1")).to_be_in_viewport(ratio=1)
        height = row.evaluate("row => row.getBoundingClientRect().height")
        assert height < 200
    finally:
        device.disconnect()
        device.loop_stop()


def test_the_count_above_the_nodes_is_renewed_with_their_table(signed_in: Page, place: Place) -> None:
    signed_in.goto(f"{place.url}/operator/nodes/")
    count = signed_in.locator("#nodes-count")
    expect(count).to_contain_text("edge node")
    signed_in.evaluate("document.getElementById('nodes-count').textContent = 'as it was when the page was opened'")
    expect(count).to_contain_text("edge node")
    assert signed_in.locator("#nodes-count").count() == 1


def test_a_frozen_broker_is_seen_on_every_page_by_itself_and_so_is_its_return(signed_in: Page, place: Place) -> None:
    broker = int(json.loads((place.stack.data / "run.json").read_text())["parts"]["mosquitto"]["pid"])
    signed_in.goto(f"{place.url}/operator/nodes/")
    nodes, banner = signed_in.locator("#nodes"), signed_in.locator("#brokers-banner")
    expect(nodes).to_contain_text("Online")
    expect(signed_in.locator("#brokers")).to_contain_text("Reachable")
    os.kill(broker, signal.SIGSTOP)
    try:
        expect(nodes).to_contain_text("No broker", timeout=30_000)
        expect(banner).to_contain_text("No edge node reaches a broker")
        expect(signed_in.locator("#brokers")).to_contain_text("no answer within 1.5 s")
        expect(nodes).not_to_contain_text("Online")
        accessible(signed_in, ALL)
        signed_in.goto(place.at(""))
        expect(signed_in.locator("#no-broker")).to_contain_text("No broker can be reached")
        accessible(signed_in, ALL)
        assert httpx.get(f"{place.url}/readyz").json()["brokers"].endswith("edge nodes reach no broker")
    finally:
        os.kill(broker, signal.SIGCONT)
    expect(signed_in.locator("#no-broker")).to_have_count(0, timeout=30_000)
    signed_in.goto(f"{place.url}/operator/log/?kind=broker_back")
    expect(signed_in.locator("tbody").first).to_contain_text("Broker back")

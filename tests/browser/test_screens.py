"""Every screen in both themes, wide and narrow: accessible (WCAG 2.2 AA, by axe), nothing sticks out, nothing fails."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.accessibility import ALL, accessible

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(300)]

COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
NARROW = {"runOnly": ["scrollable-region-focusable", "target-size", "nested-interactive"]}
OFF_SCREEN = """() => [...document.querySelectorAll("main :is(a, button, input, select)")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 1 && each.checkVisibility() && (box.right > innerWidth + 1 || box.left < -1);
}).map((each) => each.outerHTML.slice(0, 120))"""
"""What can be pressed and lies beyond the edge."""
SCREENS = {
    "organizations": "/orgs/",
    "new organization": "/orgs/new/",
    "home": "/o/{lived}/",
    "home, new": "/o/{empty}/",
    "clients": "/o/{lived}/clients/",
    "clients, none": "/o/{empty}/clients/",
    "retained and stored": "/o/{lived}/broker/",
    "retained and stored, none": "/o/{empty}/broker/",
    "credentials": "/o/{lived}/credentials/",
    "credentials, filtered": "/o/{lived}/credentials/?state=active&username=agent",
    "credentials, none": "/o/{empty}/credentials/",
    "issue": "/o/{lived}/credentials/new/",
    "revoke": "/o/{lived}/credentials/{token}/revoke/",
    "policy": "/o/{lived}/access/",
    "policy, denied": "/o/{lived}/access/?username=agent-7&action=pub&topic=factory/line-4/stop",
    "policy, allowed": "/o/{lived}/access/?username=agent-7&action=pub&topic=agents/agent-7/card&qos=1",
    "presets": "/o/{lived}/access/presets/",
    "review": "/o/{lived}/access/review/",
    "review, nothing": "/o/{empty}/access/review/",
    "deployment": "/o/{lived}/access/deployments/{deployment}/",
    "versions": "/o/{lived}/access/versions/",
    "version": "/o/{lived}/access/versions/1/",
    "rollback": "/o/{lived}/access/versions/1/rollback/",
    "audit": "/o/{lived}/audit/",
    "audit, filtered": "/o/{lived}/audit/?kind=acl_denied&topic_prefix=factory/&within=1d",
    "audit, wrong filter": "/o/{lived}/audit/?ip=nonsense",
    "credentials from a file": "/o/{lived}/credentials/bulk/",
    "ending soon": "/o/{lived}/credentials/ending/?within=week",
    "ending soon, nothing": "/o/{empty}/credentials/ending/",
    "username": "/o/{lived}/usernames/agent-7/",
    "settings": "/o/{lived}/settings/",
    "members": "/o/{lived}/settings/members/",
    "invite": "/o/{lived}/settings/members/invite/",
    "keys": "/o/{lived}/settings/keys/",
    "keys, none": "/o/{empty}/settings/keys/",
    "new key": "/o/{lived}/settings/keys/new/",
    "providers": "/o/{lived}/settings/providers/",
    "providers, none": "/o/{empty}/settings/providers/",
    "new provider, which": "/o/{lived}/settings/providers/new/",
    "new provider": "/o/{lived}/settings/providers/new/supabase/",
    "provider": "/o/{lived}/settings/providers/{provider}/",
    "try a token": "/o/{lived}/settings/providers/{provider}/try/",
    "single sign-on": "/o/{lived}/settings/sign-on/",
    "single sign-on, none": "/o/{empty}/settings/sign-on/",
    "new OpenID sign-on": "/o/{lived}/settings/sign-on/new/oidc/",
    "new SAML sign-on": "/o/{lived}/settings/sign-on/new/saml/",
    "one sign-on": "/o/{lived}/settings/sign-on/{sign_on}/",
    "door, signed in": "/accounts/sso/{lived}/",
    "danger zone": "/o/{lived}/settings/danger/",
    "delete": "/o/{lived}/settings/danger/delete/",
    "invitation": "{invitation}",
    "authorize the CLI": "/command-line/?response_type=code&code_challenge_method=S256&machine=laptop"
    "&redirect_uri=http://127.0.0.1:54321/callback" + f"&code_challenge={'c' * 43}&state={'s' * 32}",
    "help": "/help/",
    "operator: organizations": "/operator/organizations/",
    "operator: email domains": "/operator/domains/",
    "operator: nodes": "/operator/nodes/",
    "operator: log": "/operator/log/",
    "two-factor authentication": "/accounts/2fa/",
    "confirm who it is": "/accounts/reauthenticate/",
    "password": "/accounts/password/change/",
    "sessions": "/accounts/sessions/",
    "email": "/accounts/email/",
    "not found": "/o/org_aaaaaaaaaaaa/",
}
PUBLIC = {
    "API": "/v2/docs/",
    "sign in": "/accounts/login/",
    "sign up": "/accounts/signup/",
    "reset": "/accounts/password/reset/",
    "find the organization": "/accounts/sso/",
    "found": "/accounts/sso/?who=grace@harbour.example",
    "not found": "/accounts/sso/?who=grace@unknown.example",
    "door": "/accounts/sso/{lived}/",
    "answer without a question": "/accounts/sso/{lived}/{sign_on}/callback/",
}


def look(page: Page, url: str) -> None:
    """Open a page and hold it against the rules: wide, in both themes (they differ in colours only), and narrow."""
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(url)
    page.wait_for_function("document.fonts.status === 'loaded'")
    accessible(page, ALL)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    accessible(page, COLOURS)
    page.set_viewport_size({"width": 390, "height": 844})
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert beyond == 0, f"{beyond} px stick out at 390"
    accessible(page, NARROW)
    assert page.evaluate(OFF_SCREEN) == [], "actions that lie beyond the edge of a phone"


def test_what_is_not_accessible_is_found(page: Page) -> None:
    page.set_content('<html lang="en"><title>Valves</title><main><h1>Valves</h1><button></button></main></html>')
    with pytest.raises(AssertionError, match="button-name"):
        accessible(page, ALL)
    page.evaluate("document.querySelector('button').textContent = 'Open'")
    accessible(page, ALL)
    page.evaluate("document.querySelector('button').style = 'color: #999; background: #aaa'")
    with pytest.raises(AssertionError, match="color-contrast"):
        accessible(page, COLOURS)


@pytest.mark.parametrize("screen", sorted(SCREENS))
def test_a_screen_is_accessible_and_fits(screen: str, signed_in: Page, place: Place) -> None:
    ids = {
        "lived": place.lived, "empty": place.empty, "token": place.token, "deployment": place.deployment,
        "provider": place.provider, "invitation": place.invitation, "sign_on": place.sign_on,
    }  # fmt: skip
    look(signed_in, place.url + SCREENS[screen].format(**ids))


@pytest.mark.parametrize("screen", sorted(PUBLIC))
def test_a_page_before_sign_in_is_accessible_and_fits(screen: str, page: Page, place: Place) -> None:
    look(page, place.url + PUBLIC[screen].format(lived=place.lived, sign_on=place.sign_on))


def test_dialogs_are_accessible(signed_in: Page, place: Place) -> None:
    for theme, rules in (("light", ALL), ("dark", COLOURS)):
        signed_in.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
        signed_in.goto(place.at("credentials/"))
        signed_in.get_by_role("link", name="Revoke").first.click()
        signed_in.wait_for_selector("#confirm[open] h2")
        accessible(signed_in, rules)
        signed_in.keyboard.press("Escape")
        signed_in.keyboard.press("Control+k")
        signed_in.wait_for_selector("#palette[open]")
        accessible(signed_in, rules)
        signed_in.keyboard.press("Escape")


@pytest.mark.parametrize("path", ["", "credentials/", "audit/", "access/presets/", "settings/"])
def test_an_ordinary_page_stays_within_its_budget(path: str, signed_in: Page, place: Place) -> None:
    signed_in.goto(place.at(path), wait_until="load")
    loaded = signed_in.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    for ending, budget in ((".js", 35), (".css", 16)):
        files = [url for url in loaded if url.split("?")[0].endswith(ending)]
        assert files
        assert sum(len(gzip.compress(signed_in.request.get(url).body())) for url in files) <= budget * 1024


def test_on_a_phone_the_navigation_begins_with_the_page_one_is_on(signed_in: Page, place: Place) -> None:
    signed_in.set_viewport_size({"width": 390, "height": 844})
    signed_in.goto(place.at("settings/"))
    expect(signed_in.locator(".rail .nav [aria-current]")).to_be_in_viewport(ratio=1)

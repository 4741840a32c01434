"""People's accounts in a real browser: authenticator apps, recovery codes, passkeys, sessions, mail.

Passkeys use Chromium's own virtual authenticator (Chrome DevTools Protocol, "WebAuthn"); a page must be on a host name
for them, which the address that ``cloudsignal up`` prints is.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from cloudsignal.mail import END

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.support.system import Stack

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(300)]

PASSWORD, OTHER = "correct horse battery", "staple horse correct battery"
SEED = """
import json, sys
from allauth.account.models import EmailAddress
from orgs.models import User
from orgs.organizations.lifecycle import create_organization
user = User.objects.create_user(sys.argv[1], "correct horse battery")
EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
print(json.dumps({"org": create_organization(user, name="Accounts").pk}))
"""
CODE = """
import sys
from allauth.mfa.totp.internal import auth
print(auth.format_hotp_value(auth.hotp_value(sys.argv[1], next(iter(auth.yield_hotp_counters_from_time())))))
"""
REQUIRE = """
import sys
from orgs.models import Organization
from cloudsignal.tenancy.scopes import org_scope
with org_scope(sys.argv[1]):
    Organization.objects.update(mfa_required=True)
"""
_numbers = count(1)


@dataclass(frozen=True)
class Person:
    """Somebody with an account and an organization of their own."""

    email: str
    org: str
    stack: Stack

    @property
    def url(self) -> str:
        """The dashboard, as printed."""
        return self.stack.url

    def code(self, secret: str) -> str:
        """What the authenticator app shows now."""
        return self.stack.django(CODE, secret).strip()

    def mail(self, subject: str) -> str:
        """The newest e-mail to this person with these words in its subject, once it is there."""

        def newest() -> str:
            raw = b"".join(path.read_bytes() for path in sorted((self.stack.data / "mail").glob("*.log")))
            texts = [text.decode() for text in raw.split(END)]
            mine = [text for text in texts if f"To: {self.email}" in text and subject in text]
            return mine[-1] if mine else ""

        return str(self.stack.eventually(newest, what=f"a mail to {self.email} about {subject}"))

    def link(self, subject: str) -> str:
        """The link in that e-mail."""
        found = re.search(r"https?://[^/\s]+(/accounts/\S+)", self.mail(subject))
        assert found
        return self.url + found[1]


@pytest.fixture
def ada(stack: Stack) -> Person:
    """A person with a confirmed address and a password."""
    email = f"ada-{next(_numbers)}-{time.time_ns():x}@example.com"
    org = json.loads(stack.django(SEED, email).strip().splitlines()[-1])["org"]
    return Person(email, org, stack)


def sign_in(page: Page, person: Person, password: str = PASSWORD) -> None:
    """The sign-in form."""
    page.goto(f"{person.url}/accounts/login/")
    page.get_by_label("Email address").fill(person.email)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def sign_out(page: Page, person: Person) -> None:
    """Leave, by the button of the sessions page."""
    page.context.clear_cookies()
    page.goto(f"{person.url}/accounts/login/")


def confirm_password(page: Page) -> None:
    """What the account pages ask before a factor is changed."""
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()


def enrol(page: Page, person: Person) -> tuple[str, list[str]]:
    """Set up an authenticator app; returns its secret and the recovery codes."""
    page.goto(f"{person.url}/accounts/2fa/")
    page.get_by_role("link", name="Set up").click()
    confirm_password(page)
    secret = page.locator("input[readonly]").input_value()
    page.locator("input[name=code]").fill(person.code(secret))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    codes = page.locator("textarea").input_value().split()
    assert len(codes) == 10
    return secret, codes


def inside(page: Page) -> None:
    """Signed in."""
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_label("Main")).to_be_visible()


def test_an_authenticator_app_is_set_up_and_asked_for(page: Page, ada: Person) -> None:
    sign_in(page, ada)
    secret, _ = enrol(page, ada)
    page.goto(f"{ada.url}/accounts/2fa/")
    expect(page.get_by_text("10 of 10 left")).to_be_visible()
    sign_out(page, ada)
    sign_in(page, ada)
    expect(page).to_have_url(re.compile("/accounts/2fa/authenticate/"))
    page.goto(f"{ada.url}/o/{ada.org}/")  # half a sign-in opens nothing
    expect(page).to_have_url(re.compile("/accounts/2fa/authenticate/"))
    page.locator("input[name=code]").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Incorrect code")).to_be_visible()
    page.locator("input[name=code]").fill(ada.code(secret))
    page.get_by_role("button", name="Sign in").click()
    inside(page)


def test_a_recovery_code_opens_once(page: Page, ada: Person) -> None:
    sign_in(page, ada)
    _, codes = enrol(page, ada)
    sign_out(page, ada)
    sign_in(page, ada)
    page.locator("input[name=code]").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    inside(page)
    page.goto(f"{ada.url}/accounts/2fa/")
    expect(page.get_by_text("9 of 10 left")).to_be_visible()
    sign_out(page, ada)
    sign_in(page, ada)
    page.locator("input[name=code]").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Incorrect code")).to_be_visible()
    assert "The authenticator app was turned on" in ada.mail("The authenticator app was turned on")  # by mail


def virtual_authenticator(context: BrowserContext, page: Page) -> None:
    """A fingerprint reader that says yes."""
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def test_a_passkey_is_added_and_signs_in_by_itself(context: BrowserContext, page: Page, ada: Person) -> None:
    virtual_authenticator(context, page)
    sign_in(page, ada)
    page.goto(f"{ada.url}/accounts/2fa/")
    page.get_by_role("link", name="Add a key").click()
    confirm_password(page)
    page.locator("input[name=name]").fill("laptop")
    page.locator("input[name=passwordless]").check()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("laptop").or_(page.get_by_role("heading", name="Recovery codes")).first).to_be_visible()
    page.goto(f"{ada.url}/accounts/2fa/")
    expect(page.get_by_text("1 key added")).to_be_visible()
    sign_out(page, ada)
    page.get_by_role("button", name="Sign in with a passkey").click()
    inside(page)
    # The password alone is no longer enough: the key is the second factor as well.
    sign_out(page, ada)
    sign_in(page, ada)
    page.get_by_role("button", name="Use a passkey or security key").click()
    inside(page)


def test_an_organization_that_requires_it_leads_to_setting_it_up(page: Page, ada: Person) -> None:
    ada.stack.django(REQUIRE, ada.org)
    sign_in(page, ada)
    page.goto(f"{ada.url}/o/{ada.org}/credentials/")
    expect(page.get_by_text("requires a second factor")).to_be_visible()
    page.get_by_role("link", name="Set up two-factor authentication").click()
    expect(page.get_by_role("heading", name="Two-factor authentication", level=1)).to_be_visible()
    enrol(page, ada)
    page.goto(f"{ada.url}/o/{ada.org}/credentials/")
    expect(page.get_by_role("heading", name="Credentials", level=1)).to_be_visible()


def test_sessions_are_listed_and_the_others_signed_out(page: Page, browser: Browser, ada: Person) -> None:
    sign_in(page, ada)
    elsewhere = browser.new_context().new_page()
    sign_in(elsewhere, ada)
    inside(elsewhere)
    page.goto(f"{ada.url}/accounts/sessions/")
    expect(page.get_by_text("Chrome on Linux").or_(page.get_by_text("Chrome on macOS"))).to_have_count(2)
    expect(page.get_by_text("this browser")).to_have_count(1)
    page.get_by_role("button", name="Sign out everywhere else").click()
    expect(page.get_by_role("button", name="Sign out everywhere else")).to_have_count(0)
    elsewhere.goto(f"{ada.url}/o/{ada.org}/")
    expect(elsewhere).to_have_url(re.compile("/accounts/login/"))
    page.goto(f"{ada.url}/o/{ada.org}/")
    inside(page)
    elsewhere.context.close()


def test_a_forgotten_password_is_replaced_by_mail_and_a_link_works_once(page: Page, ada: Person) -> None:
    page.goto(f"{ada.url}/accounts/password/reset/")
    page.locator("input[name=email]").fill(ada.email)
    page.get_by_role("button", name="Send link").click()
    link = ada.link("Reset your password")
    page.goto(link)
    page.locator("input[name=password1]").fill(OTHER)
    page.locator("input[name=password2]").fill(OTHER)
    page.get_by_role("button", name="Set password").click()
    page.wait_for_url(re.compile("/accounts/(login|password/reset/key/done)/"))
    page.context.clear_cookies()
    sign_in(page, ada)
    expect(page).to_have_url(re.compile("/accounts/login/"))  # the old one is over
    sign_in(page, ada, OTHER)
    inside(page)
    page.context.clear_cookies()
    page.goto(link)
    expect(page.get_by_text("invalid").first).to_be_visible()


def test_a_new_address_is_confirmed_by_mail(page: Page, stack: Stack) -> None:
    eve = Person(f"eve-{time.time_ns():x}@example.com", "", stack)
    page.goto(f"{eve.url}/accounts/signup/")
    page.locator("input[name=email]").fill(eve.email)
    page.locator("input[name=password1]").fill(PASSWORD)
    page.locator("input[name=password2]").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    inside(page)
    page.goto(eve.link("Confirm"))
    page.get_by_role("button", name="Confirm").click()
    page.goto(f"{eve.url}/accounts/email/")
    expect(page.get_by_text("Verified", exact=True)).to_be_visible()

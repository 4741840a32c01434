"""The main job, end to end, as a person does it: browser on one side, real MQTT clients on the other.

A new organization; a credential that connects and may do nothing; the denials on the audit page; a preset, simulated
and deployed to every node; the same client let through; back to the first version, and refused again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from tests.support.device import Device
from tests.support.system import Stack

pytestmark = [pytest.mark.stack, pytest.mark.browser]

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Secret:
    """What the credential page shows once."""

    username: str
    password: str
    publish_command: str


@pytest.fixture(scope="module")
def founder(stack: Stack) -> str:
    """Somebody who may sign in and belongs to no organization yet."""
    email = "founder@example.com"
    stack.django(
        "import sys\n"
        "from allauth.account.models import EmailAddress\n"
        "from orgs.models import User\n"
        "user = User.objects.create_user(sys.argv[1], sys.argv[2])\n"
        "EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)\n",
        email,
        PASSWORD,
    )
    return email


def sign_in(page: Page, stack: Stack, email: str) -> None:
    page.goto(f"{stack.url}/")
    page.get_by_label(re.compile("E-?mail")).fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def create_organization(page: Page, stack: Stack, name: str) -> str:
    page.goto(f"{stack.url}/orgs/new/")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create organization").click()
    expect(page).to_have_url(re.compile(r"/o/org_[a-z2-7]{12}/$"))
    return page.url.rstrip("/").rsplit("/", 1)[1]


def issue_credential(page: Page, home: str, username: str) -> Secret:
    page.goto(f"{home}credentials/new/")
    page.get_by_label("Username").fill(username)
    page.get_by_role("button", name="Issue credential").click()
    expect(page.get_by_role("heading", name="Credential issued")).to_be_visible()
    return Secret(
        page.locator("#issued-username").inner_text(),
        page.locator("#issued-secret").inner_text(),
        page.locator("#publish-command").inner_text(),
    )


def simulate(page: Page, username: str, topic: str) -> str:
    """Ask the simulator on the open draft; returns its verdict's text."""
    panel = page.locator("#simulator")
    panel.get_by_label("Username").fill(username)
    panel.get_by_label("Topic").fill(topic)
    panel.get_by_role("button", name="Simulate").click()
    expect(page.locator("#simulator .verdict")).to_contain_text(topic)
    return page.locator("#simulator .verdict").inner_text()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_the_tour(page: Page, stack: Stack, founder: str, version: str) -> None:
    sign_in(page, stack, founder)
    org = create_organization(page, stack, f"Tour {version}")
    home = f"{stack.url}/o/{org}/"
    secret = issue_credential(page, home, "agent-7")
    assert secret.username == f"agent-7@{org}"
    assert "--cafile" in secret.publish_command

    def device() -> Device:
        return Device(
            stack.host, stack.mqtts_port, stack.ca, secret.username, secret.password, version=version, client_id="c1"
        )

    # Connects, and everything is refused. MQTT 3.1.1 cannot say so to a publisher: it acknowledges and drops.
    with device() as refused:
        assert refused.subscribe("agents/#").is_failure
        assert refused.publish("agents/agent-7/card").is_failure is (version == "5")
        assert refused.messages == []

    # The denials are on the audit page, with everything an auditor asks for.
    page.goto(f"{home}audit/?kind=acl_denied")
    for action, topic in (("Publish", "agents/agent-7/card"), ("Subscribe", "agents/#")):
        row = page.get_by_role("row").filter(has_text=action).filter(has_text=topic)
        expect(row).to_be_visible()
        expect(row).to_contain_text("no rule")
        expect(row).to_contain_text("agent-7")
        expect(row).to_contain_text("127.0.0.1")
    page.get_by_role("row").filter(has_text="agents/agent-7/card").get_by_role("link").first.click()
    for fact in ("agent-7", "c1", "mqtts", version, "TLSv1.3", "TLS_", "127.0.0.1", "No rule allows it"):
        expect(page.get_by_role("main")).to_contain_text(fact)

    # A preset into the draft, simulated there, and deployed to every node.
    page.goto(f"{home}access/presets/")
    page.get_by_role("button", name="Use Agent pipelines").click()
    expect(page).to_have_url(re.compile(r"/access/$"))
    assert "Allow" in simulate(page, "agent-7", "agents/agent-7/card")
    assert "Den" in simulate(page, "agent-7", "agents/agent-8/card")
    page.get_by_role("button", name="Review and deploy").click()
    page.get_by_role("button", name="Deploy to every node").click()
    expect(page.get_by_text("Enforced on every node")).to_be_visible()
    for node in stack.nodes:
        expect(page.get_by_role("row").filter(has_text=node)).to_contain_text("Enforcing")

    # The same client is let through.
    with device() as allowed:
        assert not allowed.subscribe("agents/agent-7/card").is_failure
        assert not allowed.publish("agents/agent-7/card", b"now").is_failure
        assert allowed.received("agents/agent-7/card", b"now")
        assert allowed.publish("agents/agent-8/card").is_failure is (version == "5")

    # One click back, and it is refused again.
    page.goto(f"{home}access/versions/")
    page.get_by_role("link", name="Roll back to version 1").click()
    page.get_by_role("button", name=re.compile("Roll back")).click()
    expect(page.get_by_text("Enforced on every node")).to_be_visible()
    with device() as refused:
        assert refused.subscribe("agents/agent-7/card").is_failure
        assert refused.publish("agents/agent-7/card").is_failure is (version == "5")


def test_a_new_policy_reaches_a_live_session(page: Page, stack: Stack, founder: str) -> None:
    """A subscription that is no longer granted stops at once, while its session stays."""
    sign_in(page, stack, founder)
    org = create_organization(page, stack, "Live")
    home = f"{stack.url}/o/{org}/"
    secret = issue_credential(page, home, "agent-7")
    page.goto(f"{home}access/presets/")
    page.get_by_role("button", name="Use Agent pipelines").click()
    page.get_by_role("button", name="Review and deploy").click()
    page.get_by_role("button", name="Deploy to every node").click()
    expect(page.get_by_text("Enforced on every node")).to_be_visible()
    with Device(
        stack.host, stack.mqtts_port, stack.ca, secret.username, secret.password, version="5", client_id="live"
    ) as device:
        assert not device.subscribe("agents/agent-7/card").is_failure
        assert not device.publish("agents/agent-7/card", b"before").is_failure
        assert device.received("agents/agent-7/card", b"before")
        page.goto(f"{home}access/versions/")
        page.get_by_role("link", name="Roll back to version 1").click()
        page.get_by_role("button", name=re.compile("Roll back")).click()
        expect(page.get_by_text("Enforced on every node")).to_be_visible()
        assert device.publish("agents/agent-7/card", b"after").is_failure
        assert ("agents/agent-7/card", b"after") not in device.messages

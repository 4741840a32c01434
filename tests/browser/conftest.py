"""A lived-in system for the browser: two organizations, a policy in force, a client that is refused things."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import paho.mqtt.client as mqtt
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.support.system import Stack

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"

SEED = """
import json
from acl.services.deployments import deploy
from acl.services.drafts import load_preset, save_draft
from acl.policy.language.presets import preset
from orgs.access.grants import access_org
from orgs.models import User
from orgs.api_keys.keys import create_api_key
from orgs.credentials.issuing import issue_credential, revoke_credential
from orgs.people.invitations import invite, link_of
from orgs.organizations.lifecycle import create_organization
from orgs.providers.providers import Wanted, add_provider
from orgs.sso.connections import WantedSignOn, add_sign_on, approve_domains

ada = User.objects.create_user("ada@example.com", "correct horse battery", is_operator=True)
lived = access_org(ada, create_organization(ada, name="Harbour Logistics").pk)
empty = access_org(ada, create_organization(ada, name="Greenhouse Robotics").pk)
agent = issue_credential(lived, username="agent-7", claims={"email": "ops@example.com"})
issue_credential(lived, username="press-line-4", static=True, note="Hall B")
revoke_credential(lived, issue_credential(lived, username="old").token_id)
load_preset(lived, "agent-pipelines")
deployment = deploy(lived, note="first rules")
save_draft(lived, text=preset("agent-pipelines").text + "# a further line\\n")
invited = invite(lived, email="grace@example.com", role="auditor")
create_api_key(lived, kind="rk", name="billing", scopes=["org.read", "credentials.manage"], ip_allow=["192.0.2.0/24"])
provider = add_provider(lived, Wanted("login", "oidc", "https://id.example.com", "mqtt", secret="x" * 32))
wanted = WantedSignOn("Harbour staff", issuer="https://id.example.com", client_id="x", domains=["harbour.example"],
    enabled=True)
sign_on = add_sign_on(lived, "oidc", wanted)
approve_domains(ada, lived.org_id, sign_on.pk, domains=["harbour.example"])
print(json.dumps({
    "sign_on": sign_on.pk,
    "lived": lived.org_id, "empty": empty.org_id, "username": agent.username, "password": agent.password,
    "token": agent.token_id, "deployment": deployment.pk,
    "provider": provider.pk, "invitation": "/invitations/" + link_of(invited).split("/invitations/")[1],
}))
"""


SIGNED_IN_SECONDS = 100.0


@dataclass
class Place:
    """The system with what was put into it."""

    stack: Stack
    lived: str
    empty: str
    username: str
    password: str
    token: str
    deployment: str
    provider: str
    sign_on: str
    invitation: str
    _signed_in: tuple[float, list[Any]] = (float("-inf"), [])

    @property
    def cookies(self) -> list[Any]:
        """The cookies of a person who has signed in within the last minute or two.

        Some pages ask for the password again when that was five minutes ago: one session for a whole run of the suite
        would fail on a machine that takes longer.
        """
        at, cookies = self._signed_in
        if time.monotonic() - at > SIGNED_IN_SECONDS:
            cookies = sign_in(self.stack)
            self._signed_in = time.monotonic(), cookies
        return cookies

    @property
    def url(self) -> str:
        """The dashboard."""
        return self.stack.url

    def at(self, path: str, org: str = "") -> str:
        """An address within an organization."""
        return f"{self.url}/o/{org or self.lived}/{path}"


def client(place: Place, name: str = "agent-7-main") -> mqtt.Client:
    """A real MQTT 5 client, connected."""
    found = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    found.username_pw_set(place.username, place.password)
    found.tls_set(str(place.stack.ca))
    found.connect("localhost", place.stack.mqtts_port, keepalive=60)
    found.loop_start()
    return found


def sign_in(stack: Stack) -> list[Any]:
    """Sign in as a browser's form would; returns the cookies as Playwright takes them."""
    with httpx.Client(base_url=stack.url, follow_redirects=True) as http:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', http.get("/accounts/login/").text)
        assert token, "the form has no token"
        form = {"login": EMAIL, "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
        answer = http.post("/accounts/login/", data=form, headers={"Referer": f"{stack.url}/accounts/login/"})
        assert answer.url.path == "/orgs/", f"signing in led to {answer.url}"
        return [{"name": name, "value": value, "url": stack.url} for name, value in http.cookies.items()]


@pytest.fixture(scope="session")
def place(stack: Stack) -> Iterator[Place]:
    """Seeded once; one client stays connected and has been refused something."""
    seeded = json.loads(stack.django(SEED).strip().splitlines()[-1])
    found = Place(stack, **seeded)
    device = client(found)
    time.sleep(1)
    device.publish("factory/line-4/stop", "now", qos=1)
    device.subscribe("#")
    yield found
    device.disconnect()
    device.loop_stop()


@pytest.fixture
def signed_in(context: BrowserContext, place: Place) -> Page:
    """A page of a person who is signed in."""
    context.add_cookies(place.cookies)
    return context.new_page()

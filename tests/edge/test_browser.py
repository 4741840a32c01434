"""MQTT.js in a page of a real browser, over the WSS listener of a real edge (MQTT 5 s6: subprotocol ``mqtt``)."""

from __future__ import annotations

import base64
import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.browser import chromium, flags
from tests.support.parts import Edge, Issued, wait_for
from tests.support.rig import Rig

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright, WebSocket

pytestmark = pytest.mark.browser
BOTH = pytest.mark.parametrize("version", [4, 5])
HERE = Path(__file__).parent
VENDOR = HERE / "vendor"

POLICY = """
version: '3'
rules:
  - {id: hole, effect: deny, topic: 'ok/hole/#', action: sub}
  - {id: ok, topic: 'ok/#'}
  - {id: answers, topic: 'answers/{client_id}', action: sub}
"""


class Pages(SimpleHTTPRequestHandler):
    """The page and the library, with a policy that lets nothing else run and only the edge be reached."""

    connect = ""

    def translate_path(self, path: str) -> str:
        name = Path(path).name or "index.html"
        return str(next((there for there in (HERE / "page" / name, VENDOR / name) if there.is_file()), HERE / "none"))

    def end_headers(self) -> None:
        self.send_header(
            "Content-Security-Policy", f"default-src 'none'; script-src 'self'; connect-src {self.connect}"
        )
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Browsing:
    """A page with MQTT.js, and every frame its WebSockets received."""

    page: Page
    url: str
    frames: list[bytes] = field(default_factory=list)

    def call(self, function: str, *arguments: object) -> Any:
        """Call a function of ``page/page.js``."""
        return self.page.evaluate(f"(all) => {function}(...all)", list(arguments))

    def open(self, issued: Issued, version: int, *, name: str = "one", **options: object) -> Any:
        """Connect; returns what the page saw of the answer."""
        login = {"username": issued.username, "password": issued.password, "clientId": name}
        return self.call("open", name, self.url, {**login, "protocolVersion": version, **options})

    def messages(self, count: int, *, name: str = "one") -> list[dict[str, Any]]:
        """The next ``count`` messages, and that there are no more."""
        found: list[dict[str, Any]] = []
        end = time.monotonic() + 30
        while len(found) < count and time.monotonic() < end:
            found += self.call("messages", name)
            self.page.wait_for_timeout(20)
        self.page.wait_for_timeout(150)
        return found + self.call("messages", name)

    def ended(self, *, name: str = "one") -> int | None:
        """Wait until the connection is closed; returns the reason of a DISCONNECT."""
        end = time.monotonic() + 30
        while not (state := self.call("ended", name))["closed"]:
            assert time.monotonic() < end, "the connection is open"
            self.page.wait_for_timeout(20)
        reason: int | None = state["disconnect"]
        return reason

    def timeouts(self, socket: WebSocket) -> None:
        """Keep what arrives."""
        socket.on("framereceived", lambda data: self.frames.append(data if isinstance(data, bytes) else data.encode()))


def key_hash(edge: Edge) -> str:
    """What Chromium names a key by: SHA-256 over its SubjectPublicKeyInfo."""
    certificate = x509.load_pem_x509_certificate(Path(edge.env["EDGE_TLS_CERT"]).read_bytes())
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def trusting(playwright: Playwright, rig: Rig) -> Iterator[Browser]:
    """A Chromium that accepts the one key of this edge and checks every other certificate as always."""
    known = f"--ignore-certificate-errors-spki-list={key_hash(rig.edge)}"
    browser = playwright.chromium.launch(executable_path=chromium(), args=[*flags(), known])
    yield browser
    browser.close()


@pytest.fixture
def browse(rig: Rig) -> Iterator[Callable[[Browser], Browsing]]:
    """Opens the page in a browser."""
    url = f"wss://localhost:{rig.edge.wss_port}/mqtt"
    handler = type("Handler", (Pages,), {"connect": url.removesuffix("/mqtt")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages: list[Page] = []

    def make(browser: Browser) -> Browsing:
        page = browser.new_page()
        pages.append(page)
        made = Browsing(page, url)
        page.on("websocket", made.timeouts)
        page.goto(f"http://localhost:{server.server_address[1]}/")
        return made

    yield make
    for page in pages:
        page.close()
    server.shutdown()
    server.server_close()


def test_the_library_is_the_published_one() -> None:
    listed, name = (VENDOR / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == listed
    assert "5.16.0" in (VENDOR / "README.md").read_text()


@BOTH
def test_a_page_subscribes_publishes_receives_and_sees_what_it_is_denied(
    rig: Rig, trusting: Browser, browse: Callable[[Browser], Browsing], version: int
) -> None:
    org = rig.org(POLICY)
    issued = rig.plane.issue(org)
    page = browse(trusting)
    answer = page.open(issued, version)
    assert (answer["code"], answer["protocol"]) == (0, "mqtt")
    refusal = 0x87 if version == 5 else 0x80
    assert page.call("subscribe", "one", ["ok/#", "secret/#", "answers/one"], 2) == [2, refusal, 2]
    for qos in (0, 1, 2):
        for topic, text in (("ok/a", f"qos {qos}"), ("ok/hole/a", "hidden")):
            assert page.call("publish", "one", topic, text, {"qos": qos}) is None
    got = page.messages(3)
    assert [(one["topic"], one["text"]) for one in got] == [("ok/a", f"qos {qos}") for qos in (0, 1, 2)]
    for qos in (1, 2):
        denied = page.call("publish", "one", "secret/x", "no", {"qos": qos})
        assert denied is None if version == 4 else denied["code"] == 0x87
    page.call("publish", "one", "ok/large", "x" * 200_000, {"qos": 1, "retain": True})
    (large,) = page.messages(1)
    assert (large["topic"], large["size"]) == ("ok/large", 200_000)
    event = rig.plane.event(org=org, kind="connect")
    assert (event.transport, event.mqtt_version) == ("wss", "5" if version == 5 else "3.1.1")
    denials = wait_for(
        lambda: (
            (found := rig.plane.events(org=org, kind="acl_denied", topic="secret/x", action="publish"))
            and sum(one.count for one in found) == 2
            and found
        ),
        what="both denials",
    )
    assert {one.rule for one in denials} == {"none"}
    page.call("leave", "one")
    assert rig.plane.event(org=org, kind="disconnect").reason == "clean"
    assert page.frames
    assert not [frame for frame in page.frames if org.encode() in frame or b"org_" in frame]


def test_what_a_page_gets_from_others_names_no_prefix(
    rig: Rig, trusting: Browser, browse: Callable[[Browser], Browsing]
) -> None:
    """Assigned client id, response topic, shared subscription, retained, will: everything that carries a topic."""
    org = rig.org()
    issued = rig.plane.issue(org)
    page = browse(trusting)
    answer = page.open(issued, 5, clientId="")
    assert answer["assigned"].startswith("auto-")
    will = {"topic": "wills/two", "payload": "gone", "qos": 1, "properties": {"responseTopic": "back/will"}}
    assert page.open(issued, 5, name="two", will=will)["code"] == 0
    page.call("publish", "two", "kept", "retained", {"qos": 1, "retain": True})
    assert page.call("subscribe", "one", ["kept", "$share/g/shared", "wills/#"], 1) == [1, 1, 1]
    properties = {"responseTopic": "back/here", "userProperties": {"k": "v"}}
    page.call("publish", "two", "shared", "asked", {"qos": 1, "properties": properties})
    page.call("publish", "two", "$app/x", "dollar", {"qos": 1})
    session = rig.plane.event(org=org, kind="connect", client_id="two").session
    page.page.evaluate("clients.two.client.stream.destroy()")
    got = {one["topic"]: (one["text"], one["response"], one["retain"]) for one in page.messages(3)}
    assert got == {
        "kept": ("retained", None, True),
        "shared": ("asked", "back/here", False),
        "wills/two": ("gone", "back/will", False),
    }
    assert rig.plane.event(org=org, kind="disconnect", session=session).reason == "lost"
    assert not [frame for frame in page.frames if b"org_" in frame]


@BOTH
def test_a_page_whose_credential_is_revoked_is_closed_and_cannot_come_back(
    rig: Rig, trusting: Browser, browse: Callable[[Browser], Browsing], version: int
) -> None:
    org = rig.org(POLICY)
    issued = rig.plane.issue(org)
    page = browse(trusting)
    assert page.open(issued, version)["code"] == 0
    rig.plane.revoke(issued)
    assert page.ended() == (0x87 if version == 5 else None)
    again = page.open(issued, version, name="again")
    assert again["error"]["code"] == (0x87 if version == 5 else 5)
    wrong = page.open(Issued(org, "dev", "tkn_wrong", "", 0), version, name="wrong")
    assert wrong["error"]["code"] == (0x86 if version == 5 else 4)


def test_a_browser_that_does_not_know_the_key_does_not_connect(
    rig: Rig, playwright: Playwright, browse: Callable[[Browser], Browsing]
) -> None:
    """The control: the other tests show a verified connection, not a browser that believes everything."""
    org = rig.org(POLICY)
    issued = rig.plane.issue(org)
    other = base64.b64encode(hashlib.sha256(b"another key").digest()).decode()
    known = f"--ignore-certificate-errors-spki-list={other}"
    browser = playwright.chromium.launch(executable_path=chromium(), args=[*flags(), known])
    page = browse(browser)
    assert "error" in page.open(issued, 5)
    browser.close()
    assert not rig.plane.events(org=org, kind="connect")
    wait_for(
        lambda: [e for e in rig.plane.events(kind="tls_failed", transport="wss") if "unknown" in e.reason],
        what="the failed handshake in the audit",
    )

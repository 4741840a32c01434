"""Signing in: the real program, a real browser, the running system. And answers that are not ours."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cloudsignal.cli.loopback import Listener, Proof
from cloudsignal.cli.outcome import CommandError, Exit
from cloudsignal.supervisor.part import PROJECT
from tests.cli.conftest import PASSWORD, Place
from tests.support.accessibility import ALL, accessible
from tests.support.cli import Done, alone, command, process

if TYPE_CHECKING:
    from playwright.sync_api import Page

browser = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(300)]


class Running:
    """``cloudsignal login`` while it waits for the browser."""

    def __init__(self, place: Place, folder: Path, *options: str, **environment: str) -> None:
        self.environment = alone() | {"XDG_CONFIG_HOME": str(folder)} | environment
        self.process = subprocess.Popen(
            command("login", place.stack.url, *options), cwd=PROJECT, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.told = ""
        while "It must show" not in self.told:
            line = self.process.stderr.readline()
            assert line, f"it ended: {self.told}"
            self.told += line

    @property
    def address(self) -> str:
        """The page that it wants opened."""
        found = re.search(r"^  (http\S+)$", self.told, re.MULTILINE)
        assert found
        return found[1]

    @property
    def phrase(self) -> str:
        """What the page must show."""
        found = re.search(r"must show ([A-Z2-7]{4}-[A-Z2-7]{4})", self.told)
        assert found
        return found[1]

    def end(self, pasted: str | None = None) -> Done:
        """Paste something, if given, and wait for the end."""
        output, errors = self.process.communicate(None if pasted is None else pasted + "\n", timeout=60)
        return Done(self.process.returncode, output, self.told + errors)


@contextmanager
def logging_in(place: Place, folder: Path, *options: str, **environment: str) -> Iterator[Running]:
    running = Running(place, folder, *options, **environment)
    try:
        yield running
    finally:
        running.process.kill()


def approve(
    page: Page, place: Place, running: Running, *, who: str = "grace@example.com", org: str = "Tidewater"
) -> None:
    """Sign in as a person would, compare the phrase, choose the organization, say yes."""
    page.goto(running.address)
    page.get_by_label("Email address").fill(who)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_selector("#phrase")
    assert page.text_content("#phrase") == running.phrase
    page.get_by_label(org).check()
    page.get_by_role("button", name="Authorize").click()


def stored(folder: Path) -> list[dict[str, Any]]:
    path = folder / "cloudsignal" / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logins: list[dict[str, Any]] = json.loads(path.read_text())["logins"]
    return logins


class TestInABrowser:
    """The whole way, as a person goes it."""

    pytestmark = browser

    def test_the_browser_opens_asks_and_brings_the_answer_back(self, place: Place, page: Page, tmp_path: Path) -> None:
        opened = tmp_path / "opened"
        script = tmp_path / "browser"
        script.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
        script.chmod(0o755)
        with logging_in(place, tmp_path, BROWSER=f"{script} %s") as running:
            place.stack.eventually(opened.exists, what="the browser's start")
            assert opened.read_text() == running.address
            approve(page, place, running)
            page.wait_for_url("http://127.0.0.1:*/callback*")
            assert "Back to the terminal" in (page.text_content("body") or "")
            done = running.end()
        assert done.code == 0, done
        assert "Signed in to" in done.output
        assert "as grace@example.com for Tidewater" in done.output
        (login,) = stored(tmp_path)
        assert login["organization_id"] == place.org
        assert login["key"] not in done.output + done.errors

        own = {"XDG_CONFIG_HOME": str(tmp_path)}
        who = json.loads(process("whoami", "--json", environment=own).output)
        assert (who["person"], who["role"], who["organization_id"]) == ("grace@example.com", "owner", place.org)
        page.goto(f"{place.stack.url}/o/{place.org}/settings/keys/")
        assert "CLI of grace@example.com" in (page.text_content("main") or "")

        out = process("logout", environment=own)
        assert out.code == 0, out
        assert stored(tmp_path) == []
        assert process("whoami", environment=own).code == 3
        late = process("whoami", environment={"CLOUDSIGNAL_URL": place.stack.url, "CLOUDSIGNAL_API_KEY": login["key"]})
        assert late.code == 3
        assert "revoked" in late.errors

    @pytest.mark.parametrize("whole_address", [False, True])
    def test_without_a_browser_a_code_is_pasted(
        self, whole_address: bool, place: Place, page: Page, tmp_path: Path
    ) -> None:
        with logging_in(place, tmp_path, "--no-browser", "--json") as running:
            approve(page, place, running, who="developer@tidewater.example")
            code = page.text_content("#code") or ""
            accessible(page, ALL)
            link = page.get_by_role("link", name="send the code to it").get_attribute("href") or ""
            done = running.end(link if whole_address else code)
        assert done.code == 0, done
        assert json.loads(done.output)["person"] == "developer@tidewater.example"
        assert stored(tmp_path)[0]["key"] not in done.output + done.errors
        again = httpx.post(
            f"{place.stack.url}/v2/command-line/login",
            json={"code": code, "code_verifier": "x" * 43, "redirect_uri": "http://127.0.0.1:1/callback"},
        )
        assert (again.status_code, again.json()["code"]) == (400, "invalid_grant")

    def test_the_page_hands_the_code_over_when_the_terminal_is_here_after_all(
        self, place: Place, page: Page, tmp_path: Path
    ) -> None:
        with logging_in(place, tmp_path, "--no-browser") as running:
            approve(page, place, running)
            page.get_by_role("link", name="send the code to it").click()
            page.wait_for_url("http://127.0.0.1:*/callback*")
            running.process.wait(90)
            assert running.end().code == 0

    def test_signing_in_again_replaces_and_revokes_the_key_before(
        self, place: Place, page: Page, tmp_path: Path
    ) -> None:
        keys = []
        for _ in range(2):
            with logging_in(place, tmp_path, "--no-browser") as running:
                if keys:
                    page.context.clear_cookies()
                approve(page, place, running)
                assert running.end(page.text_content("#code")).code == 0
            (login,) = stored(tmp_path)
            keys.append(login["key"])
        assert place.run("whoami", key=keys[0]).code == 3
        assert place.run("whoami", key=keys[1]).code == 0

    def test_two_organizations_beside_each_other(self, place: Place, page: Page, tmp_path: Path) -> None:
        for org in ("Tidewater", "Upriver"):
            with logging_in(place, tmp_path, "--no-browser") as running:
                page.context.clear_cookies()
                approve(page, place, running, org=org)
                assert running.end(page.text_content("#code")).code == 0
        own = {"XDG_CONFIG_HOME": str(tmp_path)}
        assert "Upriver" in process("whoami", environment=own).output
        assert "Tidewater" in process("whoami", "--org", place.org, environment=own).output
        assert process("logout", "--all", environment=own).code == 0
        assert stored(tmp_path) == []

    def test_no_in_the_browser_is_no_in_the_terminal(self, place: Place, page: Page, tmp_path: Path) -> None:
        script = tmp_path / "browser"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        with logging_in(place, tmp_path, BROWSER=f"{script} %s") as running:
            page.goto(running.address)
            page.get_by_label("Email address").fill("grace@example.com")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in", exact=True).click()
            page.get_by_role("button", name="Decline").click()
            page.wait_for_url("http://127.0.0.1:*/callback*")
            done = running.end()
        assert done.code == 3, done
        assert "declined in the browser" in done.errors
        assert not (tmp_path / "cloudsignal").exists()

    def test_a_wrong_code_is_exit_code_3(self, place: Place, tmp_path: Path) -> None:
        with logging_in(place, tmp_path, "--no-browser") as running:
            done = running.end("not-a-code")
        assert done.code == 3, done
        assert "cloudsignal login" in done.errors

    def test_a_key_whose_server_is_away_is_forgotten_here_and_told_of(
        self, place: Place, page: Page, tmp_path: Path
    ) -> None:
        with logging_in(place, tmp_path, "--no-browser") as running:
            approve(page, place, running)
            assert running.end(page.text_content("#code")).code == 0
        path = tmp_path / "cloudsignal" / "credentials.json"
        path.write_text(path.read_text().replace(place.stack.url, "http://127.0.0.1:1"))
        done = process("logout", environment={"XDG_CONFIG_HOME": str(tmp_path)})
        assert done.code == 4
        assert "may still work" in done.errors
        assert stored(tmp_path) == []


# --- the listener on its own -----------------------------------------------------------------------------------------


def test_only_the_answer_with_our_state_counts() -> None:
    proof = Proof()
    with Listener(proof) as listener:
        back = listener.redirect_uri
        assert back.startswith("http://127.0.0.1:")
        for stranger in ("?code=evil", "?code=evil&state=", "?code=evil&state=x", f"?code=evil&state={proof.state}x",
                         "?code=evil&state=%FF%00"):  # fmt: skip
            assert httpx.get(back + stranger).status_code == 400
        assert httpx.get(back.replace("/callback", "/other"), params={"state": proof.state}).status_code == 400
        assert httpx.post(back).status_code == 501
        answer = httpx.get(back, params={"code": "ours", "state": proof.state})
        assert answer.status_code == 200
        assert "ours" not in answer.text
        assert listener.wait(60) == "ours"


def test_nobody_answers() -> None:
    with Listener(Proof()) as listener, pytest.raises(CommandError) as late:
        listener.wait(0.05)
    assert late.value.code is Exit.REFUSED


def test_every_sign_in_has_secrets_of_its_own_and_shows_none_of_them() -> None:
    one, other = Proof(), Proof()
    assert len({one.state, one.verifier, other.state, other.verifier}) == 4
    with Listener(one) as listener:
        address = listener.address("https://signal.example.com", machine="a b&c=d", shows_code=False)
        asked = parse_qs(urlsplit(address).query)
        assert asked["redirect_uri"] == [listener.redirect_uri]
        assert asked["machine"] == ["a b&c=d"]
        assert one.verifier not in address


@pytest.mark.browser
@pytest.mark.stack
def test_without_a_display_it_asks_for_a_code_by_itself(place: Place, tmp_path: Path) -> None:
    with logging_in(place, tmp_path, DISPLAY="", WAYLAND_DISPLAY="", BROWSER="") as running:
        assert "show=code" in running.address
        assert running.end("not-a-code").code == 3


def test_the_server_has_to_be_named_the_first_time() -> None:
    done = process("login")
    assert done.code == 2
    assert "https://" in done.errors


def test_a_server_that_is_away_is_noticed_before_the_browser_opens() -> None:
    done = process("login", "http://127.0.0.1:1", environment={"BROWSER": "false %s"})
    assert done.code == 4
    assert "cannot be reached" in done.errors

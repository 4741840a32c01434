"""``cloudsignal up --demo`` as somebody meets it who types what is printed."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from cloudsignal.demo.cast import OPERATOR, SAMPLES
from tests.support.process import clean_environment
from tests.support.system import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def demo() -> Iterator[Stack]:
    """A running demo."""
    stack = Stack("--demo")
    stack.start()
    try:
        stack.wait_ready(seconds=180)
        yield stack
    finally:
        stack.remove()


def guide(demo: Stack) -> str:
    return (demo.data / "demo" / "guide.txt").read_text()


def commands(demo: Stack, program: str) -> list[list[str]]:
    lines = [line.strip() for line in guide(demo).splitlines() if line.strip().startswith(f"{program} ")]
    assert len(lines) == len(SAMPLES)
    return [shlex.split(line) for line in lines]


def run(command: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=90, check=False, env=clean_environment()
    )


def test_what_is_printed_is_the_guide(demo: Stack) -> None:
    assert guide(demo) in demo.output.read_text()
    assert demo.url in guide(demo)
    for email in (OPERATOR, *(email for sample in SAMPLES for email, _ in sample.people)):
        assert re.search(rf"^  {re.escape(email)} +\S+-\S+-\d+ ", guide(demo), re.MULTILINE), email


def test_the_printed_commands_work_as_they_stand(demo: Stack) -> None:
    for listen in commands(demo, "mosquitto_sub"):
        heard = run(listen, "-C", "1", "-W", "75")
        assert heard.returncode == 0, heard.stderr
        assert heard.stdout
    for publish in commands(demo, "mosquitto_pub"):
        assert "Not authorized" in run(publish).stderr


def test_a_printed_password_signs_in(demo: Stack) -> None:
    email = SAMPLES[0].people[0][0]
    found = re.search(rf"^  {re.escape(email)} +(\S+) ", guide(demo), re.MULTILINE)
    assert found is not None
    with httpx.Client(base_url=demo.url, follow_redirects=True) as client:
        form = client.get("/accounts/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        assert token is not None
        fields = {"csrfmiddlewaretoken": token[1], "login": email, "password": found[1]}
        page = client.post("/accounts/login/", data=fields, headers={"Referer": demo.url})
        assert page.status_code == 200
        assert SAMPLES[0].name in page.text


def csrf(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_the_mail_of_the_demo_stands_on_a_page_that_only_operators_see(demo: Stack) -> None:
    owner = SAMPLES[0].people[0][0]
    with httpx.Client(base_url=demo.url, follow_redirects=True, headers={"Referer": demo.url}) as client:

        def mail_page(email: str) -> httpx.Response:
            found = re.search(rf"^  {re.escape(email)} +(\S+) ", guide(demo), re.MULTILINE)
            assert found is not None
            client.cookies.clear()
            form = csrf(client.get("/accounts/login/").text)
            client.post("/accounts/login/", data={"csrfmiddlewaretoken": form, "login": email, "password": found[1]})
            return client.get("/operator/mail/")

        assert mail_page(owner).status_code == 404
        client.cookies.clear()
        fields = {"csrfmiddlewaretoken": csrf(client.get("/accounts/password/reset/").text), "email": owner}
        assert client.post("/accounts/password/reset/", data=fields).status_code == 200
        page = mail_page(OPERATOR)
        assert page.status_code == 200
        link = re.search(r'href="(http[^"]+/accounts/password/reset/key/[^"]+)"', page.text)
        assert link is not None
        client.cookies.clear()
        assert 'name="password1"' in client.get(link[1]).text


def test_every_device_is_connected_and_denials_are_on_record(demo: Stack) -> None:
    devices = sum(len(sample.devices) for sample in SAMPLES)
    client = demo.redis()

    def sessions() -> bool:
        return sum(client.hlen(f"cs1:sessions:{node}") for node in demo.nodes) >= devices

    demo.eventually(sessions, seconds=60, what="that every device is connected")

    def denials() -> bool:
        with demo.admin() as admin:
            row = admin.execute(
                "SELECT count(DISTINCT org_id), count(DISTINCT mqtt_version), min(rule), max(tls_version) "
                "FROM audit_event WHERE kind = 'acl_denied'"
            ).fetchone()
        return row == (2, 2, "none", "TLSv1.3")

    demo.eventually(denials, seconds=90, what="that both organizations have denials of both versions on record")


def test_a_second_start_finds_what_the_first_one_made(demo: Stack) -> None:
    def organizations() -> list[tuple[str, str]]:
        with demo.admin() as admin:
            return admin.execute("SELECT id, name FROM orgs_organization ORDER BY name").fetchall()  # type: ignore[return-value]

    before = organizations()
    signing_in = [line for line in guide(demo).splitlines() if ".example" in line and "mosquitto" not in line]
    assert [name for _, name in before] == sorted(sample.name for sample in SAMPLES)
    assert demo.stop() == 0
    demo.start()
    demo.wait_ready(seconds=180)
    assert organizations() == before
    assert [line for line in guide(demo).splitlines() if ".example" in line and "mosquitto" not in line] == signing_in

"""Page: credentials from a CSV file."""

from __future__ import annotations

import csv
import html
import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse

from cloudsignal.redis import client as redis_client
from cloudsignal.wire import keys
from orgs.access.grants import Access
from orgs.credentials import bulk
from orgs.credentials.issuing import LIVE_SECRETS_MAX, check_secret, issue_credential
from orgs.credentials.reads import get_credential, list_credentials, list_identities
from orgs.permissions import Role
from tests.support.world import member

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db(transaction=True)


def upload(text: str | bytes) -> SimpleUploadedFile:
    """A chosen file."""
    return SimpleUploadedFile("clients.csv", text.encode() if isinstance(text, str) else text, "text/csv")


def parts_of(page: str) -> dict[str, list[dict[str, str]]]:
    """The files of a result by name, read as CSV."""
    found = {}
    for href, name in re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)" download="([^"]*)"', page):
        found[name] = list(csv.DictReader(io.StringIO(unquote(html.unescape(href)))))
    return found


def sent(client: Client, access: Access, **form: object) -> str:
    """The whole page that a file leads to."""
    answer = client.post(reverse("orgs:bulk", args=[access.org_id]), form)
    assert (answer.status_code, answer.streaming) == (200, True)
    assert "no-store" in answer.headers["Cache-Control"]
    return answer.getvalue().decode()


def test_a_file_becomes_credentials_and_one_download(acme: Access, owner: Client) -> None:
    text = "username,ttl,claim.room,static,note\nsensor-1,600,lobby,,by the door\n,,,,\n,3600,,,\nplc,,,yes,\n"
    page = sent(owner, acme, file=upload(text), text="")
    assert "3 credentials issued" in page
    assert "1 static credential" in page
    (rows,) = parts_of(page).values()
    assert [row["line"] for row in rows] == ["2", "4", "5"]
    assert rows[0]["username"] == f"sensor-1@{acme.org_id}"
    assert rows[2]["expires_at"] == ""
    assert all(row["password"].startswith("tkn_") for row in rows)
    assert get_credential(acme, rows[0]["token_id"]).hint == rows[0]["password"][-4:]
    assert redis_client().exists(keys.credential(acme.org_id, "sensor-1")) == 1
    claims = {row.identity.username: row.identity.claims for row in list_identities(acme).rows}
    assert claims["sensor-1"] == {"room": "lobby"}
    listed = owner.get(reverse("orgs:credentials", args=[acme.org_id])).content.decode()
    assert rows[0]["password"] not in listed


def test_progress_is_sent_while_the_work_goes_on(acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each piece the database holds what the piece shows, and the page says how far it is."""
    monkeypatch.setattr(bulk, "BATCH", 2)
    url = reverse("orgs:bulk", args=[acme.org_id])
    pieces = iter(owner.post(url, {"text": "username\na\nb\nc\n"}).streaming_content)  # type: ignore[attr-defined]
    begun = next(pieces).decode()
    assert 'value="0" max="3"' in begun
    assert "If this page stops loading" in begun
    assert list_credentials(acme).rows == ()
    first = next(pieces).decode()
    assert 'value="2" max="3"' in first
    assert [row["username"].partition("@")[0] for row in parts_of(first)[f"credentials-{acme.org_id}-1.csv"]] == [
        "a", "b",
    ]  # fmt: skip
    assert len(list_credentials(acme).rows) >= 2
    rest = b"".join(pieces).decode()
    assert 'value="3" max="3"' in rest
    assert "3 credentials issued" in rest
    assert rest.rstrip().endswith("</html>")


def test_lines_that_cannot_be_served_are_named_and_the_others_are(acme: Access, owner: Client) -> None:
    for _ in range(LIVE_SECRETS_MAX):
        issue_credential(acme, username="full", static=True)
    page = sent(owner, acme, text="username\nfull\nfresh\n")
    assert "Line 2, full: full has 20 static credentials" in page
    assert "1 credential issued" in page
    assert [row["line"] for rows in parts_of(page).values() for row in rows] == ["3"]


def test_every_wrong_line_is_named_nothing_is_issued_and_the_text_comes_back(acme: Access, owner: Client) -> None:
    text = "username,ttl\nsensor-1,600\nBAD NAME,600\nsensor-2,7\nsensor-1,600\n"
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"file": upload(text), "text": ""})
    assert answer.status_code == 422
    assert [detail.line for detail in answer.context["form"].details] == [3, 4, 5]
    assert answer.context["form"]["text"].value() == text
    page = answer.content.decode()
    assert "Line 5: sensor-1 is already on line 2." in page
    assert page.count("3 lines cannot be used") == 1
    assert list_credentials(acme).rows == ()


@pytest.mark.parametrize(
    "sent", [b"", b"username\n", b"surname\nx\n", b"\xff\xfe\x00", b'username\n"open\n', b"username\n" + b"x" * 2**21],
    ids=["empty", "header only", "unknown column", "not utf-8", "not csv", "too large"],
)  # fmt: skip
def test_a_file_that_is_none_is_told_so_at_its_field(sent: bytes, acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"file": upload(sent), "text": ""})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == ["file"]
    assert list_credentials(acme).rows == ()


def test_nothing_chosen_and_nothing_pasted_is_told_so(acme: Access, owner: Client) -> None:
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"text": ""})
    assert answer.status_code == 422
    assert "Choose a file" in answer.content.decode()


def test_a_part_stays_below_what_a_link_may_be() -> None:
    line = (
        f"10000,{'x' * 63}@org_aaaaaaaaaaaa,tkn_{'x' * 34},tok_aaaaaaaaaaaa_{'x' * 16},2026-11-22T20:44:53+00:00%0D%0A"
    )
    assert bulk.BATCH * len(line) < 2_000_000


def test_two_tabs_with_the_same_file_do_not_meet(acme: Access, visitor: Visitor) -> None:
    """Both get a secret for every name, and both secrets are the name's own."""
    text = "username\n" + "".join(f"device-{number}\n" for number in range(40))
    backwards = "username\n" + "".join(f"device-{number}\n" for number in reversed(range(40)))
    tabs = [(visitor(acme), text), (visitor(acme), backwards)]

    def send(tab: tuple[Client, str]) -> str:
        try:
            return sent(tab[0], acme, text=tab[1])
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as both:
        pages = list(both.map(send, tabs))
    passwords = set()
    for page in pages:
        assert "40 credentials issued" in page
        rows = [row for part in parts_of(page).values() for row in part]
        assert [int(row["line"]) for row in rows] == list(range(2, 42))
        for row in rows:
            found = check_secret(acme.org, row["token_id"], row["password"])
            assert found.identity.username == row["username"].partition("@")[0]
        passwords |= {row["password"] for row in rows}
    assert len(passwords) == 80


def test_a_viewer_is_not_offered_the_page_and_cannot_issue(acme: Access, visitor: Visitor) -> None:
    viewer = visitor(member(acme.org, Role.VIEWER))
    url = reverse("orgs:bulk", args=[acme.org_id])
    assert url not in viewer.get(reverse("orgs:credentials", args=[acme.org_id])).content.decode()
    assert viewer.post(url, {"text": "username\na\n"}).status_code == 403
    assert list_credentials(acme).rows == ()

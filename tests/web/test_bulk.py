"""Page: credentials from a CSV file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from cloudsignal.redis import client as redis_client
from cloudsignal.wire import keys
from orgs.access import Access, get_credential, list_credentials, list_identities
from orgs.permissions import Role
from orgs.web import bulk
from tests.world import member

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db(transaction=True)


def upload(text: str | bytes) -> SimpleUploadedFile:
    """A chosen file."""
    return SimpleUploadedFile("clients.csv", text.encode() if isinstance(text, str) else text, "text/csv")


def rows_of(href: str) -> list[dict[str, str]]:
    """What a link of the result downloads."""
    head, _, body = href.partition(",")
    assert head == "data:text/csv;charset=utf-8"
    return list(csv.DictReader(io.StringIO(unquote(body))))


def test_a_file_becomes_credentials_and_one_download(acme: Access, owner: Client) -> None:
    text = "username,ttl,claim.room,static,note\nsensor-1,600,lobby,,by the door\n,,,,\n,3600,,,\nplc,,,yes,\n"
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"file": upload(text), "text": ""})
    assert answer.status_code == 201
    assert "no-store" in answer.headers["Cache-Control"]
    (part,) = answer.context["parts"]
    rows = rows_of(part.href)
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


def test_every_wrong_line_is_named_nothing_is_minted_and_the_text_comes_back(acme: Access, owner: Client) -> None:
    text = "username,ttl\nsensor-1,600\nBAD NAME,600\nsensor-2,7\nsensor-1,600\n"
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"file": upload(text), "text": ""})
    assert answer.status_code == 422
    assert [detail.line for detail in answer.context["form"].details] == [3, 4, 5]
    assert answer.context["form"]["text"].value() == text
    page = answer.content.decode()
    assert "Line 5: sensor-1 stands on line 2 already." in page
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


def test_a_long_result_comes_in_files_that_a_link_can_carry(
    acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PART", 2)
    answer = owner.post(reverse("orgs:bulk", args=[acme.org_id]), {"text": "username\na\nb\nc\n"})
    assert [(part.count, part.name) for part in answer.context["parts"]] == [
        (2, f"credentials-{acme.org_id}-1.csv"),
        (1, f"credentials-{acme.org_id}-2.csv"),
    ]
    assert [row["username"] for part in answer.context["parts"] for row in rows_of(part.href)] == [
        f"{name}@{acme.org_id}" for name in "abc"
    ]


def test_the_longest_part_stays_below_what_a_link_may_be() -> None:
    line = (
        f"10000,{'x' * 63}@org_aaaaaaaaaaaa,tkn_{'x' * 34},tok_aaaaaaaaaaaa_{'x' * 16},2026-11-22T20:44:53+00:00%0D%0A"
    )
    assert bulk.PART * len(line) < 2_000_000


def test_a_viewer_is_not_offered_the_page_and_cannot_mint(acme: Access, visitor: Visitor) -> None:
    viewer = visitor(member(acme.org, Role.VIEWER))
    url = reverse("orgs:bulk", args=[acme.org_id])
    assert url not in viewer.get(reverse("orgs:credentials", args=[acme.org_id])).content.decode()
    assert viewer.post(url, {"text": "username\na\n"}).status_code == 403
    assert list_credentials(acme).rows == ()

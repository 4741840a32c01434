"""E-mail without a mail server: kept for the account that runs it, and shown to operators of a demo."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from django.core.mail import EmailMultiAlternatives, send_mail
from django.test import Client
from pytest_django.fixtures import Settings

from cloudsignal.mail import kept_mail
from tests.support.world import organization, person


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """Mail goes here."""
    settings.EMAIL_BACKEND = "cloudsignal.mail.KeepingBackend"
    settings.EMAIL_FILE_PATH = tmp_path / "mail"
    settings.PUBLIC_URL = "https://signal.example.com"
    return tmp_path / "mail"


def test_mail_is_kept_for_its_owner_alone_newest_first(folder: Path) -> None:
    for number in range(20):
        send_mail(f"Subject {number} ü", f"Text {number}", None, [f"to{number}@example.com"])
    files = list(folder.glob("*.log"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert [mail.subject for mail in kept_mail()] == [f"Subject {number} ü" for number in reversed(range(20))]
    assert [mail.to for mail in kept_mail(limit=1)] == ["to19@example.com"]
    assert kept_mail()[0].sent_at is not None


@pytest.mark.usefixtures("folder")
def test_only_links_of_ours_can_be_clicked() -> None:
    text = (
        "Go to https://signal.example.com/invitations/x/\nor http://evil.example/https://signal.example.com/ <b>now</b>"
    )
    send_mail("Links", text, None, ["to@example.com"])
    (mail,) = kept_mail()
    assert [part for part, link in mail.parts if link] == ["https://signal.example.com/invitations/x/"]
    assert "".join(part for part, _ in mail.parts) == text


@pytest.mark.usefixtures("folder")
def test_strange_mail_breaks_nothing() -> None:
    message = EmailMultiAlternatives("Only html", "", None, ["to@example.com"])
    message.attach_alternative("<p>x</p>", "text/html")
    message.send()
    send_mail("Rule", "before\n" + "-" * 79 + "\nafter", None, ["to@example.com"])
    assert {mail.subject for mail in kept_mail()} >= {"Only html", "Rule"}


@pytest.mark.django_db
@pytest.mark.usefixtures("folder")
def test_the_page_is_for_operators_of_a_demo(settings: Settings) -> None:
    send_mail("Join <Acme>", "https://signal.example.com/invitations/x/", None, ["to@example.com"])
    operator, owner = Client(), Client()
    operator.force_login(person(operator=True))
    acme = organization()
    assert acme.user is not None
    owner.force_login(acme.user)
    assert operator.get("/operator/mail/").status_code == 404
    settings.DEMO = True
    page = operator.get("/operator/mail/").content.decode()
    assert "Join &lt;Acme&gt;" in page
    assert 'href="https://signal.example.com/invitations/x/"' in page
    assert "/operator/mail/" in operator.get("/operator/nodes/").content.decode()
    assert owner.get("/operator/mail/").status_code == 404
    assert Client().get("/operator/mail/").status_code == 302

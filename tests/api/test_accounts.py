"""Accounts: failed sign-ins slow down the guesser alone, second factors are sealed, organizations may require one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from cloudsignal.addresses import network_of
from cloudsignal.config import ConfigError
from cloudsignal.startup import mail_server
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import access_org
from orgs.models import Membership, User
from orgs.organizations.settings import change_settings
from orgs.permissions import Role
from orgs.tasks import clear_sessions
from tests.support.calling import Caller, World
from tests.support.world import person

PASSWORD = "a-rather-long-password"


@pytest.fixture
def ada(transactional_db: None, settings: Settings) -> User:
    """A person with a password and a confirmed address."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    user = User.objects.create_user("ada@example.com", PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


def sign_in(password: str, *, ip: str = "192.0.2.1", email: str = "ada@example.com") -> int:
    """Try to sign in from an address; returns the status."""
    form = {"login": email, "password": password}
    return Client(REMOTE_ADDR=ip).post("/accounts/login/", form).status_code


@pytest.mark.usefixtures("ada")
def test_a_guesser_is_stopped_and_the_person_is_not(limit: Callable[[str, str], None]) -> None:
    limit("failed_sign_ins_to_account", "3/300")
    assert [sign_in("wrong") for _ in range(4)] == [200, 200, 200, 429]
    assert sign_in(PASSWORD) == 429  # from the guesser's own network even the right one
    assert sign_in(PASSWORD, ip="198.51.100.7") == 302
    answer = Client(REMOTE_ADDR="192.0.2.1").post("/accounts/login/", {"login": "ada@example.com", "password": "x"})
    assert 1 <= int(answer.headers["Retry-After"]) <= 300


@pytest.mark.usefixtures("ada")
def test_one_network_cannot_try_many_accounts(limit: Callable[[str, str], None]) -> None:
    limit("failed_sign_ins", "3/300")
    tried = [sign_in("wrong", email=f"person{each}@example.com", ip=f"2001:db8::{each}") for each in range(4)]
    assert tried == [200, 200, 200, 429]
    assert sign_in(PASSWORD, ip="2001:db8:1::1") == 302


@pytest.mark.usefixtures("ada")
def test_signing_in_rightly_counts_for_nothing(limit: Callable[[str, str], None]) -> None:
    limit("failed_sign_ins_to_account", "1/300")
    assert [sign_in(PASSWORD) for _ in range(3)] == [302, 302, 302]


def test_networks() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") == "2001:db8::/64"


def test_a_totp_secret_is_sealed_in_the_database(ada: User) -> None:
    secret = generate_totp_secret()
    TOTP.activate(ada, secret)
    with connection.cursor() as cursor:
        cursor.execute("SELECT data::text FROM mfa_authenticator")
        (stored,) = cursor.fetchone()
    assert secret not in stored
    wrapped = Authenticator.objects.get().wrap()
    assert wrapped.validate_code(_code(secret))


def _code(secret: str) -> str:
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time

    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


def test_an_organization_may_require_a_second_factor_of_its_members(acme: World) -> None:
    owner = acme.person()
    url = f"/v2/organizations/{acme.id}"
    assert owner.patch(url, {"mfa_required": True}).code == "mfa_first"
    assert acme.owner.user is not None
    TOTP.activate(acme.owner.user, generate_totp_secret())
    assert owner.patch(url, {"mfa_required": True}).body["mfa_required"] is True
    late = person()
    with org_scope(acme.id):
        Membership.objects.create(org=acme.owner.org, user=late, role=Role.VIEWER)
    refused = Caller(user=late).get(url)
    assert (refused.status, refused.code) == (403, "mfa_required")
    TOTP.activate(late, generate_totp_secret())
    assert Caller(user=late).get(url).status == 200
    change_settings(access_org(acme.owner.user, acme.id), mfa_required=False)


def test_an_address_is_confirmed_and_a_password_reset_by_mail(ada: User, settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    mail.outbox = []
    form = {"email": "new@example.com", "password1": PASSWORD, "password2": PASSWORD}
    assert Client().post("/accounts/signup/", form).status_code == 302
    assert "new@example.com" in mail.outbox[-1].to
    assert "/accounts/confirm-email/" in str(mail.outbox[-1].body)
    assert Client().post("/accounts/password/reset/", {"email": ada.email}).status_code == 302
    assert "/accounts/password/reset/key/" in str(mail.outbox[-1].body)


def test_links_in_mail_lead_to_the_public_address_whatever_the_request_says(ada: User, settings: Settings) -> None:
    """Whoever asks for somebody's new password must not choose where the link in the mail leads."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.PUBLIC_URL = "https://signal.example.com"
    mail.outbox = []
    stranger = Client(headers={"Host": "localhost:31337"})
    for address in (ada.email, "nobody@example.com"):
        assert stranger.post("/accounts/password/reset/", {"email": address}).status_code == 302
    for address in (ada.email, "new@example.com"):
        form = {"email": address, "password1": PASSWORD, "password2": PASSWORD}
        assert stranger.post("/accounts/signup/", form).status_code in {200, 302}
    assert len(mail.outbox) >= 3
    for message in mail.outbox:
        assert "31337" not in str(message.body)
        assert "https://signal.example.com/accounts/" in str(message.body)
        assert "CloudSignal at signal.example.com" in str(message.body)


def test_the_same_word_is_said_for_an_address_everywhere() -> None:
    for page in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        text = Client().get(page).content.decode()
        assert ">Email address</label>" in text
        assert not re.search(r">E-?[Mm]ail(?! address<)", text)


def test_sessions_that_are_over_are_deleted(ada: User) -> None:
    clients = [Client(), Client()]
    for client in clients:
        client.force_login(ada)
        client.get("/orgs/")
    over, going_on = (client.session.session_key for client in clients)
    Session.objects.filter(session_key=over).update(expire_date=timezone.now())
    clear_sessions()
    assert [session.session_key for session in Session.objects.all()] == [going_on]
    assert {session.session_key for session in UserSession.objects.all()} <= {going_on}


def test_mail_servers_are_named_by_url() -> None:
    found = mail_server("smtps://me%40x:p%3Aw@mail.example.com")
    assert (found.host, found.port, found.user, found.password, found.tls) == (
        "mail.example.com", 465, "me@x", "p:w", True,
    )  # fmt: skip
    assert mail_server("smtp://h").port == 587
    for wrong in ("", "http://h", "smtp://", "smtp://h:x"):
        with pytest.raises(ConfigError):
            mail_server(wrong)

"""What people change about their own way in stands in the audit of each of their organizations, and in no other."""

from __future__ import annotations

import re
from pathlib import Path

import allauth
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.test import Client
from django.urls import reverse

from audit.models import Event
from cloudsignal import ids
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.accounts.events import CHANGES
from orgs.models import Membership, User
from tests.support.calling import Caller
from tests.support.world import organization, person

pytestmark = pytest.mark.django_db

FORMER, FRESH = "correct horse battery staple", "staple battery horse correct"


def changes() -> dict[str, list[str]]:
    """Events that were recorded, by organization (``platform`` for the platform's log)."""
    found: dict[str, list[str]] = {}
    with platform_scope():
        for event in Event.objects.filter(kind="account.changed").order_by("ts", "id"):
            assert FRESH not in str(event.after)
            found.setdefault(event.org_id, []).append(str((event.after or {})["change"]))
    return found


@pytest.fixture
def ada() -> User:
    user = person("ada@example.com")
    user.set_password(FORMER)
    user.save()
    return user


def signed_in(user: User) -> Client:
    return Caller(user=user).client


def change_password(client: Client) -> None:
    form = {"oldpassword": FORMER, "password1": FRESH, "password2": FRESH}
    assert client.post(reverse("account_change_password"), form).status_code == 302


def test_a_new_password_stands_in_the_audit_of_each_of_a_persons_organizations(ada: User) -> None:
    first, second, other = organization("First", owner=ada), organization("Second"), organization("Other")
    with org_scope(second.org_id):
        Membership.objects.create(org=second.org, user=ada, role="viewer")
    change_password(signed_in(ada))
    assert changes() == {first.org_id: ["password changed"], second.org_id: ["password changed"]}
    assert other.org_id not in changes()
    with org_scope(first.org_id):
        event = Event.objects.get(kind="account.changed")
    assert (event.actor, event.target, event.ip) == ("user:ada@example.com", "user:ada@example.com", "127.0.0.1")


def test_a_wrong_present_password_changes_and_records_nothing(ada: User) -> None:
    organization("First", owner=ada)
    client = signed_in(ada)
    form = {"oldpassword": "wrong", "password1": FRESH, "password2": FRESH}
    assert client.post(reverse("account_change_password"), form).status_code == 200
    assert changes() == {}


def test_a_second_factor_that_is_taken_away_is_recorded(ada: User) -> None:
    acme = organization("Acme", owner=ada)
    TOTP.activate(ada, generate_totp_secret())
    client = signed_in(ada)
    client.post(reverse("account_reauthenticate"), {"password": FORMER})
    assert client.post(reverse("mfa_deactivate_totp")).headers["Location"] == reverse("mfa_index")
    assert changes()[acme.org_id][-1] == "authenticator app removed"


def test_operators_and_people_of_no_organization_are_in_the_platforms_log(ada: User) -> None:
    ada.is_operator = True
    ada.save()
    acme = organization("Acme", owner=ada)
    change_password(signed_in(ada))
    assert changes() == {acme.org_id: ["password changed"], ids.PLATFORM_ORG: ["password changed"]}
    bob = person("bob@example.com")
    bob.set_password(FORMER)
    bob.save()
    change_password(signed_in(bob))
    assert changes()[ids.PLATFORM_ORG] == ["password changed", "password changed"]


def test_every_notification_of_a_changed_way_in_has_its_words() -> None:
    """A later django-allauth with one more is noticed here."""
    modules = (path for path in Path(allauth.__file__).parent.rglob("*.py") if "socialaccount" not in path.parts)
    text = "".join(path.read_text() for path in modules)
    given = set(re.findall(r'send_notification_mail\(\s*"([a-z_/]+)"', text))
    assert given
    assert given == set(CHANGES)


def test_a_code_in_an_email_confirms_nobody_again_because_the_step_up_asks_for_a_password_or_second_factor(
    ada: User,
) -> None:
    EmailAddress.objects.update_or_create(user=ada, email=ada.email, defaults={"verified": True, "primary": True})
    client = signed_in(ada)
    page = client.get(reverse("account_reauthenticate")).content.decode()
    assert "Confirm your identity" in page
    assert reverse("account_request_reauthentication_code") not in page
    for name in ("account_request_reauthentication_code", "account_confirm_reauthentication_code"):
        assert client.get(reverse(name)).status_code == 403
        assert client.post(reverse(name), {"code": "ABC123"}).status_code == 403

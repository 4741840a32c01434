"""Secrets of one username over time: the bound retires the oldest, and a first password outlives its expiry."""

from __future__ import annotations

from datetime import timedelta

import pytest

from audit.access import AuditQuery, search
from audit.kinds import AuthReason
from cloudsignal.edge.signin.check import Checked, Name, check, session_end
from cloudsignal.errors import Limit
from cloudsignal.redis import client
from cloudsignal.secrets.keyring import pepper
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.credential import Credential as Record
from cloudsignal.wire.credential import open_credential
from orgs.access.grants import Access
from orgs.credentials.identities import reach_of, revoke_issued_by
from orgs.credentials.issuing import (
    LIVE_SECRETS_MAX,
    Issued,
    issue_credential,
    refresh_credential,
    revoke_credential,
    revoke_identity,
)
from orgs.credentials.push import SECRETS_MAX, push_credential
from orgs.credentials.reads import credential_counts, get_credential, list_credentials
from orgs.models import Credential
from tests.support.world import organization

pytestmark = pytest.mark.django_db


@pytest.fixture
def access() -> Access:
    return organization()


def record(access: Access, username: str) -> Record:
    """The record as it would be pushed now."""
    client().delete(keys.credential(access.org_id, username))
    assert push_credential(client(), access.org_id, username)
    blob = client().hget(keys.credential(access.org_id, username), "b")
    assert isinstance(blob, bytes)
    return open_credential(blob, pepper(), org=access.org_id, username=username)


def signing_in(access: Access, issued: Issued, *, after: float = 0) -> Checked:
    """What an edge answers to this password, ``after`` seconds from now."""
    from django.utils import timezone

    found = record(access, issued.local)
    now = timezone.now().timestamp() + after
    name = Name(issued.local, access.org_id)
    return check(found, pepper=pepper(), name=name, password=issued.password.encode(), now=now)


def test_a_further_secret_retires_the_oldest_and_refuses_nobody(access: Access) -> None:
    issued = [issue_credential(access, username="page") for _ in range(LIVE_SECRETS_MAX + 2)]
    states = [get_credential(access, one.token_id).state for one in issued]
    assert states == ["retired"] * 2 + ["active"] * LIVE_SECRETS_MAX
    assert credential_counts(access).active == LIVE_SECRETS_MAX
    assert [row.token_id for row in list_credentials(access, state="retired").rows] == [
        issued[1].token_id, issued[0].token_id,
    ]  # fmt: skip
    assert signing_in(access, issued[0]).reason is AuthReason.RETIRED
    assert signing_in(access, issued[2]).reason is None
    newest = search(access, AuditQuery(kind="credential.issued")).events[0]
    assert (newest.after or {})["retired"] == [issued[1].token_id]


def test_a_session_on_a_retired_secret_goes_on_until_that_is_revoked(access: Access) -> None:
    first, *_ = [issue_credential(access, username="page") for _ in range(LIVE_SECRETS_MAX + 1)]
    now = first.issued_at.timestamp()
    assert session_end(record(access, "page"), first.token_id, now=now)[1] is None
    revoke_credential(access, first.token_id)
    assert session_end(record(access, "page"), first.token_id, now=now)[1] is AuthReason.REVOKED


def test_a_retired_secret_can_be_refreshed_and_the_new_one_signs_in(access: Access) -> None:
    first, *_ = [issue_credential(access, username="page") for _ in range(LIVE_SECRETS_MAX + 1)]
    again = refresh_credential(access, first.token_id)
    assert signing_in(access, again).reason is None
    assert credential_counts(access).active == LIVE_SECRETS_MAX


def test_the_one_longest_without_issue_or_refresh_is_retired(access: Access) -> None:
    refreshing, *others = [issue_credential(access, username="page") for _ in range(LIVE_SECRETS_MAX - 1)]
    refresh_credential(access, refreshing.token_id)
    issue_credential(access, username="page")
    assert get_credential(access, refreshing.token_id).state == "active"
    assert [get_credential(access, one.token_id).state for one in others[:2]] == ["retired", "active"]


def test_static_secrets_never_make_room(access: Access) -> None:
    for _ in range(LIVE_SECRETS_MAX - 1):
        issue_credential(access, username="pump", static=True)
    one = issue_credential(access, username="pump")
    issue_credential(access, username="pump", static=True)
    assert get_credential(access, one.token_id).state == "retired"
    for static in (False, True):
        with pytest.raises(Limit, match="20 static credentials"):
            issue_credential(access, username="pump", static=static)
    assert credential_counts(access).active == LIVE_SECRETS_MAX


def test_the_first_password_signs_in_while_its_client_refreshes_without_a_break(access: Access) -> None:
    first = issue_credential(access, username="phone", ttl=60)
    assert signing_in(access, first, after=61).reason is AuthReason.EXPIRED
    second = refresh_credential(access, first.token_id, ttl=3600)
    third = refresh_credential(access, second.token_id, ttl=7200)
    assert signing_in(access, first, after=3601).reason is None
    assert signing_in(access, second, after=3601).reason is AuthReason.EXPIRED
    assert signing_in(access, first, after=7201).reason is AuthReason.EXPIRED
    assert get_credential(access, first.token_id).ends_at == third.expires_at


def test_the_first_password_ends_a_day_after_its_issue_however_often_it_was_refreshed(access: Access) -> None:
    first = issue_credential(access, username="phone", ttl=60)
    with platform_scope():
        row = Credential.objects.get(token_id=first.token_id)
        row.issued_at -= timedelta(hours=23)
        row.save()
    refresh_credential(access, first.token_id, ttl=7200)
    assert signing_in(access, first, after=3590).reason is None
    assert signing_in(access, first, after=3610).reason is AuthReason.EXPIRED


def test_revoking_any_of_the_refreshed_ends_the_first_password_at_its_own_expiry(access: Access) -> None:
    first = issue_credential(access, username="phone", ttl=60)
    second = refresh_credential(access, first.token_id, ttl=3600)
    revoke_credential(access, second.token_id)
    assert signing_in(access, first).reason is None
    assert signing_in(access, first, after=61).reason is AuthReason.EXPIRED


@pytest.mark.parametrize("how", ["the secret", "the username", "its issuer"])
def test_a_first_password_past_its_own_expiry_can_be_revoked(access: Access, how: str) -> None:
    first = issue_credential(access, username="phone", ttl=60)
    refresh_credential(access, first.token_id, ttl=3600)
    with platform_scope():
        Credential.objects.filter(token_id=first.token_id).update(expires_at=first.issued_at)
    assert get_credential(access, first.token_id).state == "active"
    assert reach_of(access, issued_by=[access.actor]).credentials == 2
    if how == "the secret":
        revoke_credential(access, first.token_id)
    elif how == "the username":
        revoke_identity(access, "phone")
    else:
        assert revoke_issued_by(access, [access.actor]).credentials == 2
    assert get_credential(access, first.token_id).state == "revoked"


def test_the_record_of_a_busy_name_still_tells_sessions_that_their_secret_was_revoked(access: Access) -> None:
    issued = [issue_credential(access, username="busy", ttl=60) for _ in range(SECRETS_MAX + 5)]
    with platform_scope():
        ended = [one.token_id for one in issued[:-1]]
        Credential.objects.filter(token_id__in=ended).update(retired_at=None, expires_at=issued[0].issued_at)
    revoke_credential(access, issued[0].token_id)
    found = record(access, "busy")
    assert len(found.secrets) == SECRETS_MAX
    assert session_end(found, issued[0].token_id, now=0)[1] is AuthReason.REVOKED

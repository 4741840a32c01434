"""Who can erase an organization: not the application's role, whatever it writes; the deleting role after a week."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from django.conf import settings
from django.db import ProgrammingError, connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from audit.models import Event
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from orgs.models import Organization
from orgs.organizations import deletion
from orgs.organizations.deletion import delete_organization, purge_due, restore_organization
from tests.support.databases import Databases
from tests.support.world import organization

pytestmark = pytest.mark.django_db(transaction=True)

WEEK = timedelta(days=7)


@pytest.fixture
def acme(transactional_db: None) -> Access:
    return organization("Acme")


def mark(org_id: str) -> None:
    """What an attacker with the application's role does: nobody is asked, and the date is past."""
    with platform_scope():
        Organization.objects.filter(pk=org_id).update(
            status="deleting", delete_after=timezone.now() - timedelta(days=9)
        )


def noticed(databases: Databases, org_id: str, ago: timedelta) -> None:
    with databases.admin() as admin:
        statement = "UPDATE orgs_deletion SET noticed_at = now() - %s WHERE organization = %s"
        assert admin.execute(statement, [ago, org_id]).rowcount == 1


def events(org_id: str) -> int:
    with platform_scope():
        return Event.objects.filter(org_id=org_id).count()


def test_the_application_cannot_erase_an_audit_by_marking_its_organization(acme: Access, databases: Databases) -> None:
    before = events(acme.org_id)
    assert before
    mark(acme.org_id)
    with pytest.raises(ProgrammingError, match="permission denied"), platform_scope():
        connection.cursor().execute("SELECT delete_organization(%s)", [acme.org_id])
    assert purge_due() == 0  # the worker's own run: the mark is noticed, and that is all
    noticed(databases, acme.org_id, WEEK - timedelta(minutes=1))
    assert purge_due() == 0
    assert events(acme.org_id) == before
    noticed(databases, acme.org_id, WEEK)
    assert purge_due() == 1
    assert events(acme.org_id) == 0
    with platform_scope():
        [left] = Event.objects.filter(org_id="platform", kind="org.deleted")
    assert left.before == {"id": acme.org_id, "name": "Acme"}


def test_the_deleting_role_can_do_nothing_else(acme: Access) -> None:
    with psycopg.connect(settings.DATABASE_DELETE_URL, autocommit=True) as deleting:
        deleting.execute("SELECT set_config('cloudsignal.platform', 'on', false)")
        for statement in (
            "SELECT 1 FROM orgs_organization",
            "DELETE FROM audit_event",
            "UPDATE orgs_deletion SET noticed_at = now() - interval '8 days'",
            "INSERT INTO orgs_deletion (organization, name, noticed_at) VALUES ('x', 'x', now() - interval '8 days')",
            "CREATE TABLE mine (x int)",
            "CREATE TEMP TABLE mine (x int)",
            "SET ROLE cloudsignal_owner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                deleting.execute(statement)
        assert deleting.execute("SELECT delete_organization(%s)", [acme.org_id]).fetchone() == (False,)


def test_restoring_begins_the_wait_anew_and_a_date_to_come_is_waited_for(acme: Access, databases: Databases) -> None:
    delete_organization(acme, confirm="Acme")
    assert purge_due() == 0
    noticed(databases, acme.org_id, 2 * WEEK)
    assert purge_due() == 0  # the date that the owner was told has not come
    restore_organization(acme)
    assert purge_due() == 0
    mark(acme.org_id)
    assert purge_due() == 0
    with org_scope(acme.org_id):
        assert Organization.objects.get().status == "deleting"


def test_what_was_deleted_before_a_crash_is_written_down_by_the_next_run(
    acme: Access, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark(acme.org_id)
    purge_due()
    noticed(databases, acme.org_id, WEEK)

    def crash(org_id: str, name: str) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as killed:
        killed.setattr(deletion, "_record_deleted", crash)
        with pytest.raises(OSError, match="killed here"):
            purge_due()
    assert events(acme.org_id) == 0
    assert purge_due() == 1
    assert purge_due() == 0
    with platform_scope():
        assert Event.objects.filter(org_id="platform", kind="org.deleted").count() == 1


def test_without_the_role_nothing_is_deleted_and_the_log_says_so(
    acme: Access, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DATABASE_DELETE_URL = ""
    assert purge_due() == 0
    assert "DATABASE_DELETE_URL is not set" in caplog.text

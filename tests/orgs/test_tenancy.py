"""Row-level security as the net under the ORM: each fact of the design, on PostgreSQL, as the application role."""

from __future__ import annotations

import psycopg
import pytest
from django.apps import apps
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

from acl.models import Deployment, PolicyVersion
from audit.models import Event
from cloudsignal.tenancy.scopes import SETTINGS, api_key_scope, org_scope, platform_scope, user_scope
from orgs.credentials.issuing import issue_credential
from orgs.models import ApiKey, Credential, Membership, MqttIdentity, Organization
from tests.support.databases import Databases
from tests.support.world import organization, person

pytestmark = pytest.mark.django_db


def settings_now() -> list[str]:
    with connection.cursor() as cursor:
        reads = ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in SETTINGS)
        cursor.execute(f"SELECT {reads}")
        return list(cursor.fetchone())


def tenant_tables() -> dict[str, tuple[bool, bool]]:
    """Every table with an ``org_id``, and the organizations themselves: whether security is enabled and forced."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c "
            "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND (c.relname = "
            "'orgs_organization' OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid "
            "AND a.attname = 'org_id' AND NOT a.attisdropped))"
        )
        return {name: (enabled, forced) for name, enabled, forced in cursor.fetchall()}


def test_every_tenant_table_has_row_level_security_forced() -> None:
    tables = tenant_tables()
    assert {name for name, state in tables.items() if state != (True, True)} == set()
    # The enumeration itself finds what it should: every model with an organization is among the tables.
    models = {
        model._meta.db_table
        for model in apps.get_models()
        if any(field.column == "org_id" for field in model._meta.concrete_fields)
    }
    assert models <= set(tables)
    assert len(models) >= 9


def test_every_tenant_table_has_a_policy() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tablename FROM pg_policies WHERE policyname = 'tenant'")
        assert set(tenant_tables()) <= {name for (name,) in cursor.fetchall()}


def test_partitions_made_later_are_closed_and_forced_too() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT audit_ensure_partition((now() AT TIME ZONE 'UTC')::date)")
    partitions = {name: state for name, state in tenant_tables().items() if name.startswith("audit_event_")}
    assert len(partitions) >= 2
    assert set(partitions.values()) == {(True, True)}
    for name in partitions:
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            connection.cursor().execute(f"SELECT 1 FROM {name}")  # noqa: S608


def test_every_foreign_key_between_tenant_tables_is_composite() -> None:
    """A plain key could point into another tenant."""
    tables = set(tenant_tables()) - {"orgs_organization"}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text, array_length(conkey, 1), conname "
            "FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
        )
        keys = cursor.fetchall()
    between = [key for key in keys if key[0] in tables and key[1] in tables]
    assert len(between) >= 3
    assert [key for key in between if key[2] < 2] == []


def test_every_relation_between_tenant_models_has_a_key_in_the_database() -> None:
    tenant = {
        model for model in apps.get_models() if any(field.column == "org_id" for field in model._meta.concrete_fields)
    }
    relations = {
        (model._meta.db_table, field.column)
        for model in tenant
        for field in model._meta.concrete_fields
        if field.is_relation and field.related_model in tenant and field.column != "org_id"
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, attname FROM pg_constraint, unnest(conkey) AS n "
            "JOIN pg_attribute ON attnum = n "
            "WHERE attrelid = conrelid AND contype = 'f' AND array_length(conkey, 1) = 2"
        )
        assert relations <= {(table, column) for table, column in cursor.fetchall()}
    assert ("orgs_credential", "identity_id") in relations


def test_a_credential_cannot_belong_to_an_identity_of_another_organization() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    issue_credential(theirs, username="pump")
    with platform_scope():
        foreign = MqttIdentity.objects.get(org=theirs.org, username="pump")
        with pytest.raises(IntegrityError), transaction.atomic():
            Credential.objects.create(
                org=ours.org, identity=foreign, token_id="tok_x", mac=bytes(32), hint="abcd", created_by="test"
            )


def test_no_view_runs_with_the_rights_of_its_owner() -> None:
    """A view needs ``security_invoker``, or it shows what its owner may see."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace "
            "AND NOT coalesce('security_invoker=true' = ANY(reloptions), false)"
        )
        assert cursor.fetchall() == []


def test_outside_every_scope_no_tenant_row_is_visible() -> None:
    access = organization()
    issue_credential(access)
    for model in (Organization, Membership, MqttIdentity, Credential, PolicyVersion, Deployment, Event):
        assert model.objects.count() == 0, model  # type: ignore[attr-defined]
    with org_scope(access.org_id):
        assert Credential.objects.count() == 1


def test_a_setting_left_empty_by_an_earlier_transaction_is_no_organization() -> None:
    """PostgreSQL leaves '' behind a local setting, not NULL; '' must match nothing, not even a platform row."""
    access = organization()
    with platform_scope():
        Event.objects.create(ts=access.org.created_at, org_id="platform", kind="critical")
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('cloudsignal.org', '', true)")
    assert Organization.objects.count() == 0
    assert Event.objects.count() == 0
    with user_scope(access.user.pk if access.user else 0), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('cloudsignal.user', '', true)")  # would be an invalid bigint
        assert Membership.objects.count() == 0


def test_a_scope_shows_one_organization_even_when_the_query_forgets_to_filter() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    issue_credential(ours)
    issue_credential(theirs)
    with org_scope(ours.org_id):
        for model in apps.get_models():
            if any(field.column == "org_id" for field in model._meta.concrete_fields):
                seen = set(model._default_manager.values_list("org_id", flat=True))
                assert seen <= {ours.org_id}, model
        assert [org.pk for org in Organization.objects.all()] == [ours.org_id]
        assert Credential.objects.filter(org_id=theirs.org_id).count() == 0


def test_nothing_of_another_organization_can_be_written() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    issue_credential(theirs, username="pump")
    with org_scope(ours.org_id):
        assert MqttIdentity.objects.filter(username="pump").update(note="stolen") == 0
        assert MqttIdentity.objects.filter(username="pump").delete()[0] == 0
        assert Organization.objects.filter(pk=theirs.org_id).update(name="stolen") == 0
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            MqttIdentity.objects.create(org_id=theirs.org_id, username="planted", created_by="test")
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            Event.objects.create(ts=ours.org.created_at, org_id=theirs.org_id, kind="critical")
    with org_scope(theirs.org_id):
        assert MqttIdentity.objects.get(username="pump").note == ""


def test_a_row_cannot_be_moved_into_another_organization() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    issue_credential(ours, username="pump")
    with org_scope(ours.org_id):
        Credential.objects.all().delete()
    with pytest.raises(ProgrammingError, match="row-level security"), org_scope(ours.org_id):
        MqttIdentity.objects.filter(username="pump").update(org_id=theirs.org_id)


def test_nested_scopes_restore_the_outer_one() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    before = settings_now()
    with org_scope(ours.org_id):
        with org_scope(theirs.org_id):
            assert settings_now() == [theirs.org_id, "", "", ""]
            with platform_scope():
                assert settings_now() == ["", "", "", "on"]
            assert settings_now() == [theirs.org_id, "", "", ""]
        assert settings_now() == [ours.org_id, "", "", ""]
        assert [org.pk for org in Organization.objects.all()] == [ours.org_id]
    assert settings_now() == before


def test_an_inner_scope_narrows_a_platform_scope() -> None:
    ours, _theirs = organization("Ours"), organization("Theirs")
    with platform_scope():
        assert Organization.objects.count() == 2
        with org_scope(ours.org_id):
            assert Organization.objects.count() == 1
        assert Organization.objects.count() == 2


def test_an_exception_in_an_inner_scope_restores_the_outer_one() -> None:
    ours, theirs = organization("Ours"), organization("Theirs")
    with org_scope(ours.org_id):
        with pytest.raises(ZeroDivisionError), org_scope(theirs.org_id):
            raise ZeroDivisionError
        assert settings_now()[0] == ours.org_id
        with pytest.raises(DatabaseError), platform_scope():
            connection.cursor().execute("SELECT 1/0")
        assert settings_now() == [ours.org_id, "", "", ""]


@pytest.mark.django_db(transaction=True)
def test_nothing_of_a_scope_outlives_its_transaction() -> None:
    access = organization()
    with org_scope(access.org_id):
        assert Organization.objects.count() == 1
    assert settings_now() == ["", "", "", ""]
    assert Organization.objects.count() == 0


def test_a_person_reads_their_own_memberships_and_organizations_and_writes_nothing() -> None:
    mine, _other = organization("Mine"), organization("Other")
    assert mine.user is not None
    with user_scope(mine.user.pk):
        assert [row.org_id for row in Membership.objects.all()] == [mine.org_id]
        assert [org.pk for org in Organization.objects.all()] == [mine.org_id]
        assert Membership.objects.update(role="viewer") == 0
        assert MqttIdentity.objects.count() == 0
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            Membership.objects.create(org=_other.org, user=mine.user, role="owner")


def test_a_key_is_found_by_its_digest_and_by_nothing_else() -> None:
    access = organization()
    with org_scope(access.org_id):
        ApiKey.objects.create(org=access.org, kind="sk", name="ci", digest="a" * 64, hint="x7m4", created_by="test")
    with api_key_scope("a" * 64):
        assert [key.org_id for key in ApiKey.objects.all()] == [access.org_id]
        assert ApiKey.objects.update(name="stolen") == 0
        assert Organization.objects.count() == 0
    with api_key_scope("b" * 64):
        assert ApiKey.objects.count() == 0


def test_the_application_role_owns_nothing_and_bypasses_nothing() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False, False, False)
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND pg_has_role(current_user, relowner, 'USAGE')"
        )
        assert cursor.fetchall() == []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE orgs_credential DISABLE ROW LEVEL SECURITY",
        "TRUNCATE orgs_credential",
        "DROP POLICY tenant ON orgs_credential",
        "DELETE FROM audit_event",
        "UPDATE audit_event SET reason = ''",
        "UPDATE acl_policyversion SET source = ''",
        "DELETE FROM acl_policyversion",
        "DELETE FROM django_migrations",
        "SELECT delete_organization('org_aaaaaaaaaaaa')",
        "SELECT notice_deletions()",
        "SELECT 1 FROM orgs_deletion",
        "INSERT INTO orgs_deletion (organization, name) VALUES ('org_aaaaaaaaaaaa', 'x')",
        "UPDATE orgs_deletion SET noticed_at = now() - interval '8 days'",
        "SET ROLE cloudsignal_delete",
        "SET ROLE cloudsignal_owner",
    ],
)
def test_the_application_role_cannot(statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"must be owner|permission denied"), platform_scope():
        connection.cursor().execute(statement)


def test_even_the_owner_sees_nothing_outside_a_scope(databases: Databases) -> None:
    """FORCED: a migration or a careless script that runs as the owner is held too."""
    from django.conf import settings

    owner = settings.DATABASES["owner"]
    with (
        psycopg.connect(
            host=owner["HOST"], port=owner["PORT"], dbname=owner["NAME"], user=owner["USER"], password=owner["PASSWORD"]
        ) as connected,
        databases.admin() as admin,
    ):
        admin.execute(
            "INSERT INTO cloudsignal_outboxrow (org_id, task, key, payload, created_at, available_at, attempts, "
            "last_error) VALUES ('org_aaaaaaaaaaaa', 't', 'k', '{}', now(), now() + interval '1 day', 0, '')"
        )
        try:
            assert connected.execute("SELECT count(*) FROM cloudsignal_outboxrow").fetchone() == (0,)
            assert admin.execute("SELECT count(*) FROM cloudsignal_outboxrow").fetchone() == (1,)
        finally:
            admin.execute("DELETE FROM cloudsignal_outboxrow WHERE org_id = 'org_aaaaaaaaaaaa'")


def test_a_stranger_has_no_organizations() -> None:
    organization()
    stranger = person()
    with user_scope(stranger.pk):
        assert Organization.objects.count() == 0

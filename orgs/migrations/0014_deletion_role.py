"""Organizations are deleted by a database role of its own, and only after it has seen them wait for the grace period.

Before, the application's role could erase any organization at once, its audit included: it may write ``status`` and
``delete_after``, and it could call the function. Now it can do neither call nor write the table of what was noticed.
"""

# ruff: noqa: S608 - SQL of constants

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.db import migrations

from cloudsignal.tenancy import rls

FORMER = import_module("orgs.migrations.0003_delete_organization").DELETE
ROLE = settings.DATABASE_DELETE_ROLE
NAME = "'" + ROLE.replace("'", "''") + "'"

NOTICED = """
CREATE TABLE orgs_deletion (
    organization varchar(16) PRIMARY KEY,
    name varchar(80) NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
)
"""

NOTICE = """
CREATE FUNCTION notice_deletions() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM set_config('cloudsignal.platform', 'on', true);
    -- What was restored meanwhile begins anew, should it ever be deleted again.
    DELETE FROM public.orgs_deletion d WHERE d.deleted_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM public.orgs_organization o WHERE o.id = d.organization AND o.status = 'deleting');
    INSERT INTO public.orgs_deletion (organization, name)
        SELECT id, name FROM public.orgs_organization WHERE status = 'deleting' ON CONFLICT DO NOTHING;
END
$$
"""

DELETE = """
CREATE FUNCTION delete_organization(wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant_table regclass;
BEGIN
    PERFORM set_config('cloudsignal.platform', 'on', true);
    -- The application writes status and delete_after, so neither proves anything. When it was noticed does.
    PERFORM 1 FROM public.orgs_deletion
        WHERE organization = wanted AND deleted_at IS NULL AND noticed_at <= now() - interval '7 days' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM 1 FROM public.orgs_organization
        WHERE id = wanted AND status = 'deleting' AND delete_after <= now() FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SET CONSTRAINTS ALL DEFERRED;
    -- Every table with an org_id, those of later versions too; partitions are reached through their parent.
    FOR tenant_table IN
        SELECT a.attrelid::regclass FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.attname = 'org_id' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('DELETE FROM %s WHERE org_id = $1', tenant_table) USING wanted;
    END LOOP;
    DELETE FROM public.orgs_organization WHERE id = wanted;
    UPDATE public.orgs_deletion SET deleted_at = now() WHERE organization = wanted;
    RETURN true;
END
$$
"""

GRANT = f"""
DO $$
BEGIN
    -- Where the role is made later, docs/operations.md has the same lines.
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = {NAME}) THEN
        GRANT EXECUTE ON FUNCTION notice_deletions(), delete_organization(text) TO {rls.quoted(ROLE)};
        GRANT SELECT, DELETE ON orgs_deletion TO {rls.quoted(ROLE)};
    END IF;
END
$$
"""


class Migration(migrations.Migration):
    """Schema only."""

    dependencies = [
        ("orgs", "0013_credential_rotation"),
    ]

    operations = [
        migrations.RunSQL(
            [
                NOTICED,
                f"REVOKE ALL ON orgs_deletion FROM PUBLIC, {rls.app_role()}",
                NOTICE,
                "DROP FUNCTION delete_organization(text)",
                DELETE,
                "REVOKE ALL ON FUNCTION notice_deletions(), delete_organization(text) FROM PUBLIC",
                GRANT,
            ],
            [
                "DROP FUNCTION delete_organization(text)",
                "DROP FUNCTION notice_deletions()",
                "DROP TABLE orgs_deletion",
                FORMER,
                "REVOKE ALL ON FUNCTION delete_organization(text) FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION delete_organization(text) TO {rls.app_role()}",
            ],
        ),
    ]

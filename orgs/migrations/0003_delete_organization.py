"""The one way rows of an organization go for good: a function of the owner, which checks that the grace has ended.

The application role may neither delete policy versions nor audit events, and keeps it that way.
"""

from __future__ import annotations

from django.db import migrations

from cloudsignal.tenancy import rls

DELETE = """
CREATE FUNCTION delete_organization(wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    tenant_table regclass;
BEGIN
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
    RETURN true;
END
$$
"""


class Migration(migrations.Migration):
    """Schema only."""

    dependencies = [
        ("orgs", "0002_settings_invitations_providers"),
    ]

    operations = [
        migrations.RunSQL(
            [
                DELETE,
                "REVOKE ALL ON FUNCTION delete_organization(text) FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION delete_organization(text) TO {rls.app_role()}",
            ],
            ["DROP FUNCTION delete_organization(text)"],
        ),
    ]

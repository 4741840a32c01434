"""Ingest appends by a role of its own, and asks which organizations exist without a right on their table."""

# ruff: noqa: S608 - SQL of constants

from django.conf import settings
from django.db import migrations

from cloudsignal.tenancy import rls

APP = rls.app_role()
ROLE = rls.quoted(settings.DATABASE_INGEST_ROLE)
NAME = "'" + settings.DATABASE_INGEST_ROLE.replace("'", "''") + "'"

ORGANIZATIONS = """
CREATE FUNCTION audit_organizations(asked text[]) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    outer_platform text := current_setting('cloudsignal.platform', true);
BEGIN
    PERFORM set_config('cloudsignal.platform', 'on', true);
    RETURN QUERY SELECT o.id::text FROM public.orgs_organization o WHERE o.id = ANY(asked) ORDER BY o.id FOR KEY SHARE;
    PERFORM set_config('cloudsignal.platform', coalesce(outer_platform, ''), true);
END
$$
"""
IF_THERE = f"DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = {NAME}) THEN"
# Where the role is made later, docs/operations.md has the same lines.
GRANT = f"""
{IF_THERE}
    GRANT SELECT, INSERT ON audit_event TO {ROLE};
    GRANT SELECT, INSERT, UPDATE ON audit_journal TO {ROLE};
    GRANT SELECT, INSERT, UPDATE, DELETE ON audit_opensession TO {ROLE};
    GRANT SELECT, INSERT ON audit_log_queue TO {ROLE};
    GRANT USAGE ON SEQUENCE audit_log_run TO {ROLE};
    GRANT EXECUTE ON FUNCTION audit_organizations(text[]) TO {ROLE};
END IF; END $$
"""
REVOKE = (
    f"{IF_THERE} REVOKE ALL ON audit_event, audit_journal, audit_opensession, audit_log_queue FROM {ROLE}; "
    f"REVOKE ALL ON SEQUENCE audit_log_run FROM {ROLE}; END IF; END $$"
)


class Migration(migrations.Migration):
    dependencies = [("audit", "0008_witnesses")]

    operations = [
        migrations.RunSQL(
            [
                ORGANIZATIONS,
                "REVOKE ALL ON FUNCTION audit_organizations(text[]) FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION audit_organizations(text[]) TO {APP}",
                GRANT,
            ],
            [REVOKE, "DROP FUNCTION audit_organizations(text[])"],
        ),
    ]

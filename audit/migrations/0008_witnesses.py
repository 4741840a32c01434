"""Cosignatures of witnesses on the checkpoints of the platform's log. Rows are added, never changed."""

from django.db import migrations

from cloudsignal.tenancy import rls

CREATE = """
CREATE TABLE audit_log_cosignature (
    org_id varchar(16) NOT NULL,
    size bigint NOT NULL,
    vkey text NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (org_id, vkey, size)
);
"""
GRANTS = f"""
REVOKE ALL ON audit_log_cosignature FROM {rls.app_role()};
GRANT SELECT, INSERT ON audit_log_cosignature TO {rls.app_role()};
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0007_transparency_log")]

    operations = [
        migrations.RunSQL(CREATE, "DROP TABLE audit_log_cosignature"),
        rls.tenant_table("audit_log_cosignature"),
        migrations.RunSQL(GRANTS, migrations.RunSQL.noop),
    ]

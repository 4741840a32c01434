"""The audit table, partitioned by day, and the functions that make and seal partitions.

The functions run with the rights of the owner (SECURITY DEFINER), so that the application role can ask for a partition
and can neither alter nor drop one.
"""

import uuid

from django.db import migrations, models

from audit.migrations import _events_sql as sql
from cloudsignal.tenancy import rls


class Migration(migrations.Migration):
    initial = True

    dependencies = [("orgs", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(sql.TABLE, "DROP TABLE audit_event")],
            state_operations=[
                migrations.CreateModel(
                    name="Event",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "ts", "id", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("ts", models.DateTimeField()),
                        ("id", models.UUIDField(default=uuid.uuid4)),
                        ("org_id", models.CharField(max_length=16, null=True)),
                        ("kind", models.CharField(db_collation="C", max_length=40)),
                        ("node", models.CharField(blank=True, max_length=128)),
                        ("session", models.CharField(blank=True, max_length=64)),
                        ("username", models.TextField(blank=True, db_collation="C")),
                        ("client_id", models.TextField(blank=True, db_collation="C")),
                        ("ip", models.GenericIPAddressField(null=True)),
                        ("port", models.IntegerField(default=0)),
                        ("transport", models.CharField(blank=True, max_length=16)),
                        ("mqtt_version", models.CharField(blank=True, max_length=16)),
                        ("tls_version", models.CharField(blank=True, max_length=16)),
                        ("tls_cipher", models.CharField(blank=True, max_length=64)),
                        ("reason", models.CharField(blank=True, db_collation="C", max_length=64)),
                        ("action", models.CharField(blank=True, max_length=16)),
                        ("topic", models.TextField(blank=True, db_collation="C")),
                        ("qos", models.SmallIntegerField(default=-1)),
                        ("retain", models.BooleanField(default=False)),
                        ("size", models.BigIntegerField(default=0)),
                        ("rule", models.CharField(blank=True, max_length=64)),
                        ("policy_digest", models.CharField(blank=True, max_length=71)),
                        ("count", models.BigIntegerField(default=1)),
                        ("actor", models.CharField(blank=True, max_length=320)),
                        ("target", models.CharField(blank=True, max_length=320)),
                        ("before", models.JSONField(null=True)),
                        ("after", models.JSONField(null=True)),
                        ("details", models.JSONField(null=True)),
                    ],
                    options={
                        "indexes": [models.Index(fields=["org_id", "ts", "id"], name="audit_event_org_ts")],
                    },
                ),
            ],
        ),
        rls.tenant_table("audit_event"),
        migrations.RunSQL(sql.DEFAULT_PARTITION, "DROP TABLE audit_event_default"),
        migrations.RunSQL(sql.ENSURE, "DROP FUNCTION audit_ensure_partition(date)"),
        migrations.RunSQL(sql.SEAL, "DROP FUNCTION audit_seal_partition(date)"),
        migrations.RunSQL(sql.GRANTS, migrations.RunSQL.noop),
    ]
